"""Defaults of `python feature_extraction/feature_extraction_action.py`; a flag or --set NAME=VALUE goes before them.

Copy this file and give the copy with --params to keep the settings of a study.
"""

# Encoder
encoder = "demo"  # comes with the package, for trying things out; real features want "videoMAE"
weights = None  # hub name, HuggingFace folder or official checkpoint; None is the encoder's own default

# Clips
fb_frame_pool = 0  # static clips per video for the privacy term; 10 also writes the *_fb10.h5 stores
static_augment = "train"  # random crop and mirror of static clips: "train" split only, "always", "never"
num_views = 20  # augmented views of each VISPR training image
protocol = "released"  # "published": HMDB51 at the crop's size, still images without mean/std, as in the paper
obfuscate = "none"  # Table 1's baselines: "downsample-2x", "downsample-4x", persons by "blur" or "blacken"
person_boxes = None  # CSV file of boxes for blur and blacken; None looks for people with OpenCV's HOG detector
seed = 0  # of the augmentation, together with each video's key

# Speed; moves features by rounding only, except precision
backend = None  # "pyav", "decord", "torchcodec", "dali"; None: PyAV, or decord where it is not installed
batch_size = 32  # clips in one pass through the encoder
num_workers = None  # decoding processes: a number, None for one per core; 0 decodes in two threads of this process
timeout = 60.0  # seconds of silence after which such a process counts as hung; its file is reported and left out
precision = "fp32"  # "bf16" is faster where the hardware has it; recorded in the store
