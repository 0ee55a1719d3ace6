# The same on features of the synthetic world, about a minute (bash run_protocols.sh bias makes them and runs it):
#   python bias/evaluate_bias.py --params bias/params_demo_bias.py

run_id = "protocols/bias"
seeds = (0, 1, 2)

datasets = ("ntu_bias_f", "ntu_bias_m", "ntu_balanced", "tsh")
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/

anon = True
saved_fa_model = "saved_models/protocols/aam/model_temp.pth"
serving = "alone"

num_epochs = 60  # few and large steps: a checkpoint an epoch costs more than the epoch
batch_size = 128
learning_rate = 1e-2
weight_decay = 0.01

num_modes = 5
num_resamples = 1000
