# The trade-off on the synthetic world, whose annotations have PA-HMDB51's format; run_protocols.sh makes what it needs:
#   OMP_NUM_THREADS=1 python pahmdb/eval_pahmdb.py --params pahmdb/params_demo_pahmdb.py
# A minute; with more threads than idle cores several times that, since attackers of small features wait for each other.

run_id = "protocols/pahmdb"

ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
labels = "values"

saved_fa_models = ("saved_models/protocols/aam/model_temp.pth",)
serving = "alone"

attackers = ("logistic", "mlp")
seeds = (0,)
folds = 5
num_resamples = 1000

num_epochs = 100
batch_size = 128
learning_rate = 1e-2
