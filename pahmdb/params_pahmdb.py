# The privacy-utility trade-off on PA-HMDB51: 515 videos of HMDB51 whose private attributes are known frame by frame.
#   python pahmdb/eval_pahmdb.py --params pahmdb/params_pahmdb.py
# Needs data/pa_hmdb51/PrivacyAttributes/*.json, HMDB51's feature stores and label files, VISPR's for the transfer.

# run
run_id = "pahmdb_videomae"

# data
ft_arch = "videoMAE"
labels = "values"  # 15 columns such as gender=female; 'binary': the 5 attributes; 'vispr': the 6 that VISPR knows too

# models: the operating points of the curve, anonymizers trained with different weights of the privacy term, say
saved_fa_models = ("saved_models/aam_k400_videomae/model_temp.pth",)
serving = "alone"  # as a released feature is; 'batch' only to show what mixing hides

# attackers
attackers = ("logistic", "mlp")  # more are slower: 'mlp_large', 'trees', 'knn'
seeds = (0,)  # of the attackers; results are means, intervals draw seeds and films
folds = 5  # parts of the films; attackers train on all but two, are tuned on one, tested on the other
transfer = True  # also attackers trained on VISPR's images
max_train_rows = 20000  # images' views above this are thinned
num_resamples = 1000  # bootstrap resamples of the films

# the head for action recognition, on the videos without annotations; its last epoch counts
num_epochs = 250
batch_size = 1024
learning_rate = 1e-3
weight_decay = 0.01
num_modes = 5  # evenly spaced clips a test video
seed = 0  # of the head, and of how films are dealt
