# Accuracy for women and for men, on raw and on anonymized VideoMAE features of NTU-Bias and Toyota Smarthome:
#   python bias/evaluate_bias.py --params bias/params_bias.py
# Raw features only: --set anon=False

run_id = "bias_videomae"
seeds = (0, 1, 2)  # a head each; hits are averaged

datasets = ("ntu_bias_f", "ntu_bias_m", "ntu_balanced", "tsh")  # ntu_balanced: the control of the two before
ft_arch = "videoMAE"

anon = True
saved_fa_model = "saved_models/aam_k400_videomae/model_temp.pth"
serving = "alone"  # 'batch' reproduces the reference

num_epochs = 250  # fixed: there is no validation split, and nothing is chosen on the test side
batch_size = 1024
learning_rate = 1e-3
weight_decay = 0.01

num_modes = 5
num_resamples = 1000  # draws of subjects
