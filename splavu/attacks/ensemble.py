"""The strongest attacker: the mean of those that are best on validation subjects.

One winner of many attackers, chosen on a few validation subjects, is a lucky one, and understates what is left: the
mean of several does better on subjects that nobody chose on. Validation subjects are dealt into halves, again and
again: attackers are ranked on one half, and the mean of the best m is evaluated on the other one, for m = 1, 2, 4, ...
An attacker's weight is how often it was among the best m, for the m that did best on the halves not ranked on. So
neither the members nor their number are chosen by the luck of single subjects.

Note: scores are standardised by their mean and spread on validation subjects, since attackers share no scale.

Source: Caruana et al. 2004, "Ensemble selection from libraries of models"; the selection is bagged as in Caruana et al.
2006, "Getting the most out of ensemble selection".

Shapes: S seeds, M attackers, v validation units, n units, A attributes, R halves.
"""

from __future__ import annotations

import numpy as np

from splavu import metrics

NUM_DEALS = 12
"""Of validation subjects into two halves; each half ranks once."""
UNRANKED = 16
"""Attackers of equal shares, at most, where halves can't be evaluated."""


def ensemble_weights(labels: np.ndarray, clusters: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of each attacker in the ensemble of one attribute.

    Args:
        labels: [S, v] of validation units, NaN where unknown; seeds may have chosen on different labels.
        clusters: [v] the subject of each.
        scores: [S, M, v] standardised.

    Returns:
        [M], not negative, summing to 1. With too few subjects for halves of both classes, the best on all validation
        subjects have equal shares, `UNRANKED` of them at most.
    """
    num_attackers = scores.shape[1]
    if num_attackers == 1:
        return np.ones(1)
    sizes = [2**k for k in range(num_attackers.bit_length()) if 2**k <= num_attackers]
    halves = _halves(clusters)
    on_half = _precisions(labels, scores, halves)  # [R, M]
    ranked = np.flatnonzero(~np.isnan(on_half).all(axis=1))
    order = np.argsort(-np.nan_to_num(on_half, nan=-1.0), axis=1, kind="stable")  # [R, M]
    other = metrics.Resamples(1 - halves.counts, halves.cluster_of_row)
    held_out = np.full((len(sizes), len(order)), np.nan)
    for place, size in enumerate(sizes):
        for half in ranked:
            mean = scores[:, order[half, :size]].mean(axis=1, keepdims=True)  # [S, 1, v]
            one = metrics.Resamples(other.counts[half : half + 1], other.cluster_of_row)
            held_out[place, half] = _precisions(labels, mean, one)[0, 0]
    of_size = metrics.mean_known(held_out)
    weights = np.zeros(num_attackers)
    if np.isnan(of_size).all():
        whole = metrics.Resamples(np.ones((1, halves.counts.shape[1]), dtype=int), halves.cluster_of_row)
        best = np.argsort(-np.nan_to_num(_precisions(labels, scores, whole)[0], nan=-1.0), kind="stable")
        weights[best[:UNRANKED]] = 1.0
    else:
        size = sizes[int(np.nanargmax(of_size))]
        np.add.at(weights, order[ranked, :size], 1.0)
    return weights / weights.sum()


def standardised(scores: np.ndarray, tuned: np.ndarray) -> np.ndarray:  # [..., n, A], [..., v, A] -> [..., n, A]
    """Scores less their mean on validation units, in units of their spread there; 0 where they don't vary there."""
    mean, spread = tuned.mean(axis=-2, keepdims=True), tuned.std(axis=-2, keepdims=True)
    return np.where(spread > 0, (scores - mean) / np.where(spread > 0, spread, 1.0), 0.0)


def _halves(clusters: np.ndarray) -> metrics.Resamples:
    """Each deal's two halves, one after the other, as draws of 0 or 1."""
    names, cluster_of_row = np.unique(clusters, return_inverse=True)
    generator = np.random.default_rng(3)
    first = np.stack([generator.permutation(len(names)) < len(names) // 2 for _ in range(NUM_DEALS)])
    return metrics.Resamples(np.stack([first, ~first], axis=1).reshape(2 * NUM_DEALS, -1).astype(int), cluster_of_row)


def _precisions(labels: np.ndarray, scores: np.ndarray, draws: metrics.Resamples) -> np.ndarray:
    """Average precision of each attacker on each draw, mean over seeds: [S, v], [S, M, v] -> [R, M]."""
    if all((scores == scores[0]).all(axis=(1, 2))) and np.array_equal(labels, labels[:1].repeat(len(labels), 0), True):
        labels, scores = labels[:1], scores[:1]  # attackers that seeds leave as they are
    of_seed = [
        metrics.resampled_average_precisions(np.tile(label[:, None], len(of)), of.T, draws)
        for label, of in zip(labels, scores, strict=True)
    ]
    return np.mean(of_seed, axis=0)
