"""Neural attackers: networks with unbounded logits, stopped on validation subjects."""

from __future__ import annotations

import torch
from torch import nn

from splavu.attackers.networks import RECIPES, Dropout, NetworkAttacker


class MLPAttacker(NetworkAttacker):
    """ReLU network with unbounded logits for all attributes at once, trained and chosen as `NetworkAttacker` says."""

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (256,),
        recipes: tuple[tuple[str, float, float], ...] = RECIPES,
        dropout: float = 0.3,
        batch_size: int = 256,
        max_epochs: int = 40,
        patience: int = 4,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            recipes=recipes, batch_size=batch_size, max_epochs=max_epochs, patience=patience, seed=seed, device=device
        )
        self.hidden, self.dropout = hidden, dropout

    def build(self, feature_dim: int, num_attributes: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in self.hidden:
            layers += [nn.Linear(feature_dim, width), nn.ReLU(), Dropout(self.dropout)]
            feature_dim = width
        return nn.Sequential(*layers, nn.Linear(feature_dim, num_attributes))
