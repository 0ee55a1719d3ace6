"""Linear attackers: one weight vector an attribute, along a path from strong to weak penalty, by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from splavu.attackers.scaling import Scaling, whiten_standardised
from splavu.attackers.selection import BestPerAttribute, Labelled, known_labels
from splavu.metrics import average_precisions

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # logits, targets [A, N] -> losses, their derivatives


@dataclass(frozen=True)
class _Problem:
    """Rows of inputs and labels; an attribute is a row of its own, which products with few of them are faster for."""

    inputs: Tensor
    """[N, d]"""
    inputs_by_column: Tensor
    """[d, N]"""
    target: Tensor
    """[A, N] of 0 and 1."""
    row_weights: Tensor
    """[A, N], 0 where a label is unknown; each attribute's sum to 1."""


class LinearAttacker:
    """Penalised linear classifier of all attributes at once.

    Minimises mean loss + penalty / 2 * |w|^2 for each attribute, the intercept free, w being weights of standardised or
    of whitened features. Both are fitted to the same whitened inputs (`whiten_standardised`), by L-BFGS on weights in
    units of the curvature at the start, warm-started from the stronger penalty before. Deterministic.
    """

    loss: Loss
    curvature: Callable[[Tensor], Tensor]
    """Share of positives [A] -> second derivative of the mean loss along a weight of unit covariance, at the start."""

    def __init__(
        self,
        *,
        penalties: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4),
        scalings: tuple[str, ...] = ("standardise", "whiten"),
        max_iterations: int = 60,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.penalties, self.scalings, self.max_iterations = penalties, scalings, max_iterations
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> LinearAttacker:
        self.best_ = BestPerAttribute(labels.shape[1])
        known, target = known_labels(labels, self.device)
        scaling, cost = whiten_standardised(features, self.device)
        inputs, held_out = scaling(features), scaling(validation[0])
        problem = _Problem(
            inputs, inputs.T.contiguous(), target.T.contiguous(), (known / known.sum(dim=0).clamp_min(1)).T
        )
        costs = {"standardise": cost, "whiten": torch.ones_like(cost)}  # of weights, where either is penalised
        for name in self.scalings:
            weight = torch.zeros(labels.shape[1], inputs.shape[1] + 1, device=inputs.device)
            for penalty in self.penalties:
                of_weight = penalty * torch.cat([costs[name], cost.new_zeros(1)])  # [d + 1]
                weight = self._minimise(problem, weight, of_weight)
                found = weight.T.contiguous()
                scores = (held_out @ found[:-1] + found[-1]).cpu().numpy()
                self.best_.offer(average_precisions(validation[1], scores), partial(linear_scores, scaling, found))
        return self

    def _minimise(self, problem: _Problem, start: Tensor, of_weight: Tensor) -> Tensor:  # [A, d + 1], [d + 1]
        """The best weights. The solver works on weights times `scale`, in which the problem is nearly round."""
        share = (problem.target * problem.row_weights).sum(dim=1).clamp(1e-3, 1 - 1e-3)
        scale = (self.curvature(share)[:, None] + of_weight).sqrt()  # [A, d + 1]
        scaled = start * scale
        solver = torch.optim.LBFGS(
            [scaled],
            max_iter=self.max_iterations,
            tolerance_grad=1e-5,
            tolerance_change=1e-8,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            weight = scaled / scale
            logits = torch.addmm(weight[:, -1:], weight[:, :-1], problem.inputs_by_column)  # [A, N]
            losses, slopes = self.loss(logits, problem.target)
            slopes *= problem.row_weights
            gradient = torch.cat([slopes @ problem.inputs, slopes.sum(dim=1, keepdim=True)], dim=1)
            scaled.grad = (gradient + of_weight * weight) / scale
            return (losses * problem.row_weights).sum() + 0.5 * (of_weight * weight.square()).sum()

        solver.step(loss)
        return scaled / scale

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


class LogisticAttacker(LinearAttacker):
    """Logistic regression; scikit-learn's C is 1 / (penalty * N)."""

    @staticmethod
    def loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # [A, N] each
        """Log loss of each row, and its derivative by the logit."""
        return functional.softplus(logits) - target * logits, logits.sigmoid() - target

    @staticmethod
    def curvature(share: Tensor) -> Tensor:  # [A] -> [A]
        return share * (1 - share)


def linear_scores(scaling: Scaling, weight: Tensor, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
    """Logits of weights `[D + 1, A]`, the intercept last."""
    return torch.addmm(weight[-1], scaling(features), weight[:-1]).cpu().numpy()
