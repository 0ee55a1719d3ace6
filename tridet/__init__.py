"""TriDet: temporal action detection on precomputed features (Shi et al., CVPR 2023)."""

from tridet.average_precision import mean_average_precision
from tridet.detector import TriDet, build_model
from tridet.nms import soft_nms

__all__ = ["TriDet", "build_model", "mean_average_precision", "soft_nms"]
