"""Loads the frozen encoders: each row of `splavu.data.encoders.ENCODERS` names its loader.

A loader takes `(spec, weights)` and returns a `FrozenEncoder`. Which vector of the network is the feature:

    demo, videoMAE, -large, -huge   fc_norm of the mean over all tokens, as the classifier gets it
    maev2, internvid                the same; from pre-training alone, the mean over all tokens after the final norm
    vjepa, vjepa-large, vjepa2      the mean over all tokens after the final norm
    hf                              the mean of last_hidden_state over all tokens, a class token among them if any
    i3d, largei3d                   the global mean of the last map, not normalised
"""

from __future__ import annotations

import pkgutil

from splavu.data.encoders import encoder_spec
from splavu.errors import UserError
from splavu.extraction.encoders.frozen import FrozenEncoder

__all__ = ["FrozenEncoder", "load_encoder"]


def load_encoder(name: str, weights: str | None = None) -> FrozenEncoder:
    """The encoder `name`, in evaluation mode on the CPU.

    Args:
        name: A row of `splavu.data.encoders.ENCODERS`.
        weights: A hub name, a local folder or an official checkpoint; None takes the encoder's own default.

    Raises:
        UserError: No such encoder, or its weights are missing or do not fit.
    """
    spec = encoder_spec(name)
    try:
        load = pkgutil.resolve_name(spec.loader)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"encoder '{name}'", f"its loader {spec.loader} can't be imported ({error})", "install what it needs"
        ) from error
    return load(spec, weights)
