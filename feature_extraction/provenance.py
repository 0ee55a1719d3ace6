"""Where features come from, as a store keeps it, so that nobody takes them for others of the same shape."""

from __future__ import annotations

import json
from collections.abc import Mapping

from feature_extraction.encoders import FrozenEncoder
from feature_extraction.obfuscation import Obfuscation
from feature_extraction.preprocessing import describe
from splavu import __version__
from splavu.encoders import Preprocessing


def provenance(
    encoder: FrozenEncoder,
    *,
    preprocessing: Preprocessing,
    decoder: str,
    precision: str,
    clip_rule: Mapping[str, str | int | bool],
    hide: Obfuscation | None = None,
) -> dict[str, str | int | float]:
    """Attributes of a store or folder: two runs that differ in one of them don't belong together.

    `obfuscation` is there only where something was hidden, so that a store of raw frames is what it always was.
    """
    attributes: dict[str, str | int | float] = {
        "encoder": encoder.spec.name,
        "weights_sha256": encoder.weights_hash,
        "preprocessing": describe(preprocessing),
        "decoder": decoder,
        "precision": precision,
        "splavu_version": __version__,
        "clip_rule": json.dumps(dict(clip_rule)),
    }
    return attributes | ({"obfuscation": hide.description} if hide is not None else {})
