"""What the two convolutional encoders share: clips with the channels first, and weight files that load without a gap.

Their networks take `[B, 3, T, H, W]`, while clips come as `[B, T, 3, H, W]`. And their files have no hub and many
wrappings, so that a loader is tempted to try this and that until something loads; here a file fits, or it is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from feature_extraction.encoders.frozen import FrozenEncoder
from splavu import checkpoints
from splavu.encoders import EncoderSpec
from splavu.errors import UserError

logger = logging.getLogger(__name__)

NUM_SHOWN = 8
"""Names of each kind in an error line; their number is always told."""

_ENTRIES = ("state_dict", "ft_model_state_dict")
_COUNTER = "num_batches_tracked"  # of a batch norm: nothing reads it, and files of PyTorch 0.3 lack it


class ConvolutionalEncoder(FrozenEncoder):
    """A network whose forward pass gives the features of clips with the channels first.

    Args:
        network: `[B, 3, T, H, W] -> [B, D]`; what else it offers (maps, logits) stays reachable as `network`.
        spec: The row of the table it stands for.
    """

    def __init__(self, network: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        self.network, self.spec = network, spec
        self.freeze()

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, D]
        return self.network(clips.transpose(1, 2))


def weight_file(spec: EncoderSpec, weights: str | None, *, official: str) -> Path:
    """The file that `weights` names.

    Args:
        official: The file to get, with its origin.

    Raises:
        UserError: None is given; there is no default, since these weights are on no hub.
    """
    if weights is None:
        raise UserError(f"encoder '{spec.name}'", "has no default weights", f"get {official}, then --weights FILE")
    return Path(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file, without the prefixes of wrappers and without the counters of batch norms.

    A file is the weights themselves, or holds them as `state_dict` or `ft_model_state_dict`.

    Raises:
        UserError: It is no such file, can't be read, or would run code.
    """
    content = checkpoints.read(path)
    entry = next((name for name in _ENTRIES if name in content), _ENTRIES[0])
    if not isinstance(content.get(entry, {}), Mapping):
        raise UserError(path, f"its '{entry}' is no dictionary of weights", "use an official checkpoint")
    state = checkpoints.state_of(content, entry, path)
    return {name: weight for name, weight in state.items() if name.rpartition(".")[2] != _COUNTER}


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that fit in every name and shape; counters of batch norms stay as they are.

    Raises:
        UserError: Names are missing or unknown, or shapes differ; one line for all of them.
    """
    own = {name: weight for name, weight in network.state_dict().items() if name.rpartition(".")[2] != _COUNTER}
    shared = own.keys() & state.keys()
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in shared and state[name].shape != own[name].shape
    ]
    kinds = {
        "missing": [name for name in own if name not in shared],
        "unknown": [name for name in state if name not in shared],
        "of another shape": reshaped,
    }
    if any(kinds.values()):
        raise UserError(
            path,
            f"these are no weights of {type(network).__name__}: "
            + ", ".join(f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names),
            "use an official checkpoint of this network",
        )
    network.load_state_dict(state, strict=False)  # all but the counters, as was just checked


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(names[:NUM_SHOWN]) + more
