"""Checkpoints: the only place where one is written or read.

A checkpoint is a dictionary with the published keys (`fa_model_state_dict`, `ft_model_ar_state_dict`, `optimizer_fa`,
`epoch`, ...) and, when it is ours, `format_version`, `fa_architecture`, `params` and `versions`. It loads with
`weights_only=True`, so a file that carries code is refused. Checkpoints of the reference lack the second group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splavu.errors import UserError, writing
from splavu.runtime.files import PathLike, replacing
from splavu.runtime.plain_values import load_checkpoint

FORMAT_VERSION = 1
MARKS = (b"format_version",)
"""Every checkpoint that this program has written begins with this key (`splavu.runtime.files.check_target`)."""
RESUMABLE = "model_temp.pth"
"""Name of the checkpoint from which a run resumes."""

_WRAPPERS = ("module.", "_orig_mod.")  # prefixes that DistributedDataParallel and torch.compile leave in names


def write(path: PathLike, content: Mapping[str, Any], *, inputs: Iterable[PathLike] = ()) -> Path:
    """Write a checkpoint, complete or not at all.

    Args:
        path: The checkpoint.
        content: Tensors and plain values.
        inputs: Files that the running command reads; none of them is replaced.

    Raises:
        UserError: The target is refused (`splavu.runtime.files`) or can't be written (disk full, read-only); what was
            there before stays.
    """
    with writing(path), replacing(path, inputs=inputs) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save({"format_version": FORMAT_VERSION, **content}, file)
        except RuntimeError as error:  # torch turns some failed writes into this
            raise OSError(str(error).splitlines()[0]) from error
    return Path(path)


def read(path: str | Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The dictionary that a checkpoint holds, its tensors on `device`.

    Raises:
        UserError: There is no such file, it is truncated, it carries code, it is newer than this package, or it is no
            dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such checkpoint", "train it first, or correct the path")
    try:
        content = load_checkpoint(path, device=device)
    except ValueError as error:
        remedy = "copy it again, or save weights and plain values alone"
        raise UserError(path, f"can't be read as a checkpoint ({error})", remedy) from error
    if not isinstance(content, dict):
        raise UserError(path, f"holds a {type(content).__name__}, expected a dictionary", "use a checkpoint")
    version = content.get("format_version", 0)
    if not isinstance(version, int):
        raise UserError(path, f"has format {version!r}, expected a number", "use a checkpoint of this program")
    if version > FORMAT_VERSION:
        raise UserError(path, f"has format {version}, newer than this package's", "update splavu")
    return content


@contextmanager
def understood(path: object) -> Iterator[None]:
    """Turns what goes wrong with the content of the checkpoint `path`, which anyone may have written, into a UserError.

    It names the kind of error: to a developer, one that is the program's own looks the same.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0][:200]
        raise UserError(path, f"holds what this program doesn't write ({said})", "use another checkpoint") from error


def state_of(
    content: Mapping[str, Any], key: str, path: str | Path, *, prefer_average: bool = False
) -> dict[str, Tensor]:
    """The weights under `key`, or the whole content if it is bare weights; wrappers' prefixes are removed.

    Args:
        prefer_average: Take their moving average, if there is one: it is what was validated.
    """
    state = content.get(f"{key}_ema") if prefer_average else None
    if state is None:
        state = content.get(key)
    if state is None:
        if not content or not all(isinstance(value, Tensor) for value in content.values()):
            raise UserError(path, f"has no '{key}'", f"it holds {', '.join(map(str, content)) or 'nothing'}")
        state = content
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(path, f"'{key}' holds no weights", "use a checkpoint of weights")
    names = {str(name): unwrapped(str(name)) for name in state}
    if len(set(names.values())) < len(names):
        raise UserError(path, f"'{key}' holds a weight twice, also under a wrapper's name", "save it again")
    return {names[str(name)]: value for name, value in state.items()}


def unwrapped(name: str) -> str:
    """A parameter's name without what DistributedDataParallel puts before it, and torch.compile before it or within."""
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name.replace("._orig_mod.", ".")


def load_into(network: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load weights strictly.

    Raises:
        UserError: As `check_fits`.
    """
    check_fits(network, state, path)
    with understood(path):
        network.load_state_dict(state)


def check_fits(network: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Whether weights are those of a network, which may be on the meta device.

    Raises:
        UserError: A parameter is missing, surplus, or of another shape; the first one is named.
    """
    own = network.state_dict()
    for name, value in own.items():
        if name not in state:
            raise UserError(path, f"'{name}' is missing", "set the architecture in params as it was trained")
        if state[name].shape != value.shape:
            found, expected = tuple(state[name].shape), tuple(value.shape)
            raise UserError(
                path, f"'{name}' has shape {found}, params ask for {expected}", "set the architecture as it was trained"
            )
    if surplus := sorted(set(state).difference(own)):
        raise UserError(path, f"'{surplus[0]}' is unknown to this network", "set the architecture as it was trained")
