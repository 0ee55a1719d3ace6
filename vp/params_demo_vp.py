# The VP protocol on the synthetic world (bash run_protocols.sh vp makes its features and runs it):
#   python vp/train_vp_ft.py --params vp/params_demo_vp.py --set anon=False
# and so on, as in params_vp.py.

run_id = "protocols/vp"
seed = 0

dataset = "vp_hmdb"
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
val_split = "val"

fa_arch = "transformer"
num_layers_fa = 3
num_heads = 8
ssl = False
anon = True
serving = "alone"

num_epochs = 60
num_epochs_ft = 60
num_epochs_fb = 60
batch_size = 128  # the data set is small: more steps an epoch
learning_rate_fa = 1e-3
learning_rate_ft = 3e-3
learning_rate_fb = 3e-3
val_freq = 5

fa_loss_weight = 10
ft_ar_loss_weight = 1
fb_loss_weight = 1
