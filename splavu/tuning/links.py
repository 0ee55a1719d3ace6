"""Linkage in seconds: how often the most similar other row is of the same subject, or of the same video.

Shapes: N rows, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu.audit.identity.similarity import Metric, cosines, some_people, strongest_metric
from splavu.errors import UserError

MOST_COMPARED = 300
"""Validation rows that a metric is chosen by."""
MOST_LINKED = 3000
"""Rows that are linked, of more whole owners are drawn."""


@dataclass(frozen=True)
class Links:
    """Of each row that has a mate, whether the most similar row is one."""

    rows: np.ndarray
    """[n] which rows."""
    hits: np.ndarray
    """[n] 0 to 1: the share of mates among equally similar rows."""
    luck: np.ndarray
    """[n] the same of a row drawn at random."""
    metric: str


def nearest_mates(similarity: np.ndarray, mated: np.ndarray, met: np.ndarray, metric: str) -> Links:  # [N, N] each
    """Rank-1 of every row, as `splavu.audit.identity.linkage` counts it.

    Args:
        similarity: Higher is more alike.
        mated: Pairs of one owner.
        met: Pairs that are compared.
        metric: Name of the similarity.
    """
    mates = (mated & met).sum(axis=1)
    rows = np.flatnonzero(mates)
    compared = np.where(met, similarity, -np.inf)[rows]
    tied = met[rows] & (compared == compared.max(axis=1, keepdims=True))
    return Links(rows, (tied & mated[rows]).sum(axis=1) / tied.sum(axis=1), mates[rows] / met[rows].sum(axis=1), metric)


def learnt_metric(
    features: np.ndarray, owners: np.ndarray, held: np.ndarray, names: np.ndarray | None = None
) -> Metric | None:  # [N, d], [N], [N] of bool, [N]
    """The strongest of several metrics: trained on some owners, chosen on others. None where no owner has two rows.

    Args:
        features: Of people who are not linked later.
        owners: Whose each row is.
        held: Rows that metrics are chosen by, of other owners.
        names: Held rows of one name aren't compared; by default each with itself alone.
    """
    chosen = np.flatnonzero(held)
    chosen = chosen[some_people(owners[chosen], MOST_COMPARED)]
    try:
        return strongest_metric(
            features[~held],
            owners[~held].tolist(),
            (features[chosen], owners[chosen].tolist()),
            exclude=None if names is None else names[chosen].tolist(),
        )
    except UserError:  # one row each, or no two rows of an owner
        return None


def linked(features: np.ndarray, owners: np.ndarray, metric: Metric, apart: np.ndarray, alike: np.ndarray) -> Links:
    """Link rows by a metric.

    Args:
        features: [N, d]
        owners: [N] whom to find.
        metric: Of `learnt_metric`.
        apart: [N] rows of the same name are not compared.
        alike: [N] rows of different names are not compared.
    """
    similarity = cosines(metric.probes(features), metric.gallery(features))
    met = (apart[:, None] != apart[None]) & (alike[:, None] == alike[None])
    return nearest_mates(similarity, owners[:, None] == owners[None], met, metric.name)
