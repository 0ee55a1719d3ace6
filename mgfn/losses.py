"""The training objective on a batch of normal and abnormal videos: video labels in, snippet scores out.

Two public variants differ in the regularisers: 'A' (the authors' release, the default) smooths all videos and asks for
few high scores in normal ones; 'B' (TeD-SPAD's adaptation) takes abnormal videos for both, and its smoothness crosses
from one video to the next. Smoothness is a sum and sparsity a norm over the whole batch, as published, so both weigh
more in larger batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mgfn.errors import InputError
from mgfn.model import MGFN
from mgfn.selection import Selected, select, selection_mask


@dataclass(frozen=True)
class Objective:
    """Constants of the objective; the defaults are the published values."""

    variant: Literal["A", "B"] = "A"
    clustering: Literal["rows", "videos"] = "rows"
    """Which chosen snippets are drawn together: 'rows' halves the crop-major rows, as published, so that with an even
    number of crops a video meets its own mirror image; 'videos' pairs different videos of the same class."""
    k: int = 3
    """Chosen snippets a video."""
    dropout: float = 0.7
    """Share of snippets left out of the choice."""
    margin: float = 200.0
    contrast: float = 0.001
    """Weight of the magnitude-contrastive terms."""
    separation: float = 0.001
    """Weight of the separation among them."""
    smoothness: float = 8e-4
    sparsity: float = 8e-3

    def __post_init__(self) -> None:
        if self.variant not in ("A", "B"):
            raise InputError("variant", f"'{self.variant}' is unknown", "use A or B")
        if self.clustering not in ("rows", "videos"):
            raise InputError("clustering", f"'{self.clustering}' is unknown", "use rows or videos")
        if not 0 <= self.dropout < 1:
            raise InputError("dropout", f"{self.dropout} is not in [0, 1)")


def training_terms(model: MGFN, batch: Tensor, is_abnormal: Tensor, objective: Objective) -> dict[str, Tensor]:
    """The loss of one training step; minimise `total`.

    Args:
        model: In training mode (in evaluation mode no snippet is left out of the choice).
        batch: [B, N, L, D + 1] of `snippets.training_batch`, in any order.
        is_abnormal: [B], bool; at least one of each class.
        objective: Constants.

    Returns:
        The terms of `terms` and `total`, scalars.

    Raises:
        InputError: A class is absent from the batch.
    """
    output = model(batch)
    is_abnormal = is_abnormal.to(batch.device)
    if is_abnormal.all() or not is_abnormal.any():
        raise InputError("batch", "holds no normal or no abnormal video", "draw both")
    chosen = {}
    with torch.autocast(batch.device.type, enabled=False):  # logarithms and distances are of full precision
        for of_class, name in ((is_abnormal, "abnormal"), (~is_abnormal, "normal")):
            scores = output.scores[of_class]
            mask = selection_mask(*scores.shape, dropout=objective.dropout, like=scores) if model.training else None
            chosen[name] = select(output.features[of_class].float(), scores, k=objective.k, mask=mask)
        return terms(
            chosen["normal"], chosen["abnormal"], output.scores[~is_abnormal], output.scores[is_abnormal], objective
        )


def terms(
    normal: Selected, abnormal: Selected, normal_scores: Tensor, abnormal_scores: Tensor, objective: Objective
) -> dict[str, Tensor]:  # scores [b, T]
    """Every term, unweighted, but `smoothness` and `sparsity`, which carry their weights as published; and `total`."""
    scores = torch.cat([normal.scores, abnormal.scores])
    targets = torch.cat([torch.zeros_like(normal.scores), torch.ones_like(abnormal.scores)])
    normal_sizes, abnormal_sizes = (half.features.abs().sum(dim=-1) for half in (normal, abnormal))  # [N, b, k]
    # Weights that went astray give NaN. The cross-entropy would break down at it; the caller is to see it.
    entropy = F.binary_cross_entropy(scores.nan_to_num(), targets)
    found = {
        "bce": torch.where(scores.isnan().any(), torch.nan, entropy),
        "separation": separation(abnormal_sizes, normal_sizes, margin=objective.margin),
        "normal_clustering": clustering(normal_sizes, pairs=objective.clustering),
        "abnormal_clustering": clustering(abnormal_sizes, pairs=objective.clustering),
    }
    if objective.variant == "A":
        smooth = normal_scores.diff(dim=1).square().sum() + abnormal_scores.diff(dim=1).square().sum()
        sparse = torch.linalg.vector_norm(normal_scores)
    else:
        smooth = abnormal_scores.flatten().diff().square().sum()
        sparse = torch.linalg.vector_norm(abnormal_scores)
    found["smoothness"] = objective.smoothness * smooth
    found["sparsity"] = objective.sparsity * sparse
    contrast = objective.separation * found["separation"] + found["normal_clustering"] + found["abnormal_clustering"]
    found["total"] = found["bce"] + objective.contrast * contrast + found["smoothness"] + found["sparsity"]
    return found


def separation(abnormal: Tensor, normal: Tensor, *, margin: float) -> Tensor:  # [N, b, k], [N, b', k] -> []
    """Mean of max(margin - distance, 0)^2 over pairs of the same crop and the same place in the batch.

    Where the classes differ in number, the smaller one is gone through again.
    """
    count = max(abnormal.shape[1], normal.shape[1])
    places = torch.arange(count, device=abnormal.device)
    gap = distance(abnormal[:, places % abnormal.shape[1]], normal[:, places % normal.shape[1]])
    return (margin - gap).clamp_min(0).square().mean()


def clustering(sizes: Tensor, *, pairs: str = "rows") -> Tensor:  # [N, b, k] -> []
    """Mean squared distance between the two halves of the rows (see `Objective.clustering`); 0 for a single row.

    An odd number of rows gives one pair more, so that none is left out.
    """
    rows = sizes.flatten(0, 1) if pairs == "rows" else sizes.transpose(0, 1)  # [N * b, k] or [b, N, k]
    half = len(rows) // 2
    if half == 0:
        return sizes.new_zeros(())
    return distance(rows[half:], rows[: len(rows) - half]).square().mean()


def distance(first: Tensor, second: Tensor) -> Tensor:  # [..., k], [..., k] -> [...]
    """Euclidean distance; the published small constant keeps its gradient finite where both are equal."""
    return torch.linalg.vector_norm(first - second + 1e-6, dim=-1)
