"""How a trained anonymizer joins TriDet: as a function of one video's features. Imports `splavu`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from splavu.anonymizers import one_by_one
from splavu.anonymizers.loading import load_anonymizer
from splavu.errors import UserError
from tridet.errors import InputError


def anonymizing(
    checkpoint: str | Path,
    *,
    feature_dim: int,
    serving: Literal["video", "alone"] = "video",
    device: torch.device | str = "cpu",
) -> Callable[[Tensor], Tensor]:
    """A trained anonymizer as a function of one video's features, `[T, D] -> [T, D]`, for `ThumosDataset`.

    Args:
        checkpoint: With `fa_model_state_dict`.
        feature_dim: D of the features it will see.
        serving: 'video': the steps of a video see one another; 'alone': each feature as if it came alone.

    Raises:
        InputError: No such checkpoint, or one of another width.
    """
    try:
        anonymizer = load_anonymizer(checkpoint).to(device).eval()
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error
    if (width := anonymizer.architecture["feature_dim"]) != feature_dim:
        raise InputError(checkpoint, f"anonymizes features {width} wide, these are {feature_dim}", "use its encoder's")

    @torch.no_grad()
    def anonymize(features: Tensor) -> Tensor:  # [T, D] -> [T, D]
        moved = features.to(device)
        return one_by_one(anonymizer, moved) if serving == "alone" else anonymizer(moved[None])[0]

    return anonymize
