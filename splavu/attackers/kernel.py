"""Kernel attacker: ridge classification on random features of a Gaussian kernel."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from splavu.attackers.scaling import SCALINGS, Scaling
from splavu.attackers.selection import BestPerAttribute, Labelled
from splavu.metrics import average_precisions


class KernelAttacker:
    """Least squares on sqrt(2 / F) cos(x W / h + b), W Gaussian: in the limit kernel ridge, exp(-|x - y|^2 / (2 h^2)).

    Minimises the mean squared error + penalty * |w|^2, the intercept free; kernel ridge has alpha = penalty * N.
    The bandwidth h is a multiple of the median distance between training rows. Attributes that are known in the same
    rows are solved for at once. Stochastic: `seed` draws W and b.

    Source: Rahimi and Recht, Random features for large-scale kernel machines, 2007.
    """

    def __init__(
        self,
        *,
        num_features: int = 1024,
        bandwidths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0),
        penalties: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5),
        scalings: tuple[str, ...] = ("standardise", "whiten"),
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_features, self.bandwidths, self.penalties = num_features, bandwidths, penalties
        self.scalings, self.seed, self.device = scalings, seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> KernelAttacker:
        self.best_ = BestPerAttribute(labels.shape[1])
        labels = np.asarray(labels, dtype=np.float32)
        patterns, pattern_of = np.unique(~np.isnan(labels).T, axis=0, return_inverse=True)  # which rows are known
        generator = torch.Generator().manual_seed(self.seed)
        for name in self.scalings:
            scaling = SCALINGS[name](features, self.device)
            inputs, held_out = scaling(features), scaling(validation[0])
            typical = _median_distance(inputs, generator)
            for bandwidth in self.bandwidths:
                shape = (inputs.shape[1], self.num_features)
                directions = (torch.randn(shape, generator=generator) / (bandwidth * typical)).to(inputs.device)
                phases = (2 * torch.pi * torch.rand(self.num_features, generator=generator)).to(inputs.device)
                mapped, judged = (_mapped(rows, directions, phases) for rows in (inputs, held_out))
                for index, known in enumerate(patterns):
                    if known.any():
                        columns = np.flatnonzero(pattern_of.ravel() == index)
                        rows = mapped if known.all() else mapped[known]
                        self._offer(scaling, directions, phases, rows, labels[known], judged, validation[1], columns)
        return self

    def _offer(
        self,
        scaling: Scaling,
        directions: Tensor,
        phases: Tensor,
        mapped: Tensor,
        labels: np.ndarray,
        judged: Tensor,
        validation_labels: np.ndarray,
        columns: np.ndarray,
    ) -> None:
        """Every penalty's classifier of the attributes `columns`, all known in the rows of `mapped` [n, F]."""
        target = torch.as_tensor(labels[:, columns], device=mapped.device)
        mean = mapped.mean(dim=0)
        centred = mapped - mean
        covariance = _gram(centred) / len(centred)  # [F, F]
        wanted = centred.T @ (target - target.mean(dim=0)) / len(centred)  # [F, c]
        every_axis = torch.eye(len(covariance), device=covariance.device)
        for penalty in self.penalties:
            weight = torch.cholesky_solve(wanted, torch.linalg.cholesky(covariance + penalty * every_axis))
            precisions = np.full(validation_labels.shape[1], np.nan)
            scores = ((judged - mean) @ weight).cpu().numpy()
            precisions[columns] = average_precisions(validation_labels[:, columns], scores)
            every = torch.zeros(len(weight), validation_labels.shape[1], device=weight.device)
            every[:, columns] = weight
            self.best_.offer(precisions, partial(_kernel_scores, scaling, directions, phases, mean, every))

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


def _median_distance(inputs: Tensor, generator: torch.Generator, pairs: int = 2000) -> float:
    """Median distance of random pairs of rows; 1 where all rows are the same."""
    first, second = torch.randint(len(inputs), (2, pairs), generator=generator).to(inputs.device)
    distance = (inputs[first] - inputs[second]).norm(dim=1)
    distance = distance[distance > 0]
    return float(distance.median()) if len(distance) else 1.0


def _kernel_scores(
    scaling: Scaling, directions: Tensor, phases: Tensor, mean: Tensor, weight: Tensor, features: np.ndarray
) -> np.ndarray:  # [N, D] -> [N, A]
    return ((_mapped(scaling(features), directions, phases) - mean) @ weight).cpu().numpy()


def _gram(rows: Tensor, block: int = 256) -> Tensor:  # [N, F] -> [F, F]
    """rows.T @ rows, whose halves mirror each other and are computed once."""
    gram = rows.new_empty(rows.shape[1], rows.shape[1])
    for start in range(0, rows.shape[1], block):
        part = rows[:, start:].T @ rows[:, start : start + block]  # [F - start, block]
        gram[start:, start : start + block] = part
        gram[start : start + block, start:] = part.T
    return gram


def _mapped(inputs: Tensor, directions: Tensor, phases: Tensor) -> Tensor:  # [N, d], [d, F], [F] -> [N, F]
    return torch.cos(torch.addmm(phases, inputs, directions)).mul_((2 / len(phases)) ** 0.5)
