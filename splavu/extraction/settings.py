"""Parameters that every extraction has, options of its command line too. Imports no torch: --help needs them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Annotated, Literal

from splavu.data.encoders import ENCODERS
from splavu.extraction.videos import BACKENDS
from splavu.runtime.options import option
from splavu.runtime.schema import Count, FewOrNone, OneOf, Positive, Schema

TIMEOUT = 60.0
"""Seconds that a decoding process may be silent over one file."""
DOWNSAMPLING = {"downsample-2x": 2, "downsample-4x": 4}
PERSONS = ("blur", "blacken")
OBFUSCATIONS = ("none", *DOWNSAMPLING, *PERSONS)
"""What may be hidden in the frames (`splavu.extraction.obfuscation`)."""


@dataclass(frozen=True)
class ExtractionSettings(Schema):
    """Which encoder reads which frames, and how fast."""

    encoder: str = option(MISSING, f"one of {', '.join(ENCODERS)}", metavar="NAME")
    weights: str | None = option(None, "of the encoder, in place of its own", metavar="HUB_OR_PATH")
    obfuscate: Annotated[str, OneOf(OBFUSCATIONS)] = option("none", "hide in the frames, before anything else")
    person_boxes: str | None = option(None, "where people are, for blur and blacken", metavar="FILE.csv")
    backend: Annotated[str, OneOf(BACKENDS)] | None = option(None, "video reader (default: pyav)")
    batch_size: Count = option(32, "clips that the encoder takes at once")
    num_workers: FewOrNone | None = option(
        None, "decoding processes; 0: threads of this process", flag="--workers", metavar="N"
    )
    timeout: Positive = option(TIMEOUT, "silence after which a decoder counts as hung", metavar="SECONDS")
    precision: Literal["fp32", "bf16"] = option("fp32", "of the encoder's matrix products")
