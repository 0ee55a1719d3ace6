"""Linear support vector machine: rows beyond the margin no longer matter, which ranks rare attributes differently."""

from __future__ import annotations

import torch
from torch import Tensor

from splavu.attackers.linear import LinearAttacker


class SVMAttacker(LinearAttacker):
    """L2-penalised, squared hinge: scikit-learn's LinearSVC with C = 1 / (penalty * N), but for its free intercept."""

    @staticmethod
    def loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # [A, N] each
        """max(0, 1 - y f)^2 of each row, y = -1 or 1, and its derivative by f."""
        sign = 2 * target - 1
        short = (1 - sign * logits).clamp_min(0)
        return short.square(), -2 * sign * short

    @staticmethod
    def curvature(share: Tensor) -> Tensor:  # [A] -> [A]
        return torch.full_like(share, 2.0)
