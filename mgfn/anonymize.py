"""How a trained anonymizer joins MGFN: as a function of one video's features. Imports `splavu`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mgfn.errors import InputError
from splavu.anonymizers import one_by_one
from splavu.anonymizers.loading import load_anonymizer
from splavu.errors import UserError


def anonymizing(
    checkpoint: str | Path, device: torch.device | str = "cpu", *, serving: Literal["video", "alone"] = "video"
) -> Callable[[Tensor], Tensor]:
    """A trained anonymizer as a function of one crop's features, `[T, D] -> [T, D]`.

    Args:
        checkpoint: With `fa_model_state_dict`.
        device: Where it computes; the result is on the CPU.
        serving: 'video': the snippets of a video see one another; 'alone': each as if it came alone.

    Raises:
        InputError: No such checkpoint; when it is applied, features of another width.
    """
    try:
        anonymizer = load_anonymizer(checkpoint).to(device).eval()
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error
    width = anonymizer.architecture["feature_dim"]

    @torch.no_grad()
    def anonymize(features: Tensor) -> Tensor:  # [T, D] -> [T, D]
        if features.shape[-1] != width:
            problem = f"anonymizes features {width} wide, these are {features.shape[-1]}"
            raise InputError(checkpoint, problem, "use the anonymizer of their encoder")
        moved = features.to(device)
        safe = one_by_one(anonymizer, moved) if serving == "alone" else anonymizer(moved[None])[0]
        return safe.cpu()

    return anonymize
