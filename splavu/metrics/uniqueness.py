"""How many released vectors one subject alone has: an attacker who knows such a vector has found that subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SingleSubjectVectors:
    """Distinct vectors of a release, and those that one subject alone has."""

    num_vectors: int
    of_vectors: float
    """Share of the distinct vectors that one subject alone has."""
    of_clips: float
    """Share of the clips whose vector one subject alone has."""


def single_subject_vectors(features: np.ndarray, subjects: Sequence) -> SingleSubjectVectors:  # [N, D], [N]
    """Count vectors by who has them; vectors are equal bit for bit."""
    vector = distinct_rows(features)
    of_vector = _subjects_of(vector, np.asarray(subjects))
    return SingleSubjectVectors(len(of_vector), float(np.mean(of_vector == 1)), float(np.mean(of_vector[vector] == 1)))


def distinct_rows(features: np.ndarray) -> np.ndarray:  # [N, D] -> [N]
    """The number of each row among the distinct rows."""
    rows = np.ascontiguousarray(features)
    return np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel(), return_inverse=True)[
        1
    ]


def _subjects_of(vector: np.ndarray, subjects: np.ndarray) -> np.ndarray:  # [N], [N] -> [number of vectors]
    """How many subjects have each vector."""
    subject = np.unique(subjects, return_inverse=True)[1]
    both = np.unique(np.stack([vector, subject]), axis=1)
    return np.bincount(both[0], minlength=int(vector.max()) + 1)
