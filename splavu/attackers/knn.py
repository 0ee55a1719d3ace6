"""Nearest neighbours: the attacker without a model."""

from __future__ import annotations

from collections.abc import Callable
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
            scaling = SCALINGS[name](features, self.device)
            memory = scaling(features)
            votes = partial(_neighbour_votes, scaling, memory, target, known, self.chunk)
            for k, scores in zip(counts, votes(counts, validation[0]), strict=True):
                self.best_.offer(average_precisions(validation[1], scores), partial(_first_vote, votes, k))
        return self

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


def _neighbour_votes(
    scaling: Scaling, memory: Tensor, target: Tensor, known: Tensor, chunk: int, counts: list[int], features: np.ndarray
) -> list[np.ndarray]:  # [N, D] -> one [N, A] for each k of `counts` (ascending)
    queries = scaling(features)
    length = memory.square().sum(dim=1)  # [M]
    votes: list[list[Tensor]] = [[] for _ in counts]
    for query in queries.split(chunk):
        squared = torch.addmm(length, query, memory.T, alpha=-2).add_(query.square().sum(dim=1, keepdim=True))
        nearest, rows = squared.clamp_min_(0).topk(counts[-1], largest=False)  # [b, k], closest first
        for place, k in enumerate(counts):
            distance, row = nearest[:, :k], rows[:, :k]
            bandwidth = distance.mean(dim=1, keepdim=True).clamp_min(1e-30) / 4
            weight = torch.exp(-(distance - distance[:, :1]) / (2 * bandwidth))[..., None] * known[row]  # [b, k, A]
            votes[place].append((weight * target[row]).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-30))
    return [torch.cat(blocks).cpu().numpy() for blocks in votes]


def _first_vote(votes: Callable, k: int, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
    return votes([k], features)[0]
