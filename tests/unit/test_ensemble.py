"""The ensemble is what slow loops give, beats the winner of many weak attackers, leaves out those that know nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from splavu.attacks.campaign import Attack, Scored
from splavu.attacks.ensemble import NUM_DEALS, UNRANKED, ensemble_weights, standardised
from splavu.metrics import average_precisions


def subjects(count: int, prefix: str, rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and clusters [n], rows of one subject together."""
    return (np.arange(count) % 2).astype(float).repeat(rows), np.array(
        [f"{prefix}{i:03d}" for i in range(count)]
    ).repeat(rows)


def scores(labels: np.ndarray, signals: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # [n], [M] -> [1, M, n]
    """Attackers whose mistakes are partly of the subject and partly their own."""
    noise = rng.normal(size=(len(signals), len(labels) // 6)).repeat(6, axis=1) + rng.normal(
        size=(len(signals), len(labels))
    )
    return (signals[:, None] * labels + noise)[None]


def weights(signals: np.ndarray, seed: int, people: int = 16) -> np.ndarray:
    labels, clusters = subjects(people, "v")
    return ensemble_weights(labels[None], clusters, scores(labels, signals, np.random.default_rng(seed)))


def test_weights_are_those_of_slow_loops():
    labels, clusters = subjects(10, "v")
    of = scores(labels, np.array([0.2, 1.0, 0.5, 0.8, 0.0]), np.random.default_rng(0))
    names, generator, halves = np.unique(clusters), np.random.default_rng(3), []
    for _ in range(NUM_DEALS):
        first = generator.permutation(len(names)) < len(names) // 2
        halves += [first, ~first]

    def precision(rows: np.ndarray, score: np.ndarray) -> float:
        both = 0 < labels[rows].sum() < rows.sum()
        return average_precision_score(labels[rows], score[rows]) if both else np.nan

    held_out, taken = {1: [], 2: [], 4: []}, {1: np.zeros(5), 2: np.zeros(5), 4: np.zeros(5)}
    for half in halves:
        rows = half[np.searchsorted(names, clusters)]
        found = [precision(rows, of[0, m]) for m in range(5)]
        if np.isnan(found).any():
            continue
        for size in held_out:
            members = [m for m in range(5) if found[m] >= sorted(found)[-size] - 1e-12]
            held_out[size].append(precision(~rows, of[0, members].mean(axis=0)))
            taken[size][members] += 1 / len(members)
    best = max(held_out, key=lambda size: np.nanmean(held_out[size]))
    np.testing.assert_allclose(ensemble_weights(labels[None], clusters, of), taken[best] / taken[best].sum())


def test_the_ensemble_of_weak_attackers_beats_the_one_that_won():
    """40 attackers, 16 validation subjects, 200 test subjects: paired over 12 worlds."""
    gains = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        signals = rng.uniform(0, 1.2, 40)
        (labels, clusters), (test, people) = subjects(16, "v"), subjects(200, "t")
        tuned, own = (scores(y, signals, rng)[..., None] for y in (labels, test))
        validation = np.array([[average_precisions(labels[:, None], one) for one in of] for of in tuned])
        attack = Attack(
            tuple(map(str, range(40))), test[:, None], people, people, own, validation,
            Scored(labels[:, None], clusters, clusters, tuned),
        )  # fmt: skip
        gains.append(float(attack.precision[0] - attack.single.precision[0]))
    assert np.mean(gains) > 0.05
    assert np.min(gains) > 0


def test_attackers_that_know_nothing_are_left_out():
    found = weights(np.array([3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 0, people=60)
    assert found.sum() == pytest.approx(1)
    assert found[3:].sum() < 0.35  # 4 of them taken: one at least knows nothing
    assert (found >= 0).all()


def test_the_choice_repeats_and_knows_no_scale():
    labels, clusters = subjects(16, "v")
    of = scores(labels, np.linspace(0, 1, 9), np.random.default_rng(1))
    scaled = of * np.logspace(-3, 3, 9)[:, None] + np.arange(9)[:, None]
    alike = [standardised(one[..., None], one[..., None])[..., 0] for one in (of, scaled)]
    first, second = (ensemble_weights(labels[None], clusters, one) for one in alike)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, ensemble_weights(labels[None], clusters, alike[0]))


def test_one_attacker_is_itself_and_few_subjects_share_evenly():
    labels, clusters = subjects(2, "v")
    of = scores(labels, np.linspace(0, 3, 20), np.random.default_rng(0))
    np.testing.assert_array_equal(ensemble_weights(labels[None], clusters, of[:, :1]), [1.0])
    found = ensemble_weights(labels[None], clusters, of)  # a half is one subject, of one class
    assert sorted(set(found.tolist())) == [0.0, 1 / UNRANKED]


def test_constant_scores_are_no_division_by_zero():
    flat = np.ones((1, 2, 5, 1))
    np.testing.assert_array_equal(standardised(flat, flat), 0)
