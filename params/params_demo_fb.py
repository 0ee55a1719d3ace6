# The demo's privacy evaluation, on the synthetic world's released features:
#   python privacy_eval.py --params params/params_demo_fb.py

run_id = "demo/privacy"
protocol = "release"

dataset = "hmdb51"
ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
views = ("temporal", "static")
num_pa = 7

anon = True
saved_fa_model = "saved_models/demo/robust/model_temp.pth"  # the published one: demo/aam
serving = "alone"

attackers = ("logistic", "mlp", "mlp_large", "trees", "knn")
seeds = (0, 1)
num_resamples = 1000
