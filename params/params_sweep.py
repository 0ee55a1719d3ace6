# A sweep over anonymizers on the demo's features, judged on validation people:
#   python -m splavu sweep
# An entry is a family, a tuple of values a candidate each. "fit" names a closed form of `splavu fit`.

run_id = "demo/sweep"
base = "params/params_robust.py"  # where candidates start from, and the data
seeds = (0, 1, 2)
most_lost = 2.0  # points of top-1

candidates = (
    {"fa_arch": "eraser", "erase_rank": (16, 32, 48, 64, 80, 96, 112, 128)},
    {"fa_arch": "quantizer", "bits": (5, 6, 7, 8, 10)},
    {"fa_arch": "eraser+quantizer", "erase_rank": (32, 64, 96), "bits": (6, 7, 8)},
)
baselines = (
    {"fit": "leace"},
    {"fit": "pca", "keep": (32, 64)},
)
