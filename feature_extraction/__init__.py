"""From videos and images to feature stores: decode, cut into clips, encode with a frozen network."""
