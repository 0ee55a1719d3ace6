"""Codebooks that don't remember whom they were fitted to: levels of a normal distribution along fixed directions.

K-means puts centroids where the fitted clips are, so a fitted clip is nearer to its code than a stranger's, and who was
fitted is read from that distance. Levels are placed by one number per direction, its standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_LEVELS = 64
"""Along one direction."""
SETTLED = 1e-9
"""Lloyd's iteration ends when no level moves by more."""


@cache
def normal_levels(count: int) -> tuple[tuple[float, ...], float]:
    """The `count` levels that quantize a standard normal number with the least squared error, and that error.

    Source: Max 1960, "Quantizing for minimum distortion", by Lloyd's iteration from the levels of large counts.
    """
    from scipy.special import ndtr, ndtri  # takes a while to import

    levels, moved = np.sqrt(3) * ndtri((np.arange(count) + 0.5) / count), np.inf
    while moved > SETTLED:
        ends = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        shares = np.diff(ndtr(ends))
        means = -np.diff(np.exp(-np.square(ends) / 2) / np.sqrt(2 * np.pi)) / shares
        levels, moved = means, np.abs(means - levels).max()
    return tuple(levels.tolist()), float(1 - (shares * levels**2).sum())


def allocate_levels(variances: Sequence[float] | Array, bits: float) -> list[int]:  # [d] -> [d]
    """Levels along each direction, so that their logarithms add up to at most `bits`.

    One level more goes where it lowers the squared error most per bit, as long as the budget allows any.
    """
    counts = [1] * len(variances)
    left = bits + 1e-9
    while True:
        possible = [
            (variance * _gain(count), -direction)
            for direction, (variance, count) in enumerate(zip(variances, counts, strict=True))
            if count < MOST_LEVELS and _step(count) <= left and variance > 0
        ]
        if not possible:
            return counts
        direction = -max(possible)[1]
        left -= _step(counts[direction])
        counts[direction] += 1


def _step(count: int) -> float:
    """Bits that one level more than `count` takes."""
    return math.log2((count + 1) / count)


@cache
def _gain(count: int) -> float:
    """What one level more than `count` lowers the squared error by, per bit."""
    return (normal_levels(count)[1] - normal_levels(count + 1)[1]) / _step(count)


def level_codebooks(places: NDArray, bits: float) -> list[Array]:  # [N, d] -> each [K, d]
    """A codebook for each direction that gets more than one level, those of most levels first.

    Args:
        places: In the coordinates whose axes are the directions.
        bits: The sum of log2 K at most.
    """
    variances = places.var(axis=0, dtype=np.float64)
    counts = np.array(allocate_levels(variances, bits), dtype=np.int64)
    books = []
    for direction in np.argsort(-counts, kind="stable"):
        if counts[direction] > 1:
            book = np.zeros((counts[direction], places.shape[1]))
            book[:, direction] = np.sqrt(variances[direction]) * np.array(normal_levels(int(counts[direction]))[0])
            books.append(book)
    return books
