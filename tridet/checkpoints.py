"""Checkpoints and the other files of a run: the only place where one is written or read.

A checkpoint is the public release's dictionary (`epoch`, `state_dict`, `state_dict_ema`, `optimizer`, `scheduler`, the
names of weights with `module.` before them), so either program reads the other's. Ours adds `config`, `versions`,
`format_version` and `loss_normaliser`, without which a resumed training divides its losses by another number. What is
evaluated is the moving average, not the trained weights.
"""

from __future__ import annotations

import json
import logging
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from splavu.errors import UserError
from splavu.runtime import files
from splavu.runtime.files import replacing
from splavu.runtime.plain_values import load_checkpoint
from tridet.errors import InputError, first_few
from tridet.optim import LearningRate, MovingAverage
from tridet.schema import Config, to_dict

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
WRAPPERS = ("module.", "_orig_mod.")
"""What data parallelism and torch.compile put before the names of weights."""
KEYS = {
    "ema": ("state_dict_ema", "ft_model_tad_state_dict_ema", "state_dict", "ft_model_tad_state_dict"),
    "trained": ("state_dict", "ft_model_tad_state_dict", "state_dict_ema"),
}
"""Where weights lie, best first: in checkpoints of TriDet, and in SPLAVU's, which hold those of all tasks."""

_EPOCH = re.compile(r"epoch_(\d+)\.pth\.tar")


class Training(Protocol):
    """What a checkpoint of a running training holds; the network also has its `loss_normaliser`."""

    config: Config
    network: nn.Module
    average: MovingAverage
    optimizer: torch.optim.Optimizer
    schedule: LearningRate


def save(path: str | Path, training: Training, epoch: int) -> Path:
    """Write a checkpoint whole or not at all; `epoch` counts from 0 and is done.

    Raises:
        InputError: It can't be written (disk full, read-only); what was there before stays.
    """
    content = {
        "epoch": epoch,
        **weights(training),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.schedule.state_dict(),
        "loss_normaliser": float(training.network.loss_normaliser),
        "config": to_dict(training.config),
        "versions": versions(),
        "format_version": FORMAT_VERSION,
    }
    try:
        with written(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch turns some failed writes into the second
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = "free space or choose another folder, then run the same command to go on"
        raise InputError(path, f"can't be written ({reason})", remedy) from error
    return Path(path)


def weights(training: Training) -> dict[str, dict[str, Tensor]]:
    """The trained weights and their average, under the published keys."""
    return {"state_dict": _wrapped(training.network), "state_dict_ema": _wrapped(training.average.network)}


def resume(path: str | Path, training: Training) -> int:
    """Put a training where the checkpoint left it, and return the epoch that was done.

    A checkpoint of the public release has no loss normaliser: it starts at its initial value, with a warning.

    Raises:
        InputError: As `load_weights`; or it is of another optimizer or schedule, or holds weights only.
    """
    content = read(path)
    lacking = [key for key in ("epoch", "state_dict", "state_dict_ema", "optimizer", "scheduler") if key not in content]
    if lacking:
        raise InputError(path, f"has no {', '.join(lacking)}", "resume from an epoch_NNN.pth.tar of a training run")
    _load(training.network, content, "trained", path)
    _load(training.average.network, content, "ema", path)
    try:
        return _resumed(content, path, training)
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(path, f"holds no state of a training ({reason})", "resume from another") from error


def _resumed(content: Mapping[str, Any], path: str | Path, training: Training) -> int:
    own, saved = (state["param_groups"] for state in (training.optimizer.state_dict(), content["optimizer"]))
    if [len(group["params"]) for group in own] != [len(group["params"]) for group in saved]:
        raise InputError(path, "its optimizer groups parameters otherwise", "set the model as it was trained")
    if ("betas" in own[0]) != ("betas" in saved[0]):
        raise InputError(path, "its optimizer is no " + training.config.opt.type, "set opt.type as it was trained")
    training.optimizer.load_state_dict(content["optimizer"])
    try:
        training.schedule.load_state_dict(content["scheduler"])
    except InputError as error:
        raise InputError(path, error.problem, error.remedy) from error
    if "loss_normaliser" in content:
        training.network.loss_normaliser = content["loss_normaliser"]
    else:
        logger.warning("%s has no loss normaliser: it starts at train_cfg.init_loss_norm", path)
    return int(content["epoch"])


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Any],
    *,
    prefer: Literal["ema", "trained"] = "ema",
) -> None:
    """Load weights strictly; an error leaves the model as it was.

    Args:
        source: A checkpoint of TriDet or of SPLAVU, or bare weights; a file, or what it holds.
        prefer: Which weights, if there are both.

    Raises:
        InputError: The file can't be read, holds no weights, or those of another network: names what differs.
    """
    if isinstance(source, Mapping):
        _load(model, source, prefer, "the weights")
    else:
        _load(model, read(source), prefer, source)


