# The anonymizer that we recommend where nobody knows yet what features will be used for: what still pictures tell is
# erased, and what is left is released as one of at most 2^20 vectors, each of whose centroids stands for at least five
# training subjects. That bounds what a clip reveals of people whom it wasn't fitted to: release those.
# Fitted in seconds to features, static features and actions, no private label, no epoch:
#   python multitask_train_fa.py --params params/params_robust.py
# For features of your own set the four names under 'data'. What is guaranteed and what isn't: docs/method.md.

# run
run_id = "demo/robust"
seed = 0

# data
ar_dataset = "hmdb51"  # clips, static clips (..._fb10.h5) and actions of training people
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
val_split = "val"

# model: chosen by `python -m splavu sweep` on validation people of the large synthetic world (docs/method.md)
fa_arch = "eraser+quantizer"  # chain: [closed forms that erase+][transformer|mlp|encoder][+quantizer][+noise]
erase_rank = 32  # directions, of 192
code_space = "features"  # codes for what varies most, whatever it tells: actions that it wasn't fitted to are kept
code_dims = 32
bits = 20  # at most; min_subjects = 5 by default, of private_labels.csv (without one, videos)

# to hide more where the actions are all that will ever be asked for (others are lost: 98 -> 55 % top-1):
#   fa_arch = "quantizer", bits = 8, and no line of erase_rank, code_space, code_dims

fb_frame_pool = 10  # static clips a video
