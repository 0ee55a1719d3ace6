"""The terms of the SPLAVU objective that are no task: the privacy budget, latent consistency, a reversed gradient.

The anonymizer *maximises* NT-Xent: two static clips of one video must not be told from those of other videos. The bound
holds only because the similarities are cosines; with a plain dot product the game diverges. Beside this published term
stand those that compare a clip with the raw still pictures of its video, within the class (docs/method.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from splavu.errors import UserError

LARGEST_SIMILARITY = 2**24
"""Entries of the matrix of similarities that is kept from the loss to its gradient: 64 MiB, 2048 pairs. A larger one is
made in blocks of rows that fit in here and made again for the gradient, half as much arithmetic again in little memory.
"""


def nt_xent(  # [B, D], [B, D] -> []
    z0: Tensor, z1: Tensor, *, temperature: float = 0.1, normalise: bool = True, block: int | None = None
) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views of B samples.

    Each of the 2B rows has to find its other view among the other 2B - 1 rows. Computed in float32 whatever comes in
    (float64 stays). One sample has no negatives: loss and gradient are exactly 0. A sample that stands in the batch
    twice is its own false negative.

    Args:
        z0: One view a row.
        z1: The other view, row by row.
        temperature: Divides the similarities; the loss is at most about 2 / temperature + log 2B.
        normalise: Cosine similarity (norms clamped at 1e-8). False takes the rows as they are (TeD-SPAD normalises in
            its head).
        block: Rows whose similarities are in memory at a time; by default what fits in `LARGEST_SIMILARITY`.

    Raises:
        ValueError: The shapes differ, or aren't [B, D], or there is no row.

    Source: Chen et al. 2020 (SimCLR), eq. 1; the privacy budget L_B of Fioresi et al. 2026.
    """
    if not len(z0):
        raise ValueError("NT-Xent needs at least one pair of views")
    with torch.autocast(z0.device.type, enabled=False):
        rows = _stacked(z0, z1, normalise)  # [2B, D]
        own = torch.arange(len(rows), device=rows.device)
        return _FindPartners.apply(rows, None, own, temperature, block) / len(rows)


def nt_xent_share(  # [b, D], [b, D], [B, D], [B, D] -> []
    local0: Tensor,
    local1: Tensor,
    all0: Tensor,
    all1: Tensor,
    *,
    offset: int,
    temperature: float = 0.1,
    normalise: bool = True,
    block: int | None = None,
) -> Tensor:
    """One process's share of `nt_xent` over a batch that is spread over several.

    Its own 2b rows look for their other views among all 2B. The shares add up to `nt_xent(all0, all1)`, and so do their
    gradients, provided that what gathered `all0` and `all1` hands gradients back to where the rows came from. A process
    may have no rows. Where `local` is `all`, the very same tensors, this is `nt_xent`.

    Args:
        local0: The first views of this process, rows `offset` to `offset + b` of `all0`.
        local1: Their other views.
        all0: The first views of all processes.
        all1: Their other views.
        offset: Where this process's rows begin in `all0` and `all1`.
        temperature, normalise, block: As in `nt_xent`.

    Raises:
        ValueError: Shapes that don't belong together, or rows beyond the batch.
    """
    if local0 is all0 and local1 is all1:
        return nt_xent(all0, all1, temperature=temperature, normalise=normalise, block=block)
    num_local, num_all = len(local0), len(all0)
    if not num_all or not 0 <= offset <= num_all - num_local:
        raise ValueError(f"rows {offset} to {offset + num_local} aren't in a batch of {num_all}")
    with torch.autocast(all0.device.type, enabled=False):
        rows, candidates = _stacked(local0, local1, normalise), _stacked(all0, all1, normalise)  # [2b, D], [2B, D]
        first = torch.arange(offset, offset + num_local, device=all0.device)
        own = torch.cat([first, first + num_all])
        return _FindPartners.apply(rows, candidates, own, temperature, block) / len(candidates)


def _stacked(z0: Tensor, z1: Tensor, normalise: bool) -> Tensor:  # [B, D], [B, D] -> [2B, D]
    if z0.ndim != 2 or z0.shape != z1.shape:
        raise ValueError(f"expected two views [B, D] of one shape, got {tuple(z0.shape)} and {tuple(z1.shape)}")
    rows = torch.cat([z0, z1])
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return F.normalize(rows, eps=1e-8) if normalise else rows


