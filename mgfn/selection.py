"""Magnitude selection: the snippets that speak for a video are those with the largest features.

The choice is made on magnitudes that carry no gradient; gradients flow through what was chosen. In training some
snippets are left out of the choice at random, so that not always the same ones are taught.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Selected:
    """The chosen snippets of b videos."""

    scores: Tensor
    """[b], mean of the chosen scores."""
    features: Tensor
    """[N, b, k, C], the chosen features of every crop, largest (masked) magnitude first."""


def selection_mask(num_videos: int, num_snippets: int, *, dropout: float, like: Tensor) -> Tensor:  # -> [b, T]
    """Factors on the magnitudes: 0 with probability `dropout`, else 1 / (1 - dropout); ones without dropout."""
    return F.dropout(torch.ones(num_videos, num_snippets, dtype=like.dtype, device=like.device), p=dropout)


def select(features: Tensor, scores: Tensor, *, k: int = 3, mask: Tensor | None = None) -> Selected:
    """The k snippets of each video whose features are largest, the same ones for all its crops.

    Args:
        features: [b, N, T, C]; the magnitude is their Euclidean norm, averaged over crops.
        scores: [b, T].
        k: Snippets a video; all of them if it has fewer.
        mask: [b, T], multiplies the magnitudes.

    Source: "Magnitude-contrastive loss" of Chen et al., AAAI 2023; top-k after RTFM (Tian et al., ICCV 2021).
    """
    with torch.no_grad():
        magnitudes = torch.linalg.vector_norm(features, dim=-1).mean(dim=1)  # [b, T]
        if mask is not None:
            magnitudes = magnitudes * mask
        chosen = magnitudes.topk(min(k, magnitudes.shape[1]), dim=1).indices  # [b, k]
    videos = torch.arange(len(scores), device=chosen.device).unsqueeze(1)
    return Selected(
        scores=scores.gather(1, chosen).mean(dim=1),
        features=features.transpose(0, 1)[:, videos, chosen],
    )
