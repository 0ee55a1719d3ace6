"""How far recognition of women and of men lies apart, from predictions of the same test videos by heads of every seed.

Note: seeds are averaged before anything is compared (a video's hit is the share of seeds that were right), and
resampling draws subjects, never videos. All statistics of all features come from the same resamples,
so the change from raw to anonymized is paired. "Gender" is what annotators perceived.

Shapes: `V` test videos, `S` seeds, `R` resamples, `C` classes. Shares go from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.attacks.rows import json_values
from splavu.data.subjects import GENDERS
from splavu.metrics import fairness
from splavu.metrics.fairness import GroupAccuracy


@dataclass(frozen=True)
class Seen:
    """Test videos: what is done in them, and by whom."""

    targets: np.ndarray
    """[V] classes."""
    subjects: np.ndarray
    """[V]"""
    genders: np.ndarray
    """[V] 'female' or 'male'."""
    num_classes: int


@dataclass(frozen=True)
class Statistics:
    """What is known of one kind of features."""

    values: Mapping[str, float]
    """female, male, overall, worst (accuracies), gap (best less worst gender), difference (male - female),
    equalised_odds."""
    draws: Mapping[str, np.ndarray]
    """The same on each resample, [R]; worst and gap keep the whole sample's worst and best gender."""
    worst_gender: str
    odds: Mapping[str, Any]
    """Of equalised odds: permuted (mean where subjects swap genders), p (share of swaps that show as much), worst
    class, number of classes that could be compared."""

    def entries(self) -> dict[str, Any]:
        """As results.json holds them."""
        found = {name: estimate(value, self.draws[name]) for name, value in self.values.items()}
        found["worst"]["gender"] = self.worst_gender
        found["equalised_odds"] |= self.odds
        return found


def compare(
    seen: Seen, predictions: Mapping[str, np.ndarray], *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:  # features -> [S, V]
    """Accuracy by gender on each kind of features, and what changes from 'raw' to 'anonymized'.

    Args:
        seen: The test videos.
        predictions: Features -> predicted classes, a row a seed.
        num_resamples: Draws of subjects, and swaps of genders among them.
        seed: Of both.

    Returns:
        Plain values, None where undefined: subjects and videos of each gender; `features` name -> entries, each
        `{"value", "interval"}` with a 95% interval clustered by subject; `change`, anonymized - raw.

    Raises:
        UserError: Only one gender is seen.
    """
    resamples = metrics.cluster_resamples(seen.subjects, num_resamples=num_resamples, seed=seed)
    found = {name: statistics(seen, of_seeds, resamples, seed=seed) for name, of_seeds in predictions.items()}
    result: dict[str, Any] = {
        "subjects": {g: len(np.unique(seen.subjects[seen.genders == g])) for g in GENDERS},
        "videos": {g: int(np.sum(seen.genders == g)) for g in GENDERS},
        "features": {name: of_features.entries() for name, of_features in found.items()},
    }
    if {"raw", "anonymized"} <= set(found):
        raw, safe = found["raw"], found["anonymized"]
        result["change"] = {
            name: estimate(safe.values[name] - raw.values[name], safe.draws[name] - raw.draws[name])
            for name in raw.values
        }
    return json_values(result)


def statistics(seen: Seen, predictions: np.ndarray, resamples: metrics.Resamples, *, seed: int = 0) -> Statistics:
    """All of them for one kind of features; predictions are [S, V]."""
    accuracy = mean_over_seeds(
        [fairness.group_accuracy(seen.targets, of_seed, seen.genders) for of_seed in predictions]
    )
    hits = (predictions == seen.targets).mean(axis=0)  # [V]
    drawn = fairness.resampled_group_means(hits, seen.genders, resamples)  # [R, 2]
    odds, drawn_odds, odds_details = equalised_odds(seen, predictions, resamples, seed=seed)
    (female, male), worst = accuracy.accuracy, accuracy.names.index(accuracy.worst)
    values = {
        "female": female,
        "male": male,
        "overall": accuracy.overall,
        "worst": accuracy.accuracy[worst],
        "gap": accuracy.gap,
        "difference": male - female,
        "equalised_odds": odds,
    }
    draws = {
        "female": drawn[:, 0],
        "male": drawn[:, 1],
        "overall": metrics.resampled_prevalences(hits[:, None], resamples)[:, 0],
        "worst": drawn[:, worst],
        "gap": accuracy.gap_of(drawn),
        "difference": drawn[:, 1] - drawn[:, 0],
        "equalised_odds": drawn_odds,
    }
    return Statistics({name: float(value) for name, value in values.items()}, draws, accuracy.worst, odds_details)


def mean_over_seeds(of_seeds: list[GroupAccuracy]) -> GroupAccuracy:
    """The mean accuracies, and the gap between them (not the mean of the gaps, which luck alone keeps above 0)."""
    first = of_seeds[0]
    accuracy = np.mean([found.accuracy for found in of_seeds], axis=0)
    overall = float(np.mean([found.overall for found in of_seeds]))
    return GroupAccuracy(first.names, first.counts, accuracy, overall, float(np.ptp(accuracy)))


def equalised_odds(
    seen: Seen, predictions: np.ndarray, resamples: metrics.Resamples, *, seed: int = 0
) -> tuple[float, np.ndarray, dict[str, Any]]:
    """The equalised-odds difference, its resamples [R], and what it is to be read beside; the mean over seeds of each.

    Which classes can be compared follows from the targets, so it is the same for all seeds.
    """
    options = {"num_classes": seen.num_classes}
    found = [fairness.equalised_odds(seen.targets, of_seed, seen.genders, **options) for of_seed in predictions]
    drawn = [
        fairness.resampled_equalised_odds(seen.targets, of_seed, seen.genders, resamples, **options)
        for of_seed in predictions
    ]
    num_permutations = len(resamples.counts)
    options |= {"num_permutations": num_permutations, "seed": seed}
    permuted = np.mean(
        [
            fairness.permuted_equalised_odds(seen.targets, of_seed, seen.genders, seen.subjects, **options)
            for of_seed in predictions
        ],
        axis=0,
    )  # [R]; equal seeds swap equally, so it is one swap that is averaged
    value = float(np.mean([of_seed.mean for of_seed in found]))
    per_class = np.mean([of_seed.per_class for of_seed in found], axis=0)  # [C]
    comparable = ~np.isnan(per_class)
    details = {
        "permuted": float(metrics.mean_known(permuted)),
        "p": float((1 + np.sum(permuted >= value)) / (1 + num_permutations)) if comparable.any() else None,
        "worst_class": int(np.nanargmax(per_class)) if comparable.any() else None,
        "classes_compared": int(comparable.sum()),
    }
    return value, np.mean(drawn, axis=0), details


def estimate(value: float, draws: np.ndarray) -> dict[str, Any]:  # [R]
    """A value with its 95% interval."""
    return {"value": float(value), "interval": metrics.percentile_interval(draws).tolist()}
