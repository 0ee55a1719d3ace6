"""Where features come from, as recorded in a store: features of other encoders may have the same shape."""

from __future__ import annotations

import json
from collections.abc import Mapping

from splavu._version import __version__
from splavu.data.encoders import Preprocessing
from splavu.extraction.encoders import FrozenEncoder
from splavu.extraction.obfuscation import Obfuscation
from splavu.extraction.preprocessing import describe

ARITHMETIC = 2
"""Raised when features move by rounding, though nothing they stand for does: a store begun before is not gone on with.

2: transformers on a CPU have kernels of their own (`encoders/cpu_transformer.py`). float32 features of stores without
this attribute differ by some 1e-6, those of bf16 by some 1e-2.
"""

DECODING = 2
"""Raised when the same decoder gives other frames of the same file: other colours, another side up, another stream.

2: as the `ffmpeg` command shows a file (`videos/streams.py`). Stores without this attribute were made with every video
taken for BT.601 and left as it was stored: docs/decoding.md says which differ, and by how much.
"""


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

    `obfuscation` is there only where something was hidden, so that a store of raw frames is what it always was, and
    `weights_hub` with `weights_revision` only where a hub gave them.
    """
    attributes: dict[str, str | int | float] = {
        "encoder": encoder.spec.name,
        "weights_sha256": encoder.weights_hash,
        "preprocessing": describe(preprocessing),
        "decoder": decoder,
        "decoding": DECODING,
        "precision": precision,
        "splavu_version": __version__,
        "arithmetic": ARITHMETIC,
        "clip_rule": json.dumps(dict(clip_rule)),
    }
    attributes |= encoder.origin
    return attributes | ({"obfuscation": hide.description} if hide is not None else {})
