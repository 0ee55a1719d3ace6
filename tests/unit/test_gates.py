"""What gates can decide follows from the labels: counted by hand, and shown by attackers that make no error."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from splavu.attacks.campaign import Attack
from splavu.attacks.gates import GATE_FAILED, LUCK, UNDECIDED, exit_code, gate, label_permutations, power_of


def table(positives: int, subjects: int, clips: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One attribute that a subject has always the same way: [N, 1], [N], [N], subjects in mixed order."""
    labels = (np.arange(subjects) < positives).astype(float)
    order = np.random.default_rng(0).permutation(subjects).repeat(clips)
    return labels[order][:, None], np.array([f"p{g:03d}" for g in order]), np.array([f"p{g:03d}v" for g in order])


def attack(labels: np.ndarray, clusters: np.ndarray, videos: np.ndarray, scores: np.ndarray | None = None) -> Attack:
    """An attacker without an error, or with these scores [N, A]."""
    own = (labels if scores is None else scores)[None, None]
    return Attack(("only",), labels, clusters, videos, own, np.ones((1, 1, labels.shape[1])))


@pytest.mark.parametrize(
    ("positives", "subjects", "needed"),
    # 9 choose 4 = 126 and 10 choose 5 = 252, of which 200 are needed; of 2 in 8, 3 in 12 = 220; with 1 in 8, a resample
    # lacks the class with probability (7/8)^22 = 0.053, (7/8)^23 = 0.046
    [(4, 8, 10), (5, 10, 10), (2, 8, 12), (1, 8, 23), (50, 100, 10)],
)
def test_the_number_of_subjects_that_can_decide(positives, subjects, needed):
    power = power_of(*table(positives, subjects))
    assert power.least_p == pytest.approx(1 / math.comb(subjects, positives))
    assert power.one_class == pytest.approx((positives / subjects) ** subjects + (1 - positives / subjects) ** subjects)
    assert power.needed == needed
    assert power.decides is (subjects >= needed)


@pytest.mark.parametrize(("positives", "subjects"), [(4, 8), (4, 9), (5, 10), (2, 8), (3, 16), (1, 24), (17, 34)])
def test_an_attacker_without_an_error_passes_exactly_where_a_gate_can_decide(positives, subjects):
    """The power statement, by the gate itself; and useless attackers never pass."""
    labels, clusters, videos = table(positives, subjects)
    power = power_of(labels, clusters, videos)
    found = gate("clip", "attackers succeed", attack(labels, clusters, videos), True, 300)
    assert found["state"] == ("passed" if power.decides else "undecided")
    assert (found["subjects"], found["subjects_needed"]) == (subjects, power.needed)
    assert (found["swapped_test_labels_p"] <= LUCK) is (power.least_p <= LUCK)
    rng = np.random.default_rng(1)
    useless = rng.normal(size=subjects)[np.unique(clusters, return_inverse=True)[1]][:, None]
    state = gate("clip", "attackers succeed", attack(labels, clusters, videos, useless), True, 300)["state"]
    assert state == ("failed" if power.decides else "undecided")
    fails = gate("clip", "attackers fail", attack(labels, clusters, videos, useless), False, 300)["state"]
    assert fails == ("passed" if power.decides else "undecided")


def test_of_few_permutations_all_are_taken_each_once():
    labels, clusters, videos = table(2, 6, clips=2)
    swaps, complete = label_permutations(labels, clusters, videos)
    assert complete
    names = np.unique(clusters)
    given = {tuple(int(labels[swap][clusters == name][0, 0]) for name in names) for swap in swaps}
    assert given == {tuple(map(int, np.isin(range(6), two))) for two in itertools.combinations(range(6), 2)}
    assert len(swaps) == 15
    assert not label_permutations(*table(6, 13))[1]  # 1716 of them


def test_p_is_exact_where_subjects_are_few():
    """Of 10 subjects, 5 positive, one positive ranks below one negative: 2 of 252 labellings score as high."""
    labels, clusters, videos = table(5, 10, clips=1)
    order = np.argsort(-labels[:, 0], kind="stable")
    scores = np.empty(10)
    scores[order] = [10, 9, 8, 7, 5, 6, 4, 3, 2, 1]
    found = gate("clip", "attackers succeed", attack(labels, clusters, videos, scores[:, None]), True, 300)
    assert found["swapped_test_labels_p"] == pytest.approx(2 / 252)
    assert found["state"] == "failed"  # an attacker without an error would have passed


def test_labels_that_change_within_subjects_have_more_permutations():
    """Six subjects with labels like nobody else's: 720 permutations; videos that repeat a pattern add none."""
    rng = np.random.default_rng(3)
    labels = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]]).reshape(-1, 1).astype(float)
    clusters, videos = np.repeat(list("abcdef"), 3), np.array([f"v{i:02d}" for i in range(18)])
    assert power_of(labels, clusters, videos).least_p == pytest.approx(1 / 720)
    assert power_of(labels, clusters, videos).decides
    alike = np.tile([0.0, 1.0], 6)[:, None]
    power = power_of(alike, np.repeat(list("abcdef"), 2), np.array([f"v{i:02d}" for i in range(12)]))
    assert power.least_p == pytest.approx(1)
    assert power.needed is None
    order = rng.permutation(18)  # rows may stand in any order
    assert power_of(labels[order], clusters[order], videos[order]).least_p == pytest.approx(1 / 720)


def test_exit_codes():
    assert exit_code(["passed", "not run"]) == 0
    assert exit_code(["passed", "undecided"]) == UNDECIDED == 4
    assert exit_code(["undecided", "failed", "passed"]) == GATE_FAILED == 3


@pytest.mark.slow
def test_the_level_of_the_gate_is_kept_with_few_subjects():
    """Useless attackers pass in at most LUCK of the worlds: 2,000 of 12 subjects, where p is exact."""
    rng, passed = np.random.default_rng(0), 0
    labels, clusters, videos = table(6, 12, clips=1)
    swaps, complete = label_permutations(labels, clusters, videos)
    assert complete
    for _ in range(2000):
        scores = rng.normal(size=12)
        ranked = labels[swaps, 0][:, np.argsort(-scores)]  # [R, n]
        precision = (ranked * np.cumsum(ranked, axis=1) / np.arange(1, 13)).sum(axis=1) / 6
        own = labels[np.argsort(-scores), 0]
        observed = (own * np.cumsum(own) / np.arange(1, 13)).sum() / 6
        passed += np.mean(precision >= observed - 1e-12) <= LUCK
    assert passed / 2000 <= LUCK + 3 * math.sqrt(LUCK / 2000)
