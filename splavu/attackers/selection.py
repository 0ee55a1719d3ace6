"""What all families share: for each attribute they keep the candidate with the best validation AP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Labelled = tuple[np.ndarray, np.ndarray]  # features [N, D], labels [N, A]
Scorer = Callable[[Any], np.ndarray]  # features [N, D], or N sets of clips -> [N, A]


class BestPerAttribute:
    """For each attribute, the candidate with the best validation average precision; a tie keeps the earlier."""

    def __init__(self, num_attributes: int) -> None:
        self.precision = np.full(num_attributes, -1.0)
        self.scorer: list[Scorer | None] = [None] * num_attributes

    def improved_by(self, precisions: np.ndarray) -> np.ndarray:  # [A] -> [A] of bool
        return np.nan_to_num(precisions, nan=-1.0) > self.precision

    def offer(self, precisions: np.ndarray, scorer: Scorer) -> None:
        better = self.improved_by(precisions)
        self.precision = np.where(better, precisions, self.precision)
        self.scorer = [scorer if wins else kept for wins, kept in zip(better, self.scorer, strict=True)]

    def scores(self, features: Any) -> np.ndarray:  # as the scorers take them, N rows -> [N, A]
        """Scores of each attribute's winner, 0 for an attribute that validation could not evaluate."""
        result = np.zeros((len(features), len(self.scorer)), dtype=np.float32)
        answers = {id(scorer): scorer(features) for scorer in self.scorer if scorer is not None}
        for attribute, scorer in enumerate(self.scorer):
            if scorer is not None:
                answer = answers[id(scorer)]
                result[:, attribute] = answer if answer.ndim == 1 else answer[:, attribute]
        return result


def known_labels(labels: np.ndarray, device: torch.device | str) -> tuple[Tensor, Tensor]:  # [N, A] -> [N, A], [N, A]
    """Which labels are known, as weights of 1 and 0, and the labels with 0 for the unknown."""
    values = torch.as_tensor(labels, dtype=torch.float32, device=device)
    return (~values.isnan()).float(), values.nan_to_num()


def log_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:  # [N, A] each -> []
    """Sum over attributes of the mean log loss over the rows whose label is known."""
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((losses * known).sum(dim=0) / known.sum(dim=0).clamp_min(1)).sum()