def _load(model: nn.Module, content: Mapping[str, Any], prefer: str, culprit: object) -> None:
    state, own = _weights(content, prefer, culprit), model.state_dict()
    differing = {
        "missing": [name for name in own if name not in state],
        "unknown here": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    found = [f"{len(names)} weights {kind} ({first_few(names, 3)})" for kind, names in differing.items() if names]
    if found:
        hints = _other_settings(content.get("config"), getattr(model, "config", None))
        remedy = f"it was trained with {', '.join(hints)}" if hints else "use the configuration it was trained with"
        raise InputError(culprit, f"doesn't fit this configuration: {'; '.join(found)}", remedy)
    model.load_state_dict(state)


def _weights(content: Mapping[str, Any], prefer: str, culprit: object) -> dict[str, Tensor]:
    key = next((key for key in KEYS[prefer] if key in content), None)
    state = content if key is None else content[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        found = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise InputError(
            culprit, "holds no weights of TriDet", f"expected one of {', '.join(KEYS[prefer])}; has {found}"
        )
    return {_unwrapped(name): value for name, value in state.items()}


def _wrapped(network: nn.Module) -> dict[str, Tensor]:
    return {WRAPPERS[0] + _unwrapped(name): value for name, value in network.state_dict().items()}


def _unwrapped(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name.replace("._orig_mod.", ".")


def _other_settings(recorded: Any, config: Any) -> list[str]:
    """Settings of the network that a checkpoint recorded and `config` has otherwise."""
    if not isinstance(recorded, Mapping) or not isinstance(config, Config):
        return []
    current = to_dict(config)
    return [
        f"{section}.{name} = {value!r}"
        for section in ("model", "dataset", "train_cfg")
        for name, value in recorded.get(section, {}).items()
        if (section == "model" or name in ("input_dim", "num_classes", "droppath"))
        and value != current[section].get(name)
    ]


def read(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, its tensors on the CPU.

    Raises:
        InputError: There is no such file, it is damaged or carries code, it is newer than this program, or it is no
            dictionary.
    """
    if not Path(path).is_file():
        raise InputError(path, "no such checkpoint", "train it first, or correct the path")
    try:
        content = load_checkpoint(path)
    except ValueError as error:
        remedy = "copy it again, or save weights and plain values alone"
        raise InputError(path, f"can't be read as a checkpoint ({error})", remedy) from error
    if not isinstance(content, dict):
        raise InputError(path, f"holds a {type(content).__name__}, expected a dictionary", "give a checkpoint")
    version = content.get("format_version", 0)
    if not isinstance(version, int):
        raise InputError(path, f"has format {version!r}, expected a number", "give a checkpoint")
    if version > FORMAT_VERSION:
        raise InputError(path, f"has format {version}, newer than this program's", "update it")
    return content


def find(path: str | Path) -> Path:
    """A checkpoint: the file itself, or the last epoch's of a run folder.

    Raises:
        InputError: There is none.
    """
    path = Path(path)
    if path.is_dir():
        found = newest(path)
        if found is None:
            raise InputError(path, "has no epoch_NNN.pth.tar", "train first, or give the file itself")
        return found
    if not path.is_file():
        raise InputError(path, "no such checkpoint", "train it first, or correct the path")
    return path


def newest(folder: str | Path) -> Path | None:
    """The checkpoint of the last epoch in a folder, by number; others' names don't count."""
    return max(_epochs(Path(folder)), default=(-1, None))[1]


def remove_all(folder: str | Path) -> None:
    """Remove a run's checkpoints of all epochs, and nothing else of its folder."""
    for _, path in _epochs(Path(folder)):
        path.unlink()


def _epochs(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    return [(int(match[1]), path) for path in folder.iterdir() if (match := _EPOCH.fullmatch(path.name))]


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def write_json(path: str | Path, content: Any) -> None:
    """Write a readable JSON file, whole or not at all."""
    with written(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def written(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that comes to be, or replaces another, when the block ends without an error.

    Raises:
        InputError: The target is refused: a device, a link that leads out of its folder.
    """
    with _input_errors(), replacing(path) as temporary, temporary.open("wb") as file:
        yield file


def check_target(path: str | Path, *, inputs: Sequence[str | Path]) -> None:
    """Refuse a file to be written that is one of `inputs`, or that `written` would refuse.

    Raises:
        InputError: It is.
    """
    with _input_errors():
        files.check_target(path, inputs=inputs)


@contextmanager
def _input_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error
