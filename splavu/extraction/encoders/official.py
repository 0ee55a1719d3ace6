"""Official checkpoint files: read without running their code, freed of wrappers, loaded with every mismatch reported.

The official loaders print what they could not match and go on with random weights in its place (spec: videomae, 7).
Here one name that is missing, unknown or of another shape is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from splavu.errors import UserError
from splavu.runtime.plain_values import load_checkpoint

_WRAPPERS = ("_orig_mod.", "module.", "backbone.")  # torch.compile, DistributedDataParallel, repackaging


def read(path: str | Path) -> Mapping[str, object]:
    """The dictionary in an official file; its tensors stay on disk until they are used, where the format allows.

    Raises:
        UserError: No such file, it is damaged, carries code, or holds no dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such checkpoint", "correct --weights, or download it")
    try:
        content = load_checkpoint(path, mmap=True)
    except ValueError as error:
        raise UserError(path, f"not a checkpoint of plain tensors ({error})", "download it again") from error
    if not isinstance(content, Mapping):
        raise UserError(path, "no dictionary of weights", "use an official checkpoint")
    return content


def named_weights(checkpoint: Mapping[str, object], *, entries: Sequence[str]) -> dict[str, Tensor]:
    """The tensors below the first of `entries` that is there, else at the top, without the prefixes of wrappers."""
    for entry in entries:
        if isinstance(inner := checkpoint.get(entry), Mapping):
            checkpoint = inner
            break
    state = {}
    for name, weight in checkpoint.items():
        while prefix := next((prefix for prefix in _WRAPPERS if name.startswith(prefix)), None):
            name = name.removeprefix(prefix)
        name = name.replace("._orig_mod.", ".")
        if isinstance(weight, Tensor):
            state[name] = weight
    return state


def load(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give `network`, which may be on the meta device, float32 copies of `state`.

    Raises:
        UserError: Names or shapes do not match one to one; the message has their number and the first of each kind.
    """
    own = network.state_dict()
    complaints = [
        _complaint("missing", own.keys() - state.keys()),
        _complaint("unknown", state.keys() - own.keys()),
        _complaint(
            "of another shape", (name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
        ),
    ]
    if any(complaints):
        raise UserError(source, ", ".join(filter(None, complaints)), "use an official checkpoint of this encoder")
    network.load_state_dict({name: state[name].to(torch.float32, copy=True) for name in own}, assign=True)


def _complaint(kind: str, names: Iterable[str]) -> str:
    names = sorted(names)
    if not names:
        return ""
    shown = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} weights {kind} ({shown})"
