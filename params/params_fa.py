# Anonymizer training as published, on Kinetics-400 features of VideoMAE-B:
#   python multitask_train_fa.py --params params/params_fa.py
# Needs features_kinetics_{train,test}_mae.h5, features_kinetics_train_mae_fb10.h5, k400/k400_{train,test}_labels.json.

# run
run_id = "aam_k400_videomae"
seed = 0

# data
ar_dataset = "k400"
ft_arch = "videoMAE"
val_split = "test"  # the paper chooses on test; a split of your own is more honest

# model
fa_arch = "transformer"  # or a chain such as "eraser+encoder+quantizer", see docs/method.md
num_layers_fa = 3
num_heads = 8
batch_as_sequence = False  # True reproduces the reference, whose numbers don't hold for one feature at a time

# optimisation
num_epochs = 100
batch_size_ar = 512
v_batch_size = 512
val_freq = 2  # epochs between validations
learning_rate_fa = 1e-4  # for batch 512; scale linearly
learning_rate_ft = 1e-4
# precision = "bf16", accumulate, clip_norm, ema_decay, compile, deterministic, checkpoint_freq: see docs/training.md

# losses
fa_loss_weight = 100  # latent consistency; features of larger variance want a smaller one
consistency = "absolute"  # "relative" divides by that variance, so that one weight serves every encoder
ft_ar_loss_weight = 1
ft_tad_loss_weight = 0
ft_ad_loss_weight = 0
fb_loss_weight = 1  # more privacy pressure; 0 trains without it
privacy_objective = "published"  # "conditional" and "critic" ask about the clips that are stored, see docs/method.md
fb_frame_pool = 10
fb_frame_sample = 2

# evaluation
num_modes = 5  # evenly spaced clips of each video
