# Reconstruction pre-training of the anonymizer, the reference's settings:
#   python pretrain_fa.py --params params/params_pretrain.py
# The result goes into saved_fa_model of params_fa.py.

run_id = "pretrain_k400_videomae"
seed = 0

ar_dataset = "k400"
ft_arch = "videoMAE"
val_split = "test"

fa_arch = "transformer"
num_layers_fa = 3
num_heads = 8
batch_as_sequence = False

num_epochs = 500
batch_size = 512
val_freq = 10  # epochs between validations
learning_rate = 1e-4
loss = "mse"  # the paper: 'l1' with learning_rate 2e-5 and 100 epochs
