"""Neural attackers: networks with unbounded logits, stopped on validation subjects."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from splavu.attackers.scaling import SCALINGS, Scaling
from splavu.attackers.selection import BestPerAttribute, Labelled, known_labels, log_loss
from splavu.metrics import average_precisions, mean_known


class MLPAttacker:
    """ReLU network with unbounded logits for all attributes at once, by AdamW.

    Each attribute keeps the recipe and epoch of its best validation average precision. A recipe is (scaling, learning
    rate, weight decay) and stops after `patience` epochs without a better validation cMAP. Stochastic: `seed` draws the
    first weights, dropout and the order of rows, and the generator of the caller is left as it was.
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (256,),
        recipes: tuple[tuple[str, float, float], ...] = (("standardise", 1e-3, 1e-1), ("whiten", 1e-3, 1.0)),
        dropout: float = 0.3,
        batch_size: int = 256,
        max_epochs: int = 40,
        patience: int = 4,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.hidden, self.recipes, self.dropout = hidden, recipes, dropout
        self.batch_size, self.max_epochs, self.patience = batch_size, max_epochs, patience
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> MLPAttacker:
        self.best_ = BestPerAttribute(labels.shape[1])
        known, target = known_labels(labels, self.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for name, learning_rate, weight_decay in self.recipes:
                scaling = SCALINGS[name](features, self.device)
                self._train(scaling, features, target, known, validation, learning_rate, weight_decay)
        return self

    def _train(
        self,
        scaling: Scaling,
        features: np.ndarray,
        target: Tensor,
        known: Tensor,
        validation: Labelled,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        inputs, held_out = scaling(features), scaling(validation[0])
        network = _network(inputs.shape[1], self.hidden, target.shape[1], self.dropout).to(inputs.device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        best, waited = -1.0, 0
        for _ in range(self.max_epochs):
            network.train()
            for rows in torch.randperm(len(inputs)).to(inputs.device).split(self.batch_size):
                optimizer.zero_grad(set_to_none=True)
                log_loss(network(inputs[rows]), target[rows], known[rows]).backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                precisions = average_precisions(validation[1], network(held_out).cpu().numpy())
            if self.best_.improved_by(precisions).any():
                self.best_.offer(precisions, partial(_network_scores, scaling, copy.deepcopy(network)))
            mean = float(np.nan_to_num(mean_known(precisions)))
            best, waited = (mean, 0) if mean > best else (best, waited + 1)
            if waited >= self.patience:
                break

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


def _network(num_inputs: int, hidden: tuple[int, ...], num_outputs: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(num_inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        num_inputs = width
    return nn.Sequential(*layers, nn.Linear(num_inputs, num_outputs))


@torch.no_grad()
def _network_scores(scaling: Scaling, network: nn.Module, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
    return network.eval()(scaling(features)).cpu().numpy()
