"""The frozen encoders that can run here. A further one is a loader and a row in `LOADERS`.

`splavu.encoders.ENCODERS` lists more: stores made elsewhere with those can be used, only not made here yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from feature_extraction.encoders.frozen import FrozenEncoder
from feature_extraction.encoders.i3d import load_i3d
from feature_extraction.encoders.i3d_resnet import load_i3d_resnet
from feature_extraction.encoders.videomae import load_demo, load_videomae
from splavu.encoders import EncoderSpec, encoder_spec
from splavu.errors import UserError

LOADERS: Mapping[str, Callable[[EncoderSpec, str | None], FrozenEncoder]] = MappingProxyType(
    {"demo": load_demo, "i3d": load_i3d, "largei3d": load_i3d_resnet, "videoMAE": load_videomae}
)


def load_encoder(name: str, weights: str | None = None) -> FrozenEncoder:
    """The encoder `name`, in evaluation mode on the CPU.

    Args:
        name: A row of `splavu.encoders.ENCODERS`.
        weights: A hub name, a local folder or an official checkpoint; None takes the encoder's own default.

    Raises:
        UserError: No such encoder, none that can run here, or its weights are missing or do not fit.
    """
    spec = encoder_spec(name)
    if name not in LOADERS:
        raise UserError(
            f"encoder '{name}'",
            "features of this encoder can be read but not made here yet",
            f"available: {', '.join(sorted(LOADERS))}",
        )
    return LOADERS[name](spec, weights)


__all__ = ["LOADERS", "FrozenEncoder", "load_encoder"]
