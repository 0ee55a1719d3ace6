"""TriDet: temporal action detection on precomputed features (Shi et al., CVPR 2023)."""

from tridet.detector import TriDet, build_model

__all__ = ["TriDet", "build_model"]
