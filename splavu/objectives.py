"""The terms of the SPLAVU objective that are no task: the privacy budget, latent consistency, a reversed gradient.

The anonymizer *maximises* NT-Xent: two static clips of one video must not be told from those of other videos. The bound
holds only because the similarities are cosines; with a plain dot product the game diverges.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(  # [B, D], [B, D] -> []
    z0: Tensor, z1: Tensor, *, temperature: float = 0.1, normalise: bool = True
) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views of B samples.

    Each of the 2B rows has to find its other view among the other 2B - 1 rows. Computed in float32 whatever comes in.
    One sample has no negatives: loss and gradient are exactly 0. A sample that stands in the batch twice is its own
    false negative.

    Args:
        z0: One view a row.
        z1: The other view, row by row.
        temperature: Divides the similarities; the loss is at most about 2 / temperature + log 2B.
        normalise: Cosine similarity (norms clamped at 1e-8). False takes the rows as they are (TeD-SPAD normalises in
            its head).

    Raises:
        ValueError: The shapes differ, or aren't [B, D].

    Source: Chen et al. 2020 (SimCLR), eq. 1; the privacy budget L_B of Fioresi et al. 2026.
    """
    if z0.ndim != 2 or z0.shape != z1.shape:
        raise ValueError(f"expected two views [B, D] of one shape, got {tuple(z0.shape)} and {tuple(z1.shape)}")
    num_samples = len(z0)
    with torch.autocast(z0.device.type, enabled=False):
        rows = torch.cat([z0, z1]).float()  # [2B, D]
        if normalise:
            rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-8)
        similarity = rows @ rows.T / temperature  # [2B, 2B]
        similarity.fill_diagonal_(-torch.inf)  # a row never competes with itself
        partner = torch.arange(2 * num_samples, device=z0.device).roll(num_samples)  # [2B]
        return F.cross_entropy(similarity, partner)


def latent_consistency(anonymized: Tensor, raw: Tensor) -> Tensor:  # [B, D], [B, D] -> []
    """Mean squared distance between what goes into the anonymizer and what comes out (L_LC).

    It scales with the variance of the features, so one weight doesn't mean the same for two encoders.
    """
    return F.mse_loss(anonymized, raw)


def reverse_gradient(features: Tensor) -> Tensor:  # any shape -> the same values
    """The identity, whose gradient changes its sign: what follows learns a loss that what comes before increases.

    Source: the gradient reversal layer of Ganin and Lempitsky 2015, strength 1.
    """
    return _Reversed.apply(features)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient
