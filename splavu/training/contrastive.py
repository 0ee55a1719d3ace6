"""Contrastive losses on features: NT-Xent, and InfoNCE whose negatives have the same class.

NT-Xent asks whether two static clips of one video resemble each other more than those of other videos. Maximising it,
as the privacy term does, is bounded only because the similarities are cosines; with a plain dot product it diverges.
The conditional losses compare a clip with the raw still frames of its video, within the class (docs/method.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGEST_SIMILARITY = 2**24
"""Entries of the matrix of similarities that is kept from the loss to its gradient: 64 MiB, 2048 pairs. A larger one is
made in blocks of rows that fit in here and made again for the gradient, half as much arithmetic again in little memory.
"""


def nt_xent(  # [B, D], [B, D] -> []
    z0: Tensor, z1: Tensor, *, temperature: float = 0.1, normalise: bool = True, block: int | None = None
) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views of B samples.

    Each of the 2B rows has to find its other view among the other 2B - 1 rows. Computed in float32 whatever comes in
    (float64 stays). One sample has no negatives: loss and gradient are exactly 0. A sample that occurs twice in the
    batch is its own false negative.

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


def class_residuals(rows: Tensor, classes: Tensor) -> Tensor:  # [B, D], [B] -> [B, D]
    """Each row less the mean of the rows of its class."""
    same = (classes[:, None] == classes).to(rows.dtype)  # [B, B]
    return rows - same @ rows / same.sum(dim=1, keepdim=True)


def conditional_infonce(scores: Tensor, classes: Tensor) -> Tensor:  # [B, B], [B] -> []
    """InfoNCE given the class: nats by which scores single out each row's own column among the columns of its class.

    Row i scores 'clip i belongs to still frame j' in column j. The mean over rows of
    log n + s_ii - log sum_j exp s_ij, the sum over the n rows of i's class: a lower bound of the mutual information of
    clip and frame given the class. At most log n; 0 for uninformative scores, negative for misleading ones. A row that
    is alone in its class has no negatives and isn't counted; where all are, the result is 0.

    Source: van den Oord et al. 2018, "Representation learning with contrastive predictive coding", conditioned on the
    class by taking negatives from it alone.
    """
    same = classes[:, None] == classes
    candidates = same.sum(dim=1)
    information = (
        candidates.to(scores.dtype).log() + scores.diagonal() - scores.masked_fill(~same, -torch.inf).logsumexp(dim=1)
    )  # [B]
    contrasted = candidates > 1
    return (information * contrasted).sum() / contrasted.sum().clamp_min(1)


def conditional_contrast(  # [B, D], [B, D], [B] -> []
    anonymized: Tensor, static: Tensor, classes: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """`conditional_infonce` with cosines as scores: no network, nothing to train.

    Both sides are centred on the mean of their class in the batch, so that what they reveal of the action counts for
    nothing. It measures in one fixed coordinate system: a change of coordinates is enough to make it small.
    """
    with torch.autocast(anonymized.device.type, enabled=False):
        sides = (class_residuals(rows.float(), classes) for rows in (anonymized, static))
        clips, frames = (F.normalize(rows, eps=1e-8) for rows in sides)
        return conditional_infonce(clips @ frames.T / temperature, classes)
