# An anonymizer that survives an attacker who trains on its output, as far as we have measured: appearance erased in
# closed form, on the features of the demo's world. Seconds, no epoch:
#   python multitask_train_fa.py --params params/params_robust.py
# For features of your own set the four names under 'data'; for what is guaranteed and what isn't see docs/method.md.

# run
run_id = "demo/robust"
seed = 0

# data
ar_dataset = "hmdb51"  # clips, static clips (..._fb10.h5) and actions of training people; no private label is read
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
val_split = "val"

# model
fa_arch = "eraser"  # recipe: [eraser+][transformer|mlp|encoder][+quantizer][+noise], see docs/method.md
erase_rank = 64  # of 192 directions. On the demo's test people, logistic regression and MLPs for attackers: excess
#   cMAP 54.4 -> 18.8; AR 93.8 -> 95.8, AD 88.8 -> 91.7; TAD 88.8 -> 92.3 at rank 32. A sweep on validation people will
#   choose it.

# to go further, each measured once on the demo's test people (excess of the stronger of logistic regression and an MLP,
# clip by clip; raw 54, this file 18.5); detection and anomaly detection behind them are not measured yet:
#   fa_arch = "eraser+quantizer", bits = 7: 3.8, and no attacker gets more than 7 bits from a clip
#   fa_arch = "eraser+encoder", trained behind the eraser: 10.4 (18.0 without the critic) with
#     num_layers_fa = 1, bottleneck = 48, privacy_objective = "critic", fb_loss_weight = 3, consistency = "relative",
#     fa_loss_weight = 1, num_epochs = 40, batch_size_ar = 128, learning_rate_fa = 1e-3, learning_rate_ft = 1e-3
#   fa_arch = "eraser+encoder+quantizer", bits = 7, with the same: 3.5
fb_frame_pool = 10  # static clips a video
