# The published anonymizer on the synthetic world's features, for comparison with params_robust.py, the demo's own: with
# action recognition, temporal action detection, anomaly detection and the privacy term. run_demo.sh --full makes
# what it reads; with the feature stores in place:
#   python multitask_train_fa.py --params params/params_demo.py

# run
run_id = "demo/aam"
seed = 0

# data
ar_dataset = "hmdb51"
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
val_split = "val"
tad_dataset = "thumos14"
tad_config = "tridet/thumos_demo.yaml"
ad_dataset = "ucf_crime"
ad_options = "@mgfn/demo.txt --validation-share 0.2"

# model
fa_arch = "transformer"
num_layers_fa = 3
num_heads = 8
batch_as_sequence = False

# optimisation
num_epochs = 90  # of 5 steps, a pass over the clips; detection and anomaly detection go on where they stopped
batch_size_ar = 128  # the data set is small: more steps an epoch
v_batch_size = 512
val_freq = 30
checkpoint_freq = 10
learning_rate_fa = 1e-3
learning_rate_ft = 1e-3
learning_rate_ft_ad = 1e-3

# losses
fa_loss_weight = 10  # 100 hardly moves these features (variance 0.8), 1 costs accuracy
ft_ar_loss_weight = 1
ft_tad_loss_weight = 1
ft_ad_loss_weight = 1
fb_loss_weight = 1

# evaluation
num_modes = 5
