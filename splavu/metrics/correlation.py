"""Rank correlation of a score with a number, on draws and under permutations of whole clusters.

Shapes: `N` rows, `R` resamples or permutations. Values may be NaN where unknown; such rows are left out.
"""

from __future__ import annotations

import numpy as np

from splavu.metrics.resampling import CHUNK, Resamples


def spearman(values: np.ndarray, scores: np.ndarray) -> float:  # [N], [N]
    """Spearman's rank correlation, ties at their mean rank; NaN where either doesn't vary."""
    known = np.flatnonzero(~np.isnan(values))
    once = np.ones((1, len(known)))
    return float(_correlation(_ranks(values[known], once), _ranks(scores[known], once), once)[0])


def resampled_spearman(values: np.ndarray, scores: np.ndarray, resamples: Resamples) -> np.ndarray:  # [N], [N] -> [R]
    """The same on each resample of the clusters, ranked again there."""
    known = np.flatnonzero(~np.isnan(values))
    result = np.full(len(resamples.counts), np.nan)
    for block, weights in resamples.blocks(known):
        result[block] = _correlation(_ranks(values[known], weights), _ranks(scores[known], weights), weights)
    return result


def permuted_spearman(values: np.ndarray, scores: np.ndarray, permuted: np.ndarray) -> np.ndarray:  # [R, N] -> [R]
    """The same when clusters have swapped their values (`metrics.permuted_rows`): the null distribution."""
    known = ~np.isnan(values)
    ranks = np.full(len(values), np.nan)
    ranks[known] = _ranks(values[known], np.ones((1, known.sum())))[0]
    of_scores = _ranks(scores, np.ones((1, len(scores))))[0]
    result = np.full(len(permuted), np.nan)
    step = max(1, CHUNK // max(1, len(values)))
    for start in range(0, len(permuted), step):
        lent = ranks[permuted[start : start + step]]
        weights = (~np.isnan(lent)).astype(np.float64)
        result[start : start + step] = _correlation(np.nan_to_num(lent), of_scores[None], weights)
    return result


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:  # [n], [R, n] -> [R, n]
    """Mean ranks of rows that count as often as their weights say."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max(initial=-1) + 1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)  # [R, groups]
    return (np.cumsum(sizes, axis=1) - sizes / 2)[:, group]


def _correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:  # [R, n] thrice -> [R]
    """Pearson's, weighted; NaN where either doesn't vary."""
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    first, second = (x - (weights * x).sum(axis=1, keepdims=True) / total for x in (first, second))
    products = [(weights * x * y).sum(axis=1) for x, y in ((first, second), (first, first), (second, second))]
    spread = np.sqrt(products[1] * products[2])
    return np.where(spread > 1e-9, products[0] / np.where(spread > 1e-9, spread, 1.0), np.nan)
