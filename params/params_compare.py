# Which anonymizer? Ours, its rivals and the published adapter, made on one world, audited alike, put to the same tasks:
#   python -m splavu compare --params params/params_compare.py --jobs 2   # killed, the same command goes on
#   python -m splavu compare --dry-run                                    # what it takes, and the table so far
# A full audit takes minutes, each of some twenty here: for a first look --quick.

run_id = "compare"

# data, and what candidates start from; the demo's world (bash run_demo.sh --full makes it)
base = "params/params_robust.py"
head_params = "params/params_demo_ft.py"
tad_config = "tridet/thumos_demo.yaml"
ad_preset = "@mgfn/demo.txt"
tasks = ("ar", "tad", "ad")  # one whose data isn't there is left out, and said to be

seeds = (0, 1, 2)  # of everything: trainings, heads, detectors, dealing and attackers of audits
audit_seeds = 1  # of attackers that draw, in each audit
# the seven of 0 and 1, and one number of the body; None: all columns, in about three times the time
audit_attributes = (
    "skin_color",
    "gender",
    "complete_face",
    "partial_face",
    "semi_nudity",
    "personal_relationship",
    "social_relationship",
    "stature",
)
_once = (0,)  # for rivals, to keep it affordable; without an interval over seeds then

# learning that comes on top of a closed form
_trained = {
    "num_layers_fa": 1,
    "bottleneck": 48,
    "consistency": "relative",
    "fa_loss_weight": 1,
    "fb_loss_weight": 3,
    "num_epochs": 40,
    "val_freq": 10,
    "batch_size_ar": 128,
    "learning_rate_fa": 1e-3,
    "learning_rate_ft": 1e-3,
    "seeds": _once,
}

candidates = (
    # what we recommend, as it stands
    {"name": "recommended", "params": "params/params_robust.py"},
    # the paper's adapter, with action recognition alone
    {
        "name": "published",
        "params": "params/params_demo.py",
        "ft_tad_loss_weight": 0,
        "ft_ad_loss_weight": 0,
        "num_epochs": 100,
        "seeds": _once,
    },
    # its parts: the codes without erasing; erasing alone, with and without action labels
    {"name": "codes-20", "fa_arch": "quantizer", "seeds": _once},
    {"name": "eraser", "fa_arch": "eraser", "erase_rank": 64, "seeds": _once},
    {"name": "eraser-unlabelled", "fit": "eraser", "rank": 64, "labels": None, "seeds": _once},
    # a budget for the actions alone, and behind erasing
    {"name": "quantizer-8", "fa_arch": "quantizer", "bits": 8, "code_space": "actions", "code_dims": None},
    {
        "name": "eraser+quantizer-8",
        "fa_arch": "eraser+quantizer",
        "erase_rank": 64,
        "bits": 8,
        "code_space": "actions",
        "code_dims": None,
        "seeds": _once,
    },
    # closed forms that are given the private labels of the training people, which ours are not
    {"fit": "leace", "seeds": _once},
    {"fit": "orthogonal", "seeds": _once},
    {"fit": "inlp", "seeds": _once},
    # trained encoders: behind an eraser, by critics, by cosine, before a budget
    {
        "name": "eraser+encoder-critic",
        "fa_arch": "eraser+encoder",
        "erase_rank": 64,
        "privacy_objective": "critic",
        **_trained,
    },
    {"name": "encoder-critic", "fa_arch": "encoder", "privacy_objective": "critic", **_trained},
    {"name": "encoder-conditional", "fa_arch": "encoder", "privacy_objective": "conditional", **_trained},
    {
        "name": "encoder+quantizer-critic",
        "fa_arch": "encoder+quantizer",
        "bits": 20,
        "privacy_objective": "critic",
        **_trained,
    },
    # fewer directions, whatever they tell; noise
    {"fit": "pca", "keep": 64, "seeds": _once},
    {"fit": "random", "keep": 64, "seeds": _once},
    {"fit": "noise", "sd": 1, "seeds": _once},
)
