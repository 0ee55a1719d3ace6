"""What an anonymizer was fitted to, as its checkpoint keeps it: which clips, and where in feature space they lie.

`anonymize` asks two questions of what it is given: was the anonymizer fitted to some of it, so that its guarantees
don't hold for them; and does it lie where the fitted features lie, or does it come from another encoder or domain.

Note: with a raw clip and this record anyone can decide whether the clip was fitted to. The record stays in the
checkpoint: `save_pretrained` hands on the place in feature space alone (`FeatureMap`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_ROWS = 10_000
"""Of the fitted rows, evenly taken, that a map is drawn from."""
DIRECTIONS = 32
FOLDS = 5
FAR = 0.99
"""Quantile of the fitted rows beyond which a row lies off the map."""
MOST_FAR = 0.5
"""Share of rows off the map from which on another encoder or domain is likely. Of rows of the same encoder it was at
most 0.28 (unseen people, actions and cameras of the synthetic world 0.11; gym exercises that it wasn't fitted to 0.28),
of rotated or permuted features at least 0.68 (`benchmarks/off_the_map.py`)."""
FEWEST_FAR = 3
"""Rows that must be off the map before anything is concluded."""
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class FeatureMap:
    """Where the fitted features lie: a Gaussian with a few principal directions and equal variance in all others.

    Source: probabilistic PCA, Tipping and Bishop 1999, with the largest principal variances.
    """

    mean: NDArray[np.float32]  # [D]
    directions: NDArray[np.float32]  # [p, D]
    variances: NDArray[np.float32]  # [p]
    rest: float
    """Variance in each of the D - p other directions."""
    median: float
    """Of the squared distances of fitted rows, each from the map of other people's rows."""
    limit: float
    """The quantile `FAR` of the same."""

    @classmethod
    def of(cls, features: NDArray[np.float32], owners: NDArray[np.int64]) -> FeatureMap | None:  # [N, D], [N]
        """The map of some rows; None where they are too few or all the same.

        Args:
            features: Raw, as they go into the anonymizer.
            owners: Whose each row is: the quantiles are of rows whose owner the map didn't see.
        """
        if len(features) > MOST_ROWS:
            taken = np.linspace(0, len(features) - 1, MOST_ROWS).round().astype(np.int64)
            features, owners = features[taken], owners[taken]
        fold = np.unique(owners, return_inverse=True)[1] % FOLDS
        if len(np.unique(fold)) < FOLDS or np.ptp(features, axis=0).max() == 0:
            return None
        drawn = _drawn(features)
        distances = np.concatenate(
            [_drawn(features[fold != number]).squared(features[fold == number]) for number in range(FOLDS)]
        )
        median, limit = (float(value) for value in np.quantile(distances, (0.5, FAR)))
        return replace(drawn, median=median, limit=limit)

    def squared(self, rows: NDArray) -> Array:  # [N, D] -> [N]
        """Squared Mahalanobis distance from the mean, by dimension: about 1 on the map."""
        centered = rows.astype(np.float64) - self.mean
        places = centered @ self.directions.T.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # values that aren't finite are refused by their reader
            others = np.maximum(np.square(centered).sum(axis=1) - np.square(places).sum(axis=1), 0)
        return (np.square(places) @ (1 / self.variances.astype(np.float64)) + others / self.rest) / rows.shape[1]

    def distances(self, rows: NDArray) -> Array:  # [N, D] -> [N]
        """In units of the fitted rows' median: 1 is as far as they are."""
        return self.squared(rows) / self.median

    @property
    def far(self) -> float:
        """The distance beyond which a row lies off the map."""
        return self.limit / self.median

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """As files keep it."""
        return {one.name: torch.as_tensor(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> FeatureMap:
        """Of what `tensors` gave."""
        mean, directions, variances = (tensors[name].cpu().numpy() for name in ("mean", "directions", "variances"))
        rest, median, limit = (float(tensors[name]) for name in ("rest", "median", "limit"))
        return cls(mean, directions, variances, rest, median, limit)


@dataclass(frozen=True)
class FittedTo:
    """What an anonymizer was fitted to."""

    hashes: NDArray[np.uint64]
    """Sorted, of the rows; see `row_hashes`. Empty where they weren't kept."""
    share: float
    """Of the rows of the fitted videos that are among them."""
    map: FeatureMap | None

    @classmethod
    def of(cls, features: NDArray[np.float32], owners: NDArray[np.int64], *, share: float = 1.0) -> FittedTo:
        """Of raw rows [N, D] and whose they are, [N]."""
        return cls(np.unique(row_hashes(features)), share, FeatureMap.of(features, owners))

    def and_before(self, other: FittedTo | None) -> FittedTo:
        """With the clips of an anonymizer that comes first in a chain, too."""
        if other is None:
            return self
        return replace(self, hashes=np.union1d(self.hashes, other.hashes), share=min(self.share, other.share))

    def holds(self, rows: NDArray[np.float32]) -> NDArray[np.bool_]:  # [N, D] -> [N]
        """Whether each row is among those fitted to."""
        return np.isin(row_hashes(rows), self.hashes)

    @property
    def record(self) -> dict[str, Any]:
        """Tensors and numbers, as checkpoints keep it."""
        hashes = torch.from_numpy(self.hashes.view(np.int64))
        return {"hashes": hashes, "share": self.share, "map": None if self.map is None else self.map.tensors}

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> FittedTo | None:
        """Of what `record` gave; None of None."""
        if record is None:
            return None
        found = None if record["map"] is None else FeatureMap.from_tensors(record["map"])
        return cls(record["hashes"].cpu().numpy().view(np.uint64), float(record["share"]), found)

    @classmethod
    def of_map(cls, tensors: Mapping[str, torch.Tensor]) -> FittedTo:
        """The place in feature space alone."""
        return cls(np.zeros(0, np.uint64), 1.0, FeatureMap.from_tensors(tensors))


def row_hashes(rows: NDArray[np.float32]) -> NDArray[np.uint64]:  # [N, D] -> [N]
    """A number of 64 bits for the content of each row: the same for the same float32 values, whatever their key.

    Source: multilinear hashing (Lemire and Kaser 2014, "Strongly universal string hashing is fast"), then the last
    steps of MurmurHash3.
    """
    factors = _factors(rows.shape[1])
    found = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS].astype("<f4") + np.float32(0)  # makes -0 and 0 the same bits
        words = np.ascontiguousarray(chunk).view("<u4").astype(np.uint64)
        mixed = words @ factors
        for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53), (33, 1)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        found.append(mixed)
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


@cache
def _factors(width: int) -> NDArray[np.uint64]:  # [D]
    """Odd numbers, the same everywhere."""
    content = hashlib.shake_256(b"splavu row hash").digest(8 * width)
    return np.frombuffer(content, dtype="<u8").astype(np.uint64) | np.uint64(1)


def _drawn(features: NDArray) -> FeatureMap:  # [N, D]
    """The map without its quantiles."""
    from sklearn.utils.extmath import randomized_svd  # takes a second to import

    mean = features.mean(axis=0, dtype=np.float64)
    centered = features - mean
    num_rows, width = centered.shape
    count = max(1, min(DIRECTIONS, width - 1, num_rows // 4))
    _, values, directions = randomized_svd(centered, count, random_state=0)
    variances = np.square(values) / num_rows
    total = np.square(centered).sum() / num_rows
    # No direction is taken for flatter than a millionth of the spread: float32 features aren't either.
    rest = max((total - variances.sum()) / max(width - count, 1), 1e-6 * total / width)
    mean, directions, variances = (
        np.ascontiguousarray(part, np.float32) for part in (mean, directions, np.maximum(variances, rest))
    )
    return FeatureMap(mean, directions, variances, float(rest), 1.0, 1.0)
