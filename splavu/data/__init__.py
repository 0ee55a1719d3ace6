"""What training and evaluation read: encoders, labels, splits, clips of feature stores, batches."""
