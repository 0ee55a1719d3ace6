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

# to go further: fa_arch = "eraser+quantizer", bits = 7 releases 7 bits of a clip and no more, whatever the attacker;
# fa_arch = "eraser+encoder" trains behind the eraser, with these:
#   privacy_objective = "critic"  # 'published', 'conditional'
#   consistency = "relative"      # a share of the features' variance: one weight for every encoder
#   fa_loss_weight = 10
#   bottleneck = 64               # numbers through which all of a clip passes
fb_frame_pool = 10  # static clips a video
