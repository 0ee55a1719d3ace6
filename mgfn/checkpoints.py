"""Reading checkpoints: ours, a co-training's, and those of the public programs; each builds its network by itself.

Nothing but tensors and plain values is ever loaded. Ours are written by the training loop (`train`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mgfn.errors import InputError
from mgfn.model import MGFN, Architecture, model_from_state

STATE_KEYS = ("model_ema", "model", "ft_model_ad_state_dict_ema", "ft_model_ad_state_dict", "state_dict")
"""Where weights lie in a checkpoint: ours, a co-training's, and the usual one elsewhere; a moving average, where one
was kept, is what was validated."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU; nothing but tensors and plain values is ever loaded.

    Raises:
        InputError: No such file, or no checkpoint.
    """
    from splavu.runtime.plain_values import load_checkpoint  # reading files needs splavu, the network doesn't

    if not Path(path).is_file():
        raise InputError(path, "there is no such checkpoint")
    try:
        content = load_checkpoint(path)
    except ValueError as error:
        raise InputError(path, f"is no checkpoint ({error})", "give a file of weights") from error
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
    recorded = content.get("architecture")
    mag_ratio = recorded.get("mag_ratio", mag_ratio) if isinstance(recorded, dict) else mag_ratio
    if not isinstance(mag_ratio, (int, float)):
        raise InputError(path, f"its mag_ratio is {mag_ratio!r}, expected a number", "give a file of weights")
    try:
        return model_from_state({k: v for k, v in state.items() if isinstance(v, torch.Tensor)}, mag_ratio=mag_ratio)
    except InputError as error:
        raise InputError(path, error.problem, error.remedy) from None
