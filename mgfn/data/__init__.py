"""Lists, features and ground truth of UCF-Crime, XD-Violence and ShanghaiTech."""
