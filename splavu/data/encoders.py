"""Which frozen encoders exist: their name in params, their tag in file names, their width, and what they are fed.

A table, no networks: those live in `splavu/extraction/encoders`. A reader would confuse the two names: `ft_arch` in a
params file says `videoMAE`, while the stores of that encoder are called `features_*_mae.h5`. Both are one row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from splavu.errors import UserError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)
"""As mean and as standard deviation: 0..1 becomes -1..1."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a frame at evaluation: resize the short side, cut the centre, scale to 0..1, normalise."""

    short_side: int = 256
    """Pixels of the shorter side after resizing; the aspect ratio is kept."""
    crop: int = 224
    """Side of the square cut from the centre, in pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted per RGB channel, after scaling to 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Divided by, per RGB channel."""

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.short_side:
            raise ValueError(f"a crop of {self.crop} pixels does not fit a short side of {self.short_side}")


@dataclass(frozen=True)
class EncoderSpec:
    """One frozen encoder."""

    name: str
    """As `ft_arch` in a params file."""
    file_tag: str
    """As in the names of feature stores: `features_hmdb_train_{file_tag}.h5`."""
    feature_dim: int | None
    """Width D of a clip feature; None where it depends on the weights and is read from the store."""
    num_frames: int = 16
    """Consecutive frames in one clip."""
    preprocessing: Preprocessing = Preprocessing()


ENCODERS: Mapping[str, EncoderSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            EncoderSpec("videoMAE", file_tag="mae", feature_dim=768),
            EncoderSpec("videoMAE-large", file_tag="maelarge", feature_dim=1024),
            EncoderSpec("videoMAE-huge", file_tag="maehuge", feature_dim=1280),
            # Fed as their official weights were trained, with -1..1 and with 0..1. A feature is the global mean of the
            # last map, not normalised.
            EncoderSpec("i3d", file_tag="i3d", feature_dim=1024, preprocessing=Preprocessing(mean=HALVES, std=HALVES)),
            EncoderSpec(
                "largei3d",
                file_tag="largei3d",
                feature_dim=2048,
                preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            ),
            EncoderSpec("vjepa", file_tag="vjepa", feature_dim=1280),
            EncoderSpec("vjepa-large", file_tag="vjepalarge", feature_dim=1024),
            # L, H and g are 1024, 1280 and 1408 wide; trained on 64 frames of 256 pixels, and fed 16 like the others.
            EncoderSpec(
                "vjepa2", file_tag="vjepa2", feature_dim=None, preprocessing=Preprocessing(short_side=292, crop=256)
            ),
            EncoderSpec("maev2", file_tag="maev2", feature_dim=1408),
            # Its transformer is 1024 wide and its projection to the text space 768; stores of either kind exist. Made
            # here from InternVideo's VideoMAE files: B is 768 wide, L 1024, H 1280.
            EncoderSpec("internvid", file_tag="internvid", feature_dim=None),
            # Any video model of the transformers library: everything is read from its configuration.
            EncoderSpec("hf", file_tag="hf", feature_dim=None),
            EncoderSpec("demo", file_tag="demo", feature_dim=192, preprocessing=Preprocessing(short_side=80, crop=80)),
        )
    }
)


def encoder_spec(name: str) -> EncoderSpec:
    """The row of `ENCODERS` called `name`.

    Raises:
        UserError: No encoder has this name; the message offers the nearest one.
    """
    if name not in ENCODERS:
        meant = next((known for known in ENCODERS if known.casefold() == name.casefold()), name)
        raise UserError(f"encoder '{name}'", "no such encoder", nearest(meant, ENCODERS))
    return ENCODERS[name]
