# A fresh linear head on anonymized Kinetics-400 features:
#   python train_ft.py --params params/params_ft.py
# The raw baseline: --set anon=False --set run_id=ft_k400_raw

run_id = "ft_k400_anonymized"
seed = 0

dataset = "k400"
ft_arch = "videoMAE"
val_split = "test"  # Kinetics features come in two splits; with a third, name it here
test_split = "test"

anon = True
saved_fa_model = "saved_models/aam_k400_videomae/model_temp.pth"
serving = "alone"  # 'batch' reproduces the reference

num_epochs = 250
batch_size = 1024
v_batch_size = 512
val_freq = 2
learning_rate = 1e-3

num_modes = 5
