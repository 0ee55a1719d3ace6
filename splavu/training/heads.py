"""Heads that read a feature: the linear utility head, the paper's privacy head, gradient reversal for adversaries."""

from __future__ import annotations

import torch
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


def reverse_gradient(features: Tensor) -> Tensor:  # any shape -> the same values
    """The identity, whose gradient changes its sign: the head behind it minimises a loss that the network before it
    maximises.

    Source: the gradient reversal layer of Ganin and Lempitsky 2015, strength 1.
    """
    return _Reversed.apply(features)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient
