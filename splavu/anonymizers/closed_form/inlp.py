"""Iterative nullspace projection (INLP): fit a linear classifier, project out its direction, and repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from splavu.anonymizers.closed_form.covariance import deviations
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.anonymizers.closed_form.projection import Projection, affine, describe_affine
from splavu.runtime.schema import Count, Schema

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.affine import AffineAnonymizer


SMALLEST_SPREAD = 1e-7
"""Deviations below this share of the largest are rounding."""


def inlp(features: NDArray, labels: NDArray, *, rounds: int = 8, penalty: float = 1.0) -> Projection:
    """Remove, in each round, the direction by which logistic regression predicts each attribute.

    Args:
        features: [N, D].
        labels: [N] or [N, A] of 0 and 1. A constant attribute is skipped.
        rounds: Each removes as many directions as there are attributes.
        penalty: C of scikit-learn's logistic regression, on standardised features.

    Source: Ravfogel et al. 2020, "Null it out: guarding protected attributes by iterative nullspace projection",
    algorithm 1, with the projection on the intersection of the nullspaces.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    labels = np.asarray(labels).reshape(len(labels), -1)
    mean = features.mean(axis=0, dtype=np.float64)
    spread = deviations(features)
    scale = np.where(spread > SMALLEST_SPREAD * spread.max(), spread, np.inf)  # a constant dimension predicts nothing
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
        found = [line for line in found if line.any()]  # on what is left, an attribute may not be predicted at all
        if not found or removed.shape[1] + len(found) >= width:
            break
        removed, _ = np.linalg.qr(np.column_stack([removed, *(line / np.linalg.norm(line) for line in found)]))
    return Projection.of_matrix(np.eye(width) - removed @ removed.T, mean, rank=removed.shape[1])


@dataclass(frozen=True)
class InlpOptions(Schema):
    """Of INLP."""

    rounds: Annotated[Count, About("each removes as many directions as there are attributes")] = 8


def _fit(data: FitData, options: InlpOptions, seed: int | None) -> AffineAnonymizer:
    return affine(inlp(data.features, data.needed("private"), rounds=options.rounds), "inlp")


INLP = ClosedForm(
    "inlp",
    "removes, in each round, the direction by which a linear classifier predicts each private attribute",
    fit=_fit,
    options=InlpOptions,
    needs=("private",),
    describe=describe_affine,
)
