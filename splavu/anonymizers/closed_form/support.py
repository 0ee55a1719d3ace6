"""How many people stand behind a centroid, and codebooks in which a least number stands behind each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COMMON_FLOOR = 5
"""Fitted subjects behind each centroid by default. With a lower floor, clips that were fitted to are not released."""
CHUNK_ROWS = 8192
"""Rows whose distances to all centroids are in memory at once."""


@dataclass(frozen=True)
class Support:
    """Whom the centroids of a quantizer stand for."""

    unit: str
    """What was counted: 'subject', 'video' or 'clip'."""
    at_least: int
    """The floor that was asked for."""
    placed: str
    """How centroids were placed: 'levels' or 'k-means'."""
    histogram: tuple[dict[int, int], ...]
    """Of each codebook: units that support a centroid -> number of such centroids."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Support:
        """Of what an architecture keeps."""
        histogram = tuple({int(units): int(count) for units, count in one} for one in record["histogram"])
        return cls(record["unit"], record["at_least"], record["placed"], histogram)

    @property
    def record(self) -> dict[str, Any]:
        """As architectures keep it: plain values, a histogram as pairs."""
        pairs = [[list(pair) for pair in sorted(one.items())] for one in self.histogram]
        return {"unit": self.unit, "at_least": self.at_least, "placed": self.placed, "histogram": pairs}

    @property
    def fewest(self) -> int:
        """Units behind the centroid that has the fewest."""
        return min(min(one) for one in self.histogram)

    def __str__(self) -> str:
        most = max(max(one) for one in self.histogram)
        return f"{self.fewest} to {most} {self.unit}s" if self.fewest < most else f"{most} {self.unit}s"


def nearest_centroid(points: Array, centroids: Array) -> NDArray[np.int64]:  # [N, d], [K, d] -> [N]
    """The number of each point's nearest centroid, as a quantizer chooses it."""
    squares = np.square(centroids).sum(axis=1)
    found = [
        (squares - 2 * points[start : start + CHUNK_ROWS] @ centroids.T).argmin(axis=1)
        for start in range(0, len(points), CHUNK_ROWS)
    ]
    return np.concatenate(found)


def supporters(chosen: NDArray[np.int64], owners: NDArray[np.int64], count: int) -> NDArray[np.int64]:  # [N], [N]
    """Different owners of each of `count` centroids; an owner of -1 isn't known and doesn't count. [count]"""
    known = owners >= 0
    width = int(owners.max(initial=0)) + 1
    pairs = np.unique(chosen[known] * width + owners[known])
    return np.bincount(pairs // width, minlength=count)


def merge_until_supported(
    points: Array, centroids: Array, owners: NDArray[np.int64], at_least: int
) -> Array:  # [N, d], [K, d], [N] -> [K', d]
    """The centroids, merged until each is the nearest of points of `at_least` owners, or one is left.

    The centroid with the fewest owners joins the one nearest to it, at their mean weighted by points. Each merge costs
    one pass over the points and, for those that it sets free, one over the centroids.

    Args:
        points: What is quantized.
        centroids: To begin with.
        owners: Whose each point is, a number; -1 for unknown, which supports nothing.
        at_least: The floor.

    Returns:
        Values that float32 holds, as a quantizer keeps them.
    """
    centroids = centroids.astype(np.float32).astype(np.float64)
    while True:
        before = len(centroids)
        centroids = _merged(points, centroids, owners, at_least)
        if len(centroids) == before:  # counted from scratch, each has its supporters
            return centroids


def _merged(points: Array, centroids: Array, owners: NDArray[np.int64], at_least: int) -> Array:
    centroids, left = centroids.copy(), np.arange(len(centroids))
    chosen = nearest_centroid(points, centroids)
    distances = np.square(points - centroids[chosen]).sum(axis=1)
    support = supporters(chosen, owners, len(centroids))
    while len(left) > 1 and support[left].min() < at_least:
        weakest = left[support[left].argmin()]
        left = left[left != weakest]
        heir = left[np.square(centroids[left] - centroids[weakest]).sum(axis=1).argmin()]
        free = np.flatnonzero((chosen == weakest) | (chosen == heir))
        weights = np.array([(chosen == weakest).sum(), (chosen == heir).sum()], np.float64)
        if weights.any():
            merged = weights @ centroids[[weakest, heir]] / weights.sum()
            centroids[heir] = merged.astype(np.float32)
        to_heir = np.square(points - centroids[heir]).sum(axis=1)
        drawn = np.flatnonzero(to_heir < distances)
        touched = np.unique(np.concatenate([chosen[drawn], [weakest, heir]]))
        chosen[drawn] = heir
        distances[drawn] = to_heir[drawn]
        if len(free):
            chosen[free] = left[nearest_centroid(points[free], centroids[left])]
            distances[free] = np.square(points[free] - centroids[chosen[free]]).sum(axis=1)
            touched = np.union1d(touched, chosen[free])
        rows = np.isin(chosen, touched)
        support[touched] = supporters(chosen[rows], owners[rows], len(centroids))[touched]
    return centroids[left]


def histogram_of(support: Sequence[int] | NDArray[np.int64]) -> dict[int, int]:
    """Supporters -> number of centroids that have so many."""
    values, counts = np.unique(np.asarray(support), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
