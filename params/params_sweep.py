# A sweep over anonymizers on the demo's features, judged on validation people:
#   python -m splavu sweep --params params/params_sweep.py
# An entry is a family, a tuple of values a candidate each; "fit" names a closed form of `splavu fit`. Closed forms take
# seconds each, trained ones minutes: leave out what you don't want.

run_id = "demo/sweep"
base = "params/params_robust.py"  # where candidates start from, and the data
seeds = (0, 1, 2)
most_lost = 1.5  # points of each use; 2 may be lost on test people, and what is chosen looks a little better than it is

_once = (0,)  # for what takes long, and for baselines
_trained = {
    "num_layers_fa": 1,
    "num_epochs": 40,
    "val_freq": 10,
    "batch_size_ar": 128,
    "learning_rate_fa": 1e-3,
    "learning_rate_ft": 1e-3,
    "consistency": "relative",
    "fa_loss_weight": 1,
    "seeds": _once,
}

candidates = (
    # what still pictures tell, erased
    {"fa_arch": "eraser", "erase_rank": (32, 64, 96)},
    # a budget of bits spent on telling the actions apart
    {"fa_arch": "quantizer", "bits": (7, 8, 10)},
    {"fa_arch": "eraser+quantizer", "erase_rank": 64, "bits": (8, 10)},
    # a budget spent on whatever varies most once appearance is erased
    {
        "name": "eraser+codes",
        "fa_arch": "eraser+quantizer",
        "code_space": "features",
        "code_dims": 32,
        "erase_rank": (32, 64),
        "bits": (16, 20, 24),
    },
    {"fa_arch": "eraser+noise", "erase_rank": 64, "noise_sd": 0.5},
    # trained
    {
        "name": "encoder+conditional",
        "fa_arch": "encoder",
        "bottleneck": 48,
        "privacy_objective": "conditional",
        "fb_loss_weight": 3,
        **_trained,
    },
    {
        "name": "encoder+critic-w3",
        "fa_arch": "encoder",
        "bottleneck": 48,
        "privacy_objective": "critic",
        "fb_loss_weight": 3,
        **_trained,
    },
    {
        "name": "eraser+encoder+critic-w1",
        "fa_arch": "eraser+encoder",
        "erase_rank": 64,
        "bottleneck": 48,
        "privacy_objective": "critic",
        "fb_loss_weight": 1,
        **_trained,
    },
)
baselines = (
    {"fit": "leace", "seeds": _once},  # these three read the private labels
    {"fit": "orthogonal", "seeds": _once},
    {"fit": "inlp", "seeds": _once},
    {"fit": "pca", "keep": (32, 64), "seeds": _once},
    {"fit": "random", "keep": 64, "seeds": _once},
    {"fit": "noise", "sd": 1.0, "seeds": _once},
    {  # the paper's adapter and objective, on actions alone
        "name": "published",
        "params": "params/params_demo.py",
        "ft_tad_loss_weight": 0,
        "ft_ad_loss_weight": 0,
        "seeds": _once,
    },
)
