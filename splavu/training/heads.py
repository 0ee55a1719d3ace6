"""Heads that read a feature: the linear utility head and the paper's privacy head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LinearHead(nn.Linear):
    """The utility head for action recognition: `[..., D] -> [..., C]` logits by one linear layer."""


class PrivacyHead(nn.Module):
    """Linear-ReLU-Linear, `[B, D] -> [B, A]`, the paper's privacy head.

    Args:
        feature_dim: D.
        num_outputs: A attributes, or the width of a projection.
        hidden: Width of the hidden layer; None is D.
        normalise: Scale the outputs to unit length, as the reference does before the logistic loss. That bounds every
            logit by 1 and makes a weak attacker: use it to reproduce the published protocol, not to judge privacy.
    """

    def __init__(
        self, feature_dim: int, num_outputs: int = 7, *, hidden: int | None = None, normalise: bool = False
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(feature_dim, hidden or feature_dim)
        self.fc2 = nn.Linear(hidden or feature_dim, num_outputs)
        self.normalise = normalise

    def forward(self, features: Tensor) -> Tensor:
        logits = self.fc2(F.relu(self.fc1(features)))
        return F.normalize(logits, dim=-1) if self.normalise else logits
