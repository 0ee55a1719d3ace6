# The same on features of the synthetic world, seconds (bash run_protocols.sh gait makes them and runs it):
#   python gait/evaluate_gait.py --params gait/params_demo_gait.py

run_id = "protocols/gait"

ft_arch = "demo"
data_root = "data/demo"  # the synthetic world, apart from real data in data/
splits = ("train", "test")

anon = True
saved_fa_model = "saved_models/protocols/aam/model_temp.pth"

num_resamples = 1000
