# Videos with an action and five private attributes (skin colour, face, gender, nudity, relationship). In turn:
#   python vp/train_vp_ft.py --set anon=False         the actions, from raw features
#   python vp/train_vp_fb.py --set anon=False         the attributes, from raw features
#   python vp/train_vp_fa.py                          an anonymizer; --set ssl=True for the self-supervised one
#   python vp/train_vp_ft.py ; python vp/train_vp_fb.py      the same from anonymized features
# Needs features_vp_hmdb_{train,test}_mae.h5, vp/vphmdb51_labels_num.csv and, for the actions,
# hmdb51/hmdb51_{train,test}_labels.csv (VP-UCF101: ucf101/action_classes.json). ssl=True also reads
# features_vp_hmdb_train_mae_fb10.h5.

# run
run_id = "vp_hmdb"
seed = 0

# data
dataset = "vp_hmdb"  # or "vp_ucf"
ft_arch = "videoMAE"
val_split = None  # with a split of your own, heads choose their epoch by it

# model
fa_arch = "transformer"
num_layers_fa = 3
num_heads = 8
ssl = False
anon = True
serving = "alone"

# optimisation
num_epochs = 100  # of the anonymizer
num_epochs_ft = 250
num_epochs_fb = 100
batch_size = 512
learning_rate_fa = 1e-4
learning_rate_ft = 1e-3
learning_rate_fb = 1e-3
val_freq = 10

# losses
fa_loss_weight = 100  # latent consistency
ft_ar_loss_weight = 1
fb_loss_weight = 1
