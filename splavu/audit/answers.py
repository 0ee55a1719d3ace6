"""What the answers to an attribute's questions say of the attribute itself: which class, how large a value.

    value   Spearman: rank correlation of the true value with the mean of the answers, each in units of its spread
    class   top-1, and balanced accuracy: the class with the most probable answer; for the latter in units of its share

Chance and p are those of whole test subjects who swap their values.

Shapes: n units, v validation units, S seeds, q questions of the attribute, R draws or permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from splavu import metrics
from splavu.attacks.campaign import Attack
from splavu.audit.evidence import Measured
from splavu.audit.questions import Questions
from splavu.metrics.correlation import permuted_spearman, resampled_spearman, spearman
from splavu.metrics.estimates import estimated
from splavu.metrics.inference import platt_scaling

SWAP_CELLS = 4_000_000
"""Permutations times units; at least `FEWEST_SWAPS`."""
FEWEST_SWAPS = 200


@dataclass(frozen=True)
class Truth:
    """The values of all attributes."""

    attributes: tuple[str, ...]
    of_video: Mapping[str, np.ndarray]
    """Video -> [A]: 0 and 1, the place of the class, or the number; NaN for unknown."""
    of_person: Mapping[str, np.ndarray]
    """Person -> [A], the mean of their videos."""

    @classmethod
    def of(cls, attributes: tuple[str, ...], values: Mapping[str, np.ndarray], people: Mapping[str, str]) -> Truth:
        """From values and persons of videos."""
        videos: dict[str, list[np.ndarray]] = {}
        for video, person in people.items():
            videos.setdefault(person, []).append(values[video])
        of_person = {person: metrics.mean_known(np.array(found).T) for person, found in videos.items()}
        return cls(attributes, values, of_person)

    def values(self, attack: Attack, attribute: str) -> np.ndarray:  # -> [n]
        """Of the units of an attack: of persons where it has no two units of one person."""
        place = self.attributes.index(attribute)
        if len(np.unique(attack.clusters)) == len(attack.clusters):
            return np.array([self.of_person[person][place] for person in attack.clusters.tolist()])
        return np.array([self.of_video[video][place] for video in attack.videos.tolist()])


def answered(
    attack: Attack,
    questions: Questions,
    truth: Truth | None,
    num_swaps: int,
    resamples: metrics.Resamples,
    seed_weights: np.ndarray,
) -> dict[str, tuple[Measured, ...]]:
    """Attribute -> what is measured beside its average precision; none of a binary one.

    Args:
        attack: Of the questions that can be judged.
        questions: The same ones.
        truth: None where all attributes are binary.
        num_swaps: Permutations of the test subjects' values.
        resamples: Draws of test subjects.
        seed_weights: [R, S]
    """
    found: dict[str, tuple[Measured, ...]] = {}
    several = [name for name, kind in questions.kinds.items() if kind != "binary"]
    if truth is None or not several:
        return found
    count = min(num_swaps, max(FEWEST_SWAPS, SWAP_CELLS // len(attack.labels)))
    swaps = metrics.permuted_rows(attack.clusters, attack.videos, num_permutations=count, seed=1)
    for name in several:
        asked = questions.of(name)
        values = truth.values(attack, name)
        values = np.where(np.isnan(attack.labels[:, asked]).all(axis=1), np.nan, values)
        scores, tuned = attack.chosen_scores[..., asked], attack.chosen_tuned[..., asked]
        weights = seed_weights
        if (scores == scores[0]).all():
            scores, tuned, weights = scores[:1], tuned[:1], np.ones((len(seed_weights), 1))
        answers = Answers(values, scores, attack.tuned.labels[:, asked], tuned, resamples, weights, swaps)
        if questions.kinds[name] == "value":
            found[name] = answers.of_value()
        else:
            levels = np.array([questions.asked[q].level for q in asked])
            place = np.where((values[:, None] == levels).any(axis=1), np.searchsorted(levels, values), np.nan)
            found[name] = replace(answers, truth=place).of_class()
    return found


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
        lent = self.truth[self.swaps]
        groups = [lent == c for c in range(self.scores.shape[-1])] if by_class else [~np.isnan(lent)]
        right = lent == guess
        counts = [(np.sum(right & group, axis=1), np.sum(group, axis=1)) for group in groups]
        shares = [np.where(total > 0, hits / np.maximum(total, 1), np.nan) for hits, total in counts]
        return metrics.mean_known(np.stack(shares, axis=1))


def _right(truth: np.ndarray, guess: np.ndarray, by_class: bool, num_classes: int) -> np.ndarray:  # [n], [n]
    """[n, 1], or [n, q] with a column for each true class: 1 where the guess is right, NaN elsewhere."""
    right = np.where(np.isnan(truth), np.nan, guess == truth)
    if not by_class:
        return right[:, None]
    return np.where(truth[:, None] == np.arange(num_classes), right[:, None], np.nan)
