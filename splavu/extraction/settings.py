"""Parameters that every extraction has, options of its command line too."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Annotated, Literal

from splavu.data.encoders import ENCODERS
from splavu.extraction.decoding import TIMEOUT
from splavu.extraction.obfuscation import OBFUSCATIONS
from splavu.extraction.videos import BACKENDS
from splavu.runtime.options import option
from splavu.runtime.schema import Count, FewOrNone, OneOf, Positive, Schema


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