class _FindPartners(torch.autograd.Function):
    """The cross-entropies of rows that look for their other views among candidates, summed: [R, D], [2B, D] -> [].

    `own` [R] says where each row itself stands among the candidates; None for candidates are the rows. Then, with P the
    softmax of the similarities S and Y the true pairs, the gradient is (P - Y + (P - Y)^T) rows / temperature; S being
    symmetric, a block of rows of P^T comes from the same block of S, and one product does for autograd's two.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, candidates: Tensor | None, own: Tensor, temperature: float, block: int | None
    ) -> Tensor:
        ctx.temperature, ctx.among_themselves = temperature, candidates is None
        candidates = rows if candidates is None else candidates
        ctx.block = block or max(1, LARGEST_SIMILARITY // len(candidates))
        partner = (own + len(candidates) // 2) % len(candidates)
        log_sum, of_partner = rows.new_empty(2, len(rows))
        blocks, similarities = _blocks(len(rows), ctx.block), None
        for part in blocks:
            similarities = _similarities(rows[part], candidates, own[part], temperature)  # [block, 2B]
            log_sum[part] = similarities.logsumexp(dim=1)
            of_partner[part] = similarities.gather(1, partner[part, None])[:, 0]
        whole = similarities if len(blocks) == 1 else None
        ctx.save_for_backward(rows, candidates, own, partner, log_sum, whole)
        return (log_sum - of_partner).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, candidates, own, partner, log_sum, whole = ctx.saved_tensors
        of_rows = torch.empty_like(rows)
        of_candidates = None if ctx.among_themselves else torch.zeros_like(candidates)
        scale = gradient / ctx.temperature
        with torch.autocast(rows.device.type, enabled=False):
            for part in _blocks(len(rows), ctx.block):
                remade = whole is None
                similarities = _similarities(rows[part], candidates, own[part], ctx.temperature) if remade else whole
                weights = (similarities - log_sum[part, None]).exp_()  # P, [block, 2B]
                if ctx.among_themselves:
                    weights += (similarities - log_sum).exp_()  # P^T
                pairs = partner[part, None]
                weights.scatter_add_(1, pairs, weights.new_full(pairs.shape, -2.0 if ctx.among_themselves else -1.0))
                torch.mm(weights, candidates, out=of_rows[part])
                if of_candidates is not None:
                    of_candidates.addmm_(weights.T, rows[part])
            of_candidates = None if of_candidates is None else of_candidates.mul_(scale)
        return of_rows.mul_(scale), of_candidates, None, None, None


def _blocks(num_rows: int, block: int) -> list[slice]:
    return [slice(start, start + block) for start in range(0, num_rows, block)]


def _similarities(rows: Tensor, candidates: Tensor, own: Tensor, temperature: float) -> Tensor:  # -> [R, 2B]
    similarities = rows @ (candidates / temperature).T
    return similarities.scatter_(1, own[:, None], -torch.inf)  # a row never competes with itself


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


def class_residuals(rows: Tensor, classes: Tensor) -> Tensor:  # [B, D], [B] -> [B, D]
    """Each row less the mean of the rows of its class."""
    same = (classes[:, None] == classes).to(rows.dtype)  # [B, B]
    return rows - same @ rows / same.sum(dim=1, keepdim=True)


def within_class_information(scores: Tensor, classes: Tensor) -> Tensor:  # [B, B], [B] -> []
    """Nats by which scores tell each row's own column among the columns of its class.

    Row i scores 'clip i belongs to still picture j' in column j. The mean over rows of
    log n + s_ii - log sum_j exp s_ij, the sum over the n rows of i's class: InfoNCE, which bounds from below what clip
    and picture have in common beyond the class. At most log n; 0 for scores that know nothing, negative for those that
    are wrong. A row alone in its class has nothing to be told from and isn't counted; where all are, the result is 0.

    Source: van den Oord et al. 2018, "Representation learning with contrastive predictive coding", conditioned on the
    class by taking negatives from it alone.
    """
    same = classes[:, None] == classes
    rivals = same.sum(dim=1)
    told = (
        rivals.to(scores.dtype).log() + scores.diagonal() - scores.masked_fill(~same, -torch.inf).logsumexp(dim=1)
    )  # [B]
    contrasted = rivals > 1
    return (told * contrasted).sum() / contrasted.sum().clamp_min(1)


def conditional_contrast(  # [B, D], [B, D], [B] -> []
    anonymized: Tensor, static: Tensor, classes: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """Nats by which cosines tell a clip's own raw still picture from those of other videos of its class.

    Both sides less the mean of their class in the batch, so that what they say of the action counts for nothing.
    Without a critic: it looks in one fixed coordinate system, and a change of coordinates is enough to silence it.
    """
    with torch.autocast(anonymized.device.type, enabled=False):
        sides = (class_residuals(rows.float(), classes) for rows in (anonymized, static))
        clips, pictures = (F.normalize(rows, eps=1e-8) for rows in sides)
        return within_class_information(clips @ pictures.T / temperature, classes)


@dataclass(frozen=True)
class RelativeConsistency:
    """Latent consistency as a share of the features' variance, so that one weight serves every encoder.

    1 is what a constant anonymizer costs, 0.1 a loss of a tenth of what the features vary by.
    """

    variance: float
    """Of raw training features, the mean over dimensions: a constant of the encoder, never of the batch."""

    def __post_init__(self) -> None:
        if not 0 < self.variance < float("inf"):
            raise UserError("consistency", f"features have variance {self.variance}", "look at the feature store")

    def __call__(self, anonymized: Tensor, raw: Tensor, reduction: str = "mean") -> Tensor:
        return F.mse_loss(anonymized, raw, reduction=reduction) / self.variance
