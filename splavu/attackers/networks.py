"""What attackers that are neural networks share: recipes, the training loop and the choice by validation subjects."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from splavu.attackers.scaling import SCALINGS, Scaling
from splavu.attackers.selection import BestPerAttribute, known_labels, log_loss
from splavu.metrics import average_precisions, mean_known

RECIPES = (("standardise", 1e-3, 1e-1), ("whiten", 1e-3, 1.0))


class Dropout(nn.Module):
    """`nn.Dropout` from uniform numbers, which torch draws several times faster on a CPU than Bernoulli's."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        return values * (torch.rand_like(values) >= self.share).mul(1 / (1 - self.share))


class NetworkAttacker(ABC):
    """A network for all attributes at once, by AdamW; a subclass says which network, and how its inputs are made.

    Each attribute keeps the recipe and epoch of its best validation average precision. A recipe is (scaling, learning
    rate, weight decay) and stops after `patience` epochs without a better validation cMAP. Stochastic: `seed` draws the
    first weights, dropout and the order of rows, and the generator of the caller is left as it was.
    """

    def __init__(
        self,
        *,
        recipes: tuple[tuple[str, float, float], ...],
        batch_size: int,
        max_epochs: int,
        patience: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.recipes, self.batch_size, self.max_epochs, self.patience = recipes, batch_size, max_epochs, patience
        self.seed, self.device = seed, device

    @abstractmethod
    def build(self, feature_dim: int, num_attributes: int) -> nn.Module:
        """A new network, which takes what `batch` gives and returns logits [B, A]."""

    def clips(self, features: Any) -> np.ndarray:
        """The clips [N, D] that the scaling is fitted to."""
        return features

    def inputs(self, scaling: Scaling, features: Any) -> tuple[Tensor, ...]:
        """The network's inputs for all rows; the first has the scaled feature as its last dimension."""
        return (scaling(features),)

    def batch(self, inputs: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """The inputs of some rows in training."""
        return tuple(values[rows] for values in inputs)

    def fit(self, features: Any, labels: np.ndarray, validation: tuple[Any, np.ndarray]) -> NetworkAttacker:
        """Train on training subjects (labels [N, A]), tune on validation subjects, return self."""
        self.best_ = BestPerAttribute(labels.shape[1])
        known, target = known_labels(labels, self.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for name, learning_rate, weight_decay in self.recipes:
                scaling = SCALINGS[name](self.clips(features), self.device)
                inputs = self.inputs(scaling, features)
                network = self.build(inputs[0].shape[-1], labels.shape[1]).to(inputs[0].device)
                optimizer = torch.optim.AdamW(
                    network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True
                )
                self._train(network, optimizer, scaling, inputs, target, known, validation)
        return self

    def _train(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaling: Scaling,
        inputs: tuple[Tensor, ...],
        target: Tensor,
        known: Tensor,
        validation: tuple[Any, np.ndarray],
    ) -> None:
        held_out = self.inputs(scaling, validation[0])
        best, waited = -1.0, 0
        for _ in range(self.max_epochs):
            network.train()
            for rows in torch.randperm(len(target)).to(target.device).split(self.batch_size):
                optimizer.zero_grad(set_to_none=True)
                log_loss(network(*self.batch(inputs, rows)), target[rows], known[rows]).backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                precisions = average_precisions(validation[1], network(*held_out).cpu().numpy())
            if self.best_.improved_by(precisions).any():
                self.best_.offer(precisions, partial(self._network_scores, scaling, copy.deepcopy(network)))
            mean = float(np.nan_to_num(mean_known(precisions)))
            best, waited = (mean, 0) if mean > best else (best, waited + 1)
            if waited >= self.patience:
                break

    @torch.no_grad()
    def _network_scores(self, scaling: Scaling, network: nn.Module, features: Any) -> np.ndarray:  # -> [N, A]
        return network.eval()(*self.inputs(scaling, features)).cpu().numpy()

    def scores(self, features: Any) -> np.ndarray:  # -> [N, A]
        """Higher means more likely; comparable within an attribute only."""
        return self.best_.scores(features)
