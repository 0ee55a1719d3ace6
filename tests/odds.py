"""Equalised odds of one class against the rest, straight from its definition, with scikit-learn's rates."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import recall_score


def equalized_odds_difference(actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> float:
    """The larger of the groups' spans of true and of false positive rate; a rate without rows counts as 0.

    Args:
        actual: [N] bool.
        predicted: [N] bool.
        groups: [N].

    Source: Hardt, Price and Srebro 2016; the same values as the function of this name in fairlearn 0.15.
    """
    spans = []
    for is_row in (actual, ~actual):  # predictions among positives, among negatives
        rates = [
            recall_score(is_row[groups == name], predicted[groups == name], zero_division=0)
            for name in np.unique(groups)
        ]
        spans.append(max(rates) - min(rates))
    return max(spans)
