"""Linear attackers: one weight vector an attribute, along a path from strong to weak penalty, by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from splavu.attackers.scaling import SCALINGS, Scaling
from splavu.attackers.selection import BestPerAttribute, Labelled, known_labels, log_loss
from splavu.metrics import average_precisions

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, targets, known [N, A] each -> []


class LinearAttacker:
    """Penalised linear classifier of all attributes at once.

    Minimises mean loss + penalty / 2 * |w|^2 for each attribute, the intercept free, by L-BFGS warm-started from the
    stronger penalty before. Deterministic.
    """

    loss: Loss

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
        for name in self.scalings:
            scaling = SCALINGS[name](features, self.device)
            inputs, held_out = scaling(features), scaling(validation[0])
            weight = torch.zeros(inputs.shape[1] + 1, labels.shape[1], device=inputs.device)
            for penalty in self.penalties:
                weight = self._minimise(inputs, target, known, weight, penalty)
                scores = (held_out @ weight[:-1] + weight[-1]).cpu().numpy()
                self.best_.offer(average_precisions(validation[1], scores), partial(linear_scores, scaling, weight))
        return self

    def _minimise(self, inputs: Tensor, target: Tensor, known: Tensor, start: Tensor, penalty: float) -> Tensor:
        weight = start.clone().requires_grad_()
        solver = torch.optim.LBFGS(
            [weight],
            max_iter=self.max_iterations,
            tolerance_grad=1e-5,
            tolerance_change=1e-8,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            solver.zero_grad()
            logits = torch.addmm(weight[-1], inputs, weight[:-1])  # [N, A]
            value = self.loss(logits, target, known) + 0.5 * penalty * weight[:-1].square().sum()
            value.backward()
            return value

        solver.step(loss)
        return weight.detach()

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


class LogisticAttacker(LinearAttacker):
    """Logistic regression; scikit-learn's C is 1 / (penalty * N)."""

    loss = staticmethod(log_loss)


def linear_scores(scaling: Scaling, weight: Tensor, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
    """Logits of weights `[D + 1, A]`, the intercept last."""
    return torch.addmm(weight[-1], scaling(features), weight[:-1]).cpu().numpy()
