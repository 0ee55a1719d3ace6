"""Builds this study's networks from its params: the functions that users of the reference know, from `study.models`."""

from study.models import (
    JudgedFeatures,
    feature_dim,
    load_adapter,
    load_backbone,
    load_fa,
    load_fb,
    load_ft,
    load_model_mgfn,
    load_model_tridet,
    num_classes,
)

__all__ = [
    "JudgedFeatures",
    "feature_dim",
    "load_adapter",
    "load_backbone",
    "load_fa",
    "load_fb",
    "load_ft",
    "load_model_mgfn",
    "load_model_tridet",
    "num_classes",
]
