"""What the answers to an attribute's questions say of the attribute itself: which class, how large a value.

    value   Spearman: rank correlation of the true value with the mean of the answers, each in units of its spread
    class   top-1, and balanced accuracy: the class with the most probable answer; for the latter in units of its share

Chance and p are those of whole test subjects who swap their values.

Shapes: n units, v validation units, S seeds, q questions of the attribute, R draws or permutations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.audit.evidence import Measured
from splavu.metrics.correlation import permuted_spearman, resampled_spearman, spearman
from splavu.metrics.estimates import estimated
from splavu.metrics.inference import platt_scaling


@dataclass(frozen=True)
class Answers:
    """The strongest attackers' scores for one attribute's questions."""

    truth: np.ndarray
    """[n] the value, or the place of its class among the questions; NaN where unknown."""
    scores: np.ndarray
    """[S, n, q]"""
    tuned_labels: np.ndarray
    """[v, q]"""
    tuned: np.ndarray
    """[S, v, q]"""
    resamples: metrics.Resamples
    seed_weights: np.ndarray
    """[R, S]"""
    swaps: np.ndarray
    """[R, n] rows that lend their value."""

    def of_value(self) -> tuple[Measured, ...]:
        """Spearman."""
        spread = self.tuned.std(axis=1, keepdims=True)
        level = (self.scores / np.where(spread > 0, spread, 1.0)).mean(axis=-1)  # [S, n]
        value = np.mean([spearman(self.truth, one) for one in level])
        drawn = [resampled_spearman(self.truth, one, self.resamples) for one in level]
        null = np.mean([permuted_spearman(self.truth, one, self.swaps) for one in level], axis=0)
        return (self._measured("spearman", float(value), np.array(drawn), null),)

    def of_class(self) -> tuple[Measured, ...]:
        """Top-1 and balanced accuracy."""
        shares = metrics.prevalences(self.tuned_labels)
        guesses = {"top1": [], "balanced accuracy": []}
        for scores, tuned in zip(self.scores, self.tuned, strict=True):
            probability = platt_scaling(self.tuned_labels, tuned)(scores)
            guesses["top1"].append(np.argmax(probability, axis=1))
            guesses["balanced accuracy"].append(np.argmax(probability / np.maximum(shares, 1e-9), axis=1))
        found = []
        for name, guess in guesses.items():
            by_class = name != "top1"
            right = [_right(self.truth, one, by_class, self.scores.shape[-1]) for one in guess]
            value = np.mean([metrics.mean_known(metrics.prevalences(one)) for one in right])
            drawn = [metrics.mean_known(metrics.resampled_prevalences(one, self.resamples)) for one in right]
            null = np.mean([self._permuted(one, by_class) for one in guess], axis=0)
            found.append(self._measured(name, float(value), np.array(drawn), null))
        return tuple(found)

    def _measured(self, name: str, value: float, drawn: np.ndarray, null: np.ndarray) -> Measured:  # [S, R], [R]
        drawn = np.einsum("rs,sr->r", self.seed_weights, drawn)
        p = float((1 + np.sum(null >= value)) / (1 + len(null)))
        return Measured(name, estimated(value, drawn, chance=float(metrics.mean_known(null))), p)

    def _permuted(self, guess: np.ndarray, by_class: bool) -> np.ndarray:  # [n] -> [R]
        num_classes = self.scores.shape[-1]
        return np.array(
            [
                metrics.mean_known(metrics.prevalences(_right(self.truth[lent], guess, by_class, num_classes)))
                for lent in self.swaps
            ]
        )


def _right(truth: np.ndarray, guess: np.ndarray, by_class: bool, num_classes: int) -> np.ndarray:  # [n], [n]
    """[n, 1], or [n, q] with a column for each true class: 1 where the guess is right, NaN elsewhere."""
    right = np.where(np.isnan(truth), np.nan, guess == truth)
    if not by_class:
        return right[:, None]
    return np.where(truth[:, None] == np.arange(num_classes), right[:, None], np.nan)
