"""How many of the released vectors are one subject's alone: who has such a vector is singled out by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VectorOwners:
    """Of a release."""

    vectors: int
    """Released vectors that differ."""
    of_one: int
    """Of them, those that only one owner has."""
    clips: int
    """Released clips."""
    clips_of_one: int
    """Of them, those whose vector only one owner has."""

    @property
    def share(self) -> float:
        """Of the released vectors, those that only one owner has: 0 to 1, lower is better."""
        return self.of_one / self.vectors

    @property
    def clip_share(self) -> float:
        """Of the released clips, those whose vector only one owner has."""
        return self.clips_of_one / self.clips


def vector_owners(vectors: NDArray, owners: NDArray) -> VectorOwners:  # [N, D] or [N], [N]
    """Count the released vectors that only one owner has.

    For an audit: the released rows of the test subjects (`AttackData.features`) and their subjects (`clusters`). Owners
    may be videos where nobody knows the subjects. Vectors are compared bit by bit.

    Args:
        vectors: Released rows, float32; or a number that stands for each, such as a hash.
        owners: Whose each row is; any values.

    Raises:
        ValueError: There is no row, or the lengths differ.
    """
    if len(vectors) != len(owners) or not len(vectors):
        raise ValueError(f"{len(vectors)} vectors and {len(owners)} owners")
    vector = distinct_rows(vectors) if vectors.ndim > 1 else np.unique(vectors, return_inverse=True)[1]
    _, owner = np.unique(owners, return_inverse=True)
    pairs = np.unique(vector.astype(np.int64) * (int(owner.max()) + 1) + owner)
    owners_of = np.bincount(pairs // (int(owner.max()) + 1))
    alone = owners_of == 1
    return VectorOwners(len(owners_of), int(alone.sum()), len(vector), int(alone[vector].sum()))


def distinct_rows(rows: NDArray) -> NDArray[np.intp]:  # [N, D] -> [N]
    """The number of each row among the distinct rows, compared bit by bit."""
    rows = np.ascontiguousarray(rows)
    as_one = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(as_one, return_inverse=True)[1]
