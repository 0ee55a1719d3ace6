# The demo's fresh head on features of the synthetic world:
#   python train_ft.py --params params/params_demo_ft.py
# Raw features: --set anon=False --set run_id=demo/ft_raw

run_id = "demo/ft_anonymized"
seed = 0

dataset = "hmdb51"
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/

anon = True
saved_fa_model = "saved_models/demo/robust/model_temp.pth"  # the published one: demo/aam
serving = "alone"

num_epochs = 60
batch_size = 256
val_freq = 5
learning_rate = 3e-3

num_modes = 5
