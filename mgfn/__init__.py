"""MGFN: weakly supervised anomaly detection on precomputed features (Chen et al., AAAI 2023)."""

from mgfn.model import MGFN, build_model, model_from_state

__all__ = ["MGFN", "build_model", "model_from_state"]
