"""Attack campaigns: attackers trained on rows of features, by the paper's protocol and by the release protocol."""
