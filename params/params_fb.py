# How much do anonymized features still give away?
#   python privacy_eval.py --params params/params_fb.py
# The paper's protocol: --set protocol=paper --set "seeds=(0,)" --set run_id=privacy_vispr_paper

# run
run_id = "privacy_vispr_release"
protocol = "release"  # 'paper': the paper's head, anonymized in batches, best test epoch

# data
dataset = "vispr"  # or a data set whose folder holds private_labels.csv
ft_arch = "videoMAE"
views = ("static",)  # a video data set also has 'temporal': the clips that are released
num_pa = 7  # private attributes
val_share = 0.2  # of the training images, for choosing among attackers (VISPR has no validation split here)

# model
anon = True
saved_fa_model = "saved_models/aam_k400_videomae/model_temp.pth"  # None: raw features only
serving = "alone"

# attackers, protocol 'release'
attackers = ("logistic", "mlp", "mlp_large", "trees", "knn")
seeds = (0, 1, 2)  # results are means, intervals draw seeds and people
num_resamples = 1000  # bootstrap resamples of the test people
max_train_rows = 20000  # more rows are thinned: slower attackers gain little beyond

# the head of protocol 'paper'
num_epochs = 100
batch_size = 1024
learning_rate_fb = 1e-3
