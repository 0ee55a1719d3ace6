"""Checkpoints: ours, which build their network again by themselves, and those of the public programs.

Nothing but tensors and plain values is ever loaded, and a file is there whole or not at all.
"""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import torch

from mgfn.errors import InputError
from mgfn.model import MGFN, Architecture, model_from_state
from mgfn.option import Options
from mgfn.runs import versions, write_whole

FORMAT = 1
RESUMABLE = "model_temp.pth"
STATE_KEYS = ("model", "ft_model_ad_state_dict", "state_dict")
"""Where weights lie in a checkpoint: ours, a co-training's, and the usual one elsewhere."""


def write_checkpoint(path: Path, model: MGFN, options: Options, **content: Any) -> None:
    """Weights with everything that is needed to build the network again."""
    whole = {
        "format": FORMAT,
        "model": model.state_dict(),
        "architecture": dataclasses.asdict(model.architecture),
        "options": dataclasses.asdict(options),
        "versions": versions(),
        **content,
    }
    write_whole(path, lambda file: torch.save(whole, file))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU; nothing but tensors and plain values is ever loaded.

    Raises:
        InputError: No such file, or no checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(path, "there is no such checkpoint") from None
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), "no content")
        raise InputError(path, f"is no checkpoint ({reason})", "give a file of weights") from error
    if not isinstance(content, dict):
        raise InputError(path, f"holds a {type(content).__name__}, no weights", "give a file of weights")
    return content


def read_network(path: str | Path, *, mag_ratio: float = Architecture.mag_ratio) -> MGFN:
    """The network in a checkpoint: ours, a co-training's, or the official state dict, also of DataParallel.

    Args:
        path: The checkpoint.
        mag_ratio: For a checkpoint that doesn't say.

    Raises:
        InputError: No such file, or no MGFN in it.
    """
    content = read_checkpoint(path)
    state = next((content[key] for key in STATE_KEYS if isinstance(content.get(key), dict)), content)
    mag_ratio = content.get("architecture", {}).get("mag_ratio", mag_ratio)
    try:
        return model_from_state({k: v for k, v in state.items() if isinstance(v, torch.Tensor)}, mag_ratio=mag_ratio)
    except InputError as error:
        raise InputError(path, error.problem, error.remedy) from None
