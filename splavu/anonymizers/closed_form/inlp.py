"""Iterative nullspace projection: find the best straight line, remove it, and again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splavu.anonymizers.closed_form.covariance import deviations
from splavu.anonymizers.closed_form.projection import Projection


def inlp(features: NDArray, labels: NDArray, *, rounds: int = 8, penalty: float = 1.0) -> Projection:
    """Remove, round after round, the direction by which logistic regression tells each attribute.

    Args:
        features: [N, D].
        labels: [N] or [N, A] of 0 and 1. An attribute that is constant is passed over.
        rounds: Each removes as many directions as there are attributes.
        penalty: C of scikit-learn's logistic regression, on standardised features.

    Source: Ravfogel et al. 2020, "Null it out: guarding protected attributes by iterative nullspace projection",
    algorithm 1, with the projection on the intersection of the nullspaces.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    labels = np.asarray(labels).reshape(len(labels), -1)
    mean = features.mean(axis=0, dtype=np.float64)
    scale = np.maximum(deviations(features), np.finfo(np.float32).tiny)
    centered = features - mean
    width = len(mean)
    removed = np.zeros((width, 0))
    for _ in range(rounds):
        kept = np.eye(width) - removed @ removed.T
        shown = centered @ kept / scale
        found = [
            LogisticRegression(C=penalty, max_iter=300).fit(shown, column).coef_[0] / scale @ kept
            for column in labels.T
            if len(np.unique(column)) > 1
        ]
        if not found or removed.shape[1] + len(found) >= width:
            break
        removed, _ = np.linalg.qr(np.column_stack([removed, *(line / np.linalg.norm(line) for line in found)]))
    return Projection.of_matrix(np.eye(width) - removed @ removed.T, mean, rank=removed.shape[1])
