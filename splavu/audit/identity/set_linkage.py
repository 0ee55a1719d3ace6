"""Linkage of several clips against several: how much better a person is found when many clips of them are released.

Each subject's videos are dealt into two halves, so that no video meets itself, by their place in the sort order of
names and alike for all subjects: where everybody does each action once, in one order, neither two halves of a subject
nor those of two subjects share an action. A probe set is n clips of the one half,
a gallery set n clips of the other; every probe set meets every subject's gallery set. Sets are compared by their mean
features, by a metric that is trained on sets of that size of training subjects and chosen on those of validation
subjects.

Note: halves and clips are drawn several times, which steadies the figures but adds no subject. Intervals draw subjects,
and whether a low false-positive rate can be estimated is decided by the pairs of one draw.

Shapes: `M` sets, `D` feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.identity.linkage import Linkability, linked
from splavu.audit.identity.similarity import Metric, candidate_metrics, cosines
from splavu.errors import UserError

SIZES: tuple[int | None, ...] = (1, 4, None)
"""Clips of a set; None takes all of the half."""
MOST_SETS = 1500
"""Probe sets, and gallery sets, of all draws: of more subjects, as many are drawn."""
MOST_DRAWS = 8


@dataclass(frozen=True)
class DrawnSets:
    """Probe sets and gallery sets, in the same order of draws and subjects."""

    probes: np.ndarray
    """[M, D] mean features."""
    gallery: np.ndarray
    """[M, D]"""
    subjects: np.ndarray
    """[M]"""
    draw: np.ndarray
    """[M] sets of two draws do not meet."""

    @property
    def num_draws(self) -> int:
        return int(self.draw.max()) + 1


def drawn_sets(rows: Rows, size: int | None, *, seed: int = 0) -> DrawnSets:
    """Sets of `size` clips, of the subjects that have as many in both halves of their videos in every draw.

    Raises:
        UserError: Fewer than two subjects have.
    """
    generator = np.random.default_rng(seed)
    names = generator.permutation(np.unique(rows.clusters))[:MOST_SETS]
    num_draws = max(1, min(MOST_DRAWS, MOST_SETS // len(names)))
    orders = [generator.permutation(len(np.unique(rows.videos))) for _ in range(num_draws)]  # of places
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name in names.tolist():
        own = np.flatnonzero(rows.clusters == name)
        videos = np.unique(rows.videos[own])
        drawn = []
        for order in orders if len(videos) > 1 else ():
            in_probes = np.isin(rows.videos[own], videos[np.argsort(order[: len(videos)])[: len(videos) // 2]])
            halves = own[in_probes], own[~in_probes]
            if size is None or min(map(len, halves)) >= size:
                drawn.append(tuple(rows.features[generator.permutation(half)[:size]].mean(axis=0) for half in halves))
        if len(drawn) == num_draws:
            found[name] = drawn
    if len(found) < 2:
        problem = f"{len(found)} subjects have twice {size or 1} clips, of different videos"
        raise UserError("linkage of sets", problem, "give several subjects, several videos each")
    subjects = np.array(list(found))
    probes, gallery = (
        np.stack([found[name][draw][side] for draw in range(num_draws) for name in found]) for side in (0, 1)
    )
    draw = np.arange(num_draws).repeat(len(subjects))
    return DrawnSets(probes, gallery, np.tile(subjects, num_draws), draw)


def strongest_set_metric(data: AttackData, size: int | None, *, seed: int = 0) -> Metric:
    """The metric for mean features of `size` clips, trained on training subjects and chosen on validation subjects.

    Raises:
        UserError: As `drawn_sets`.
    """
    train, validation = (drawn_sets(rows, size, seed=seed) for rows in (data.train, data.validation))
    if size == 1:  # every clip is a set
        candidates = candidate_metrics(data.train.features, data.train.clusters)
    else:
        candidates = candidate_metrics(np.concatenate([train.probes, train.gallery]), np.tile(train.subjects, 2))
    return max(candidates, key=lambda metric: _merit(metric, validation))  # the first of equals


def linked_sets(
    data: AttackData, size: int | None, *, num_resamples: int = 300, num_permutations: int = 500, seed: int = 0
) -> tuple[Linkability, int]:
    """How well test subjects are found by sets of `size` clips, and how many subjects have such sets.

    Raises:
        UserError: Too few subjects have two videos, in the training, validation or test group.
    """
    chosen, test = strongest_set_metric(data, size, seed=seed), drawn_sets(data.test, size, seed=seed)
    one = linked(
        _similarity(chosen, test),
        test.subjects,
        test.subjects,
        metric=chosen.name,
        num_resamples=num_resamples,
        num_permutations=num_permutations,
        repeats=test.num_draws,
        seed=seed,
    )
    return one, len(np.unique(test.subjects))


def _similarity(metric: Metric, sets: DrawnSets) -> np.ndarray:  # -> [M, M], minus infinity where two do not meet
    similarity = cosines(metric.probes(sets.probes), metric.gallery(sets.gallery))
    return np.where(sets.draw[:, None] == sets.draw[None], similarity, -np.inf)


def _merit(metric: Metric, sets: DrawnSets) -> float:
    """Area under the ROC of pairs; below any other for a metric that finds all alike."""
    similarity = _similarity(metric, sets)
    met = np.isfinite(similarity)
    labels = (sets.subjects[:, None] == sets.subjects[None])[met].astype(np.float64)
    return metrics.auc(labels, similarity[met]) if np.ptp(similarity[met]) else -1.0
