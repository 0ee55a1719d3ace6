"""Nearest neighbours: the attacker without a model."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from splavu.attackers.scaling import SCALINGS, Scaling
from splavu.attackers.selection import BestPerAttribute, Labelled, known_labels
from splavu.metrics import average_precisions


class KNNAttacker:
    """k nearest training rows in Euclidean distance, votes weighted by closeness. Deterministic.

    A vote weighs exp(-d^2 / (2 h^2)), h^2 the query's mean squared distance to its k neighbours over 4: scores
    are then hardly ever tied, and the weights do not depend on the unit of the features.
    """

    def __init__(
        self,
        *,
        neighbours: tuple[int, ...] = (5, 20, 80, 320),
        scalings: tuple[str, ...] = ("standardise", "whiten"),
        chunk: int = 1024,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.neighbours, self.scalings, self.chunk = neighbours, scalings, chunk
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> KNNAttacker:
        self.best_ = BestPerAttribute(labels.shape[1])
        known, target = known_labels(labels, self.device)
        counts = sorted({min(k, len(features)) for k in self.neighbours})
        for name in self.scalings:
            votes = _Votes(SCALINGS[name](features, self.device), features, target, known, counts, self.chunk)
            for place, scores in enumerate(votes(validation[0])):
                self.best_.offer(average_precisions(validation[1], scores), partial(votes.of, place))
        return self

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


class _Votes:
    """Votes of the k nearest training rows for each k of `counts` (ascending), from one search."""

    def __init__(
        self, scaling: Scaling, features: np.ndarray, target: Tensor, known: Tensor, counts: list[int], chunk: int
    ) -> None:
        self.scaling, self.counts, self.chunk = scaling, counts, chunk
        self.memory = scaling(features)
        self.length = self.memory.square().sum(dim=1)  # [M]
        self.positive, self.known = target * known, None if bool(known.all()) else known
        self._last: tuple[np.ndarray, list[np.ndarray]] | None = None

    def of(self, place: int, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
        """Those of one k: attributes that chose different ones share the search."""
        if self._last is None or self._last[0] is not features:
            self._last = features, self(features)
        return self._last[1][place]

    def __call__(self, features: np.ndarray) -> list[np.ndarray]:  # [N, D] -> one [N, A] for each k
        votes: list[list[Tensor]] = [[] for _ in self.counts]
        for query in self.scaling(features).split(self.chunk):
            squared = torch.addmm(self.length, query, self.memory.T, alpha=-2).add_(query.square().sum(dim=1)[:, None])
            nearest, rows = squared.clamp_min_(0).topk(self.counts[-1], largest=False)  # [b, k], closest first
            positive = self.positive[rows]  # [b, k, A]
            known = None if self.known is None else self.known[rows]
            for place, k in enumerate(self.counts):
                distance = nearest[:, :k]
                bandwidth = distance.mean(dim=1, keepdim=True).clamp_min(1e-30) / 4
                weight = torch.exp(-(distance - distance[:, :1]) / (2 * bandwidth))[:, None]  # [b, 1, k]
                of_all = weight.sum(dim=2) if known is None else torch.bmm(weight, known[:, :k])[:, 0]
                votes[place].append(torch.bmm(weight, positive[:, :k])[:, 0] / of_all.clamp_min(1e-30))
        return [torch.cat(blocks).cpu().numpy() for blocks in votes]
