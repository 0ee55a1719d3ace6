"""The frozen encoders: a loader for each row of `splavu.data.encoders.ENCODERS`.

A further one is a row there and one here.

Two encoders of one width are easily confused, and so are two vectors of one encoder. What is stored is

    demo, videoMAE, -large, -huge   fc_norm of the mean over all tokens, as the classifier gets it
    maev2, internvid                the same; from pre-training alone, the mean over all tokens after the final norm
    vjepa, vjepa-large, vjepa2      the mean over all tokens after the final norm
    hf                              the mean of last_hidden_state over all tokens, a class token among them if any
    i3d, largei3d                   the global mean of the last map, not normalised
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from splavu.data.encoders import EncoderSpec, encoder_spec
from splavu.extraction.encoders.frozen import FrozenEncoder
from splavu.extraction.encoders.hub import load_any, load_vjepa2
from splavu.extraction.encoders.i3d import load_i3d
from splavu.extraction.encoders.i3d_resnet import load_i3d_resnet
from splavu.extraction.encoders.videomae import load_demo, load_videomae
from splavu.extraction.encoders.videomae_v2 import load_official
from splavu.extraction.encoders.vjepa import load_vjepa

LOADERS: Mapping[str, Callable[[EncoderSpec, str | None], FrozenEncoder]] = MappingProxyType(
    {
        "demo": load_demo,
        "hf": load_any,
        "i3d": load_i3d,
        "internvid": load_official,
        "largei3d": load_i3d_resnet,
        "maev2": load_official,
        "videoMAE": load_videomae,
        "videoMAE-huge": load_videomae,
        "videoMAE-large": load_videomae,
        "vjepa": load_vjepa,
        "vjepa-large": load_vjepa,
        "vjepa2": load_vjepa2,
    }
)


def load_encoder(name: str, weights: str | None = None) -> FrozenEncoder:
    """The encoder `name`, in evaluation mode on the CPU.

    Args:
        name: A row of `splavu.data.encoders.ENCODERS`.
        weights: A hub name, a local folder or an official checkpoint; None takes the encoder's own default.

    Raises:
        UserError: No such encoder, or its weights are missing or do not fit.
    """
    spec = encoder_spec(name)
    return LOADERS[name](spec, weights)


__all__ = ["LOADERS", "FrozenEncoder", "load_encoder"]
