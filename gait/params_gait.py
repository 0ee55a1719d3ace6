# Recognising people by VideoMAE features of their walk, Casia-B:
#   python gait/evaluate_gait.py --params gait/params_gait.py
# Raw features only: --set anon=False

run_id = "gait_videomae"

ft_arch = "videoMAE"
splits = ("train", "test")  # nothing is trained; ("test",) is the usual half of the subjects, 075 to 124

anon = True
saved_fa_model = "saved_models/aam_k400_videomae/model_temp.pth"

num_resamples = 1000  # draws of subjects
