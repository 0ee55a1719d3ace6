"""What the two convolutional encoders share: clips with the channels first, and files that lack batch norms' counters.

Their networks take `[B, 3, T, H, W]`, while clips come as `[B, T, 3, H, W]`. Their weight files are on no hub, date
from before a batch norm counted its batches, and come in many wrappings (spec: i3d, 5 and appendix).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from splavu.data.encoders import EncoderSpec
from splavu.errors import UserError
from splavu.extraction.encoders import official
from splavu.extraction.encoders.frozen import FrozenEncoder

_ENTRIES = ("state_dict", "ft_model_state_dict")
_COUNTER = ".num_batches_tracked"


class ConvolutionalEncoder(FrozenEncoder):
    """A network whose forward pass gives the features of clips with the channels first.

    Args:
        network: `[B, 3, T, H, W] -> [B, D]`; what else it offers (maps, class scores) stays reachable as `network`.
        spec: The row of the table it stands for.
    """

    def __init__(self, network: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        # With the channels innermost, Inception I3D takes a fifth less time on a CPU, for the same features.
        self.network = network.to(memory_format=torch.channels_last_3d)
        self.spec = spec
        self.freeze()

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, D]
        return self.network(clips.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d))


def read_weights(spec: EncoderSpec, weights: str | None, *, origin: str) -> dict[str, Tensor]:
    """The weights in a file, without the prefixes of wrappers and without the counters of batch norms.

    A file is the weights themselves, or holds them as `state_dict` or `ft_model_state_dict`.

    Args:
        weights: The file.
        origin: What to get where, if no file is given: these encoders have no default.

    Raises:
        UserError: No file is given, it isn't there, can't be read, or would run code.
    """
    if weights is None:
        raise UserError(f"encoder '{spec.name}'", "has no default weights", f"get {origin}, then --weights FILE")
    state = official.named_weights(official.read(Path(weights)), entries=_ENTRIES)
    return {name: weight for name, weight in state.items() if not name.endswith(_COUNTER)}


def load(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give `network`, which may be on the meta device, weights that fit in every name and shape.

    The counters of its batch norms are set to zero: nothing reads them, and so the same weights have the same hash.

    Raises:
        UserError: Names or shapes do not match one to one.
    """
    counters = {name: torch.zeros(()) for name in network.state_dict() if name.endswith(_COUNTER)}
    official.load(network, {**state, **counters}, source=source)
