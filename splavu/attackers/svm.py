"""Linear support vector machine: rows beyond the margin no longer matter, which ranks rare attributes differently."""

from __future__ import annotations

from torch import Tensor

from splavu.attackers.linear import LinearAttacker


def squared_hinge(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:  # [N, A] each -> []
    """Sum over attributes of the mean of max(0, 1 - y f)^2, y = -1 or 1, over the rows whose label is known."""
    short = (1 - (2 * target - 1) * logits).clamp_min(0).square()
    return ((short * known).sum(dim=0) / known.sum(dim=0).clamp_min(1)).sum()


class SVMAttacker(LinearAttacker):
    """L2-penalised, squared hinge: scikit-learn's LinearSVC with C = 1 / (penalty * N), but for its free intercept."""

    loss = staticmethod(squared_hinge)
