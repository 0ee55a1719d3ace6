"""The strongest attacker: the mean of those that are best on validation subjects.

One winner of many attackers, chosen on a few validation subjects, is a lucky one, and understates what is left: the
mean of several does better on subjects that nobody chose on. Validation subjects are dealt into halves, again and
again: attackers are ranked on one half, and the mean of the best m is evaluated on the other one, for m = 1, 2, 4, ...
An attacker's weight is how often it was among the best m, for the m that did best on the halves not ranked on. So
neither the members nor their number are chosen by the luck of single subjects. Attackers that tie with the last one are
taken too.

Note: scores are standardised by their mean and spread on validation subjects, since attackers share no scale.

Source: Caruana et al. 2004, "Ensemble selection from libraries of models"; the selection is bagged as in Caruana et al.
2006, "Getting the most out of ensemble selection".

Shapes: S seeds, M attackers, v validation units, n units, A attributes, R halves.
"""

from __future__ import annotations

import numpy as np

from splavu import metrics

STRONGEST = "ensemble, chosen on halves of the validation subjects"
"""What counts as the strongest attacker: part of what a stored result is known by, so that others are made again."""
NUM_DEALS = 12
"""Of validation subjects into two halves; each half ranks once."""
UNRANKED = 16
"""Attackers of equal shares where halves can't be evaluated."""


def ensemble_weights(labels: np.ndarray, clusters: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of each attacker in the ensemble of one attribute.

    Args:
        labels: [S, v] of validation units, NaN where unknown; seeds may have chosen on different labels.
        clusters: [v] the subject of each.
        scores: [S, M, v] standardised.

    Returns:
        [M], not negative, summing to 1. With too few subjects for halves of both classes, the best on all validation
        subjects have equal shares, `UNRANKED` of them and those that tie.
    """
    num_attackers = scores.shape[1]
    if num_attackers == 1:
        return np.ones(1)
    sizes = [2**k for k in range(num_attackers.bit_length()) if 2**k <= num_attackers]
    halves = _halves(clusters)
    on_half = np.nan_to_num(_precisions(labels, scores, halves), nan=-1.0)  # [R, M]
    ranked = np.flatnonzero((on_half >= 0).any(axis=1))
    ordered = -np.sort(-on_half, axis=1)
    members = np.stack([on_half >= ordered[:, [size - 1]] for size in sizes])  # [sizes, R, M]; all that tie
    shares = members / members.sum(axis=-1, keepdims=True)
    held_out = np.full(shares.shape[:2], np.nan)
    for half in ranked:
        means = np.einsum("km,smv->skv", shares[:, half], scores)  # [S, sizes, v]
        other = metrics.Resamples(1 - halves.counts[half : half + 1], halves.cluster_of_row)
        held_out[:, half] = _precisions(labels, means, other)[0]
    of_size = metrics.mean_known(held_out)
    if not np.isnan(of_size).all():
        weights = shares[int(np.nanargmax(of_size)), ranked].sum(axis=0)
    else:
        everyone = metrics.Resamples(np.ones((1, halves.counts.shape[1]), dtype=int), halves.cluster_of_row)
        precision = np.nan_to_num(_precisions(labels, scores, everyone)[0], nan=-1.0)
        weights = (precision >= -np.sort(-precision)[:UNRANKED][-1]).astype(np.float64)
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
