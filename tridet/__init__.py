"""TriDet: temporal action detection on precomputed features (Shi et al., CVPR 2023)."""
