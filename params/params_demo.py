# What the demo trains: an anonymizer on the synthetic world's features.
#   python -m splavu synthesize --out data/demo --seed 0 --size small
#   python feature_extraction/feature_extraction_action.py --encoder demo --data data/demo \
#       --features data/demo/features --dataset hmdb51 --split train,val,test --static 10
#   python multitask_train_fa.py --params params/params_demo.py

# run
run_id = "demo/aam"
seed = 0

# data
ar_dataset = "hmdb51"
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
val_split = "val"

# model
fa_arch = "transformer"
num_layers_fa = 3
num_heads = 8
batch_as_sequence = False

# optimisation
num_epochs = 100
batch_size_ar = 128  # the data set is small: more steps an epoch
v_batch_size = 512
val_freq = 5
learning_rate_fa = 1e-3
learning_rate_ft = 1e-3

# losses
fa_loss_weight = 10  # 100 hardly moves these features (variance 0.8), 1 costs accuracy
ft_ar_loss_weight = 1
fb_loss_weight = 1

# evaluation
num_modes = 5
