# The anonymizer that we recommend: a clip is released as one of 256 vectors, so no attacker, however strong, learns more
# than 8 bits from it. Fitted in seconds to features and actions, no private label, no epoch:
#   python multitask_train_fa.py --params params/params_robust.py
# For features of your own set the four names under 'data'. What is guaranteed and what isn't: docs/method.md.

# run
run_id = "demo/robust"
seed = 0

# data
ar_dataset = "hmdb51"  # clips and actions of training people
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
val_split = "val"

# model
fa_arch = "quantizer"  # recipe: [eraser+][transformer|mlp|encoder][+quantizer][+noise], see docs/method.md
bits = 8  # chosen by `python -m splavu sweep` on validation people of the large synthetic world: 7 lose 2.9 points of
#   telling steps of long videos, 10 give away more. About 20 vectors for each of 12 actions; sweep your own features,
#   for more actions want more bits: python -m splavu sweep --params params/params_sweep.py
