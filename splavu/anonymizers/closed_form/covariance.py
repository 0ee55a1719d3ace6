"""How features spread: covariances, with the powers of them that whitening takes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splavu.errors import UserError

Units = Literal["dimension", "whitened"]
"""What one unit of noise is: each dimension's own deviation, or the root of the covariance."""

Array = NDArray[np.float64]

SMALLEST_SHARE = 1e-7
"""Variances below this share of the largest count as none: float32 features tell no smaller ones from rounding."""


def covariance(features: NDArray) -> Array:  # [N, D] -> [D, D]
    """With the number of rows in the denominator."""
    centered = features - features.mean(axis=0, dtype=np.float64)
    return centered.T @ centered / len(features)


def whitening(scatter: Array, *, ridge: float = 0.0) -> tuple[Array, Array]:  # [D, D] -> [D, D], [D, D]
    """(scatter^-1/2, scatter^1/2), pseudo-inverse where there is no variance.

    Args:
        scatter: A covariance.
        ridge: Added to every variance, as a share of their mean: for fewer rows than a few times D.
    """
    values, vectors = np.linalg.eigh(scatter)
    values = values + ridge * values.mean()
    real = values > SMALLEST_SHARE * values.max()
    if not real.any():
        raise UserError("features", "are all the same: nothing can be told of their directions", "give more videos")
    roots = np.sqrt(np.where(real, values, 1.0))
    inverse = np.where(real, 1 / roots, 0.0)
    return (vectors * inverse) @ vectors.T, (vectors * np.where(real, roots, 0.0)) @ vectors.T


def covariance_root(features: NDArray) -> Array:  # [N, D] -> [D, D]
    """The symmetric square root of the covariance."""
    return whitening(covariance(features))[1]


def deviations(features: NDArray) -> Array:  # [N, D] -> [D]
    """Standard deviation of each dimension."""
    return features.std(axis=0, dtype=np.float64)


def class_residuals(values: NDArray, classes: NDArray) -> Array:  # [N, Q], [N] -> [N, Q]
    """`values` less the mean of their class."""
    _, index = np.unique(classes, return_inverse=True)
    sums = np.zeros((index.max() + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return values - (sums / np.bincount(index)[:, None])[index]
