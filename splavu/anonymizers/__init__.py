"""Anonymizers: networks `[..., D] -> [..., D]` that a feature passes before it is stored, shared or used.

What attention attends over is the one thing to get right. `[B, D]` means B independent features, `[B, T, D]` means B
sequences of T steps, and a row's output never depends on the rest of its batch. The reference feeds `[B, D]` as ONE
sequence of length B, so that every anonymized feature is a mixture of strangers' clips; that is kept as the mode
`attends_over='batch'` to reproduce its numbers, and it is refused where features are released.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splavu.anonymizers.affine import AffineAnonymizer
    from splavu.anonymizers.apply import FrozenAnonymizer, apply_to_array, array_map, one_by_one
    from splavu.anonymizers.base import SERVING_TILE, Anonymizer, AttendsOver, in_tiles
    from splavu.anonymizers.chain import Chain
    from splavu.anonymizers.encoder import Continuation, EncoderAnonymizer
    from splavu.anonymizers.identity import IdentityAnonymizer
    from splavu.anonymizers.mlp import MLPAnonymizer
    from splavu.anonymizers.noise import GaussianNoise
    from splavu.anonymizers.quantizer import CodeUsage, Quantizer
    from splavu.anonymizers.registry import ANONYMIZERS, build_anonymizer, infer_architecture
    from splavu.anonymizers.transformer import SelfAttentionBlock, TransformerAnonymizer

__all__ = [
    "ANONYMIZERS",
    "SERVING_TILE",
    "AffineAnonymizer",
    "Anonymizer",
    "AttendsOver",
    "Chain",
    "CodeUsage",
    "Continuation",
    "EncoderAnonymizer",
    "FrozenAnonymizer",
    "GaussianNoise",
    "IdentityAnonymizer",
    "MLPAnonymizer",
    "Quantizer",
    "SelfAttentionBlock",
    "TransformerAnonymizer",
    "apply_to_array",
    "array_map",
    "build_anonymizer",
    "in_tiles",
    "infer_architecture",
    "one_by_one",
]

_NAMES = {
    "affine": ("AffineAnonymizer",),
    "apply": (
        "FrozenAnonymizer",
        "apply_to_array",
        "array_map",
        "one_by_one",
    ),
    "base": (
        "SERVING_TILE",
        "Anonymizer",
        "AttendsOver",
        "in_tiles",
    ),
    "chain": ("Chain",),
    "encoder": (
        "Continuation",
        "EncoderAnonymizer",
    ),
    "identity": ("IdentityAnonymizer",),
    "mlp": ("MLPAnonymizer",),
    "noise": ("GaussianNoise",),
    "quantizer": (
        "CodeUsage",
        "Quantizer",
    ),
    "registry": (
        "ANONYMIZERS",
        "build_anonymizer",
        "infer_architecture",
    ),
    "transformer": (
        "SelfAttentionBlock",
        "TransformerAnonymizer",
    ),
}
"""Module -> what it gives this package. Imported when it is asked for: the table of closed forms needs no torch."""


def __getattr__(name: str) -> object:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(importlib.import_module(f"splavu.anonymizers.{module}"), name)
    raise AttributeError(f"module 'splavu.anonymizers' has no attribute '{name}'")
