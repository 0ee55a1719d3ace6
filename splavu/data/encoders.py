"""The frozen encoders, a row each: name in params, tag in file names, feature width, input, and loader.

A table, no networks: those are in `splavu/extraction/encoders`. To add an encoder, write its loader and its row here;
another installed package adds a row by an entry point of the group `splavu.encoders` (`splavu.runtime.registry`).

Note: an encoder has two names. `ft_arch` in a params file says `videoMAE`, the stores of that encoder are called
`features_*_mae.h5`. A row has both.
"""

from __future__ import annotations

from dataclasses import dataclass

from splavu.errors import UserError, nearest
from splavu.runtime.registry import Registry

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
    loader: str
    """'module:function' of (spec, weights) -> FrozenEncoder, imported when the encoder is loaded."""
    num_frames: int = 16
    """Consecutive frames in one clip."""
    preprocessing: Preprocessing = Preprocessing()


_LOADERS = "splavu.extraction.encoders"

ENCODERS = Registry(
    {
        spec.name: spec
        for spec in (
            EncoderSpec("videoMAE", "mae", 768, f"{_LOADERS}.videomae:load_videomae"),
            EncoderSpec("videoMAE-large", "maelarge", 1024, f"{_LOADERS}.videomae:load_videomae"),
            EncoderSpec("videoMAE-huge", "maehuge", 1280, f"{_LOADERS}.videomae:load_videomae"),
            # The I3Ds get inputs in the range of their official training, -1..1 and 0..1. A feature is the global mean
            # of the last map, not normalised.
            EncoderSpec(
                "i3d",
                "i3d",
                1024,
                f"{_LOADERS}.i3d:load_i3d",
                preprocessing=Preprocessing(mean=HALVES, std=HALVES),
            ),
            EncoderSpec(
                "largei3d",
                "largei3d",
                2048,
                f"{_LOADERS}.i3d_resnet:load_i3d_resnet",
                preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            ),
            EncoderSpec("vjepa", "vjepa", 1280, f"{_LOADERS}.vjepa:load_vjepa"),
            EncoderSpec("vjepa-large", "vjepalarge", 1024, f"{_LOADERS}.vjepa:load_vjepa"),
            # L, H and g are 1024, 1280 and 1408 wide. Trained on 64 frames of 256 pixels; it gets 16, like the others.
            EncoderSpec(
                "vjepa2",
                "vjepa2",
                None,
                f"{_LOADERS}.hub:load_vjepa2",
                preprocessing=Preprocessing(short_side=292, crop=256),
            ),
            EncoderSpec("maev2", "maev2", 1408, f"{_LOADERS}.videomae_v2:load_official"),
            # Its transformer is 1024 wide and its projection to the text space 768; stores of either kind exist. Made
            # here from InternVideo's VideoMAE files: B is 768 wide, L 1024, H 1280.
            EncoderSpec("internvid", "internvid", None, f"{_LOADERS}.videomae_v2:load_official"),
            # Any video model of the transformers library: everything is read from its configuration.
            EncoderSpec("hf", "hf", None, f"{_LOADERS}.hub:load_any"),
            EncoderSpec(
                "demo",
                "demo",
                192,
                f"{_LOADERS}.videomae:load_demo",
                preprocessing=Preprocessing(short_side=80, crop=80),
            ),
        )
    },
    group="splavu.encoders",
    kind=EncoderSpec,
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
