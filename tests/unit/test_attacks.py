"""Campaigns: one training, several exposures; the same numbers in processes as without; joining and selecting."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from tqdm import tqdm

from splavu.attackers import ATTACKERS, AttackerSpec, KernelAttacker
from splavu.attacks.campaign import Campaign, Exposure, joined
from splavu.attacks.rows import AttackData, Rows, shuffled_labels
from splavu.metrics import average_precisions

NAMES = ("logistic", "knn", "small")


def rows(num_people: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (num_people, 2)).repeat(4, axis=0).astype(np.float32)
    features = rng.normal(size=(len(labels), 6))
    features[:, :2] += 2 * labels
    people = np.array([f"{seed}-{p}" for p in range(num_people)]).repeat(4)
    videos = np.array([f"{person}-{v // 2}" for v, person in enumerate(people)])
    return Rows(features.astype(np.float32), labels, people, videos)


@pytest.fixture(autouse=True)
def _small_kernel(monkeypatch):
    """A stochastic attacker that learns in no time."""
    small = AttackerSpec(partial(KernelAttacker, num_features=64), stochastic=True)
    monkeypatch.setitem(ATTACKERS._rows, "small", small)


@pytest.fixture(scope="module")
def data() -> AttackData:
    return AttackData(rows(30, 1), rows(15, 2), rows(20, 3))


def campaign(**changes) -> Campaign:
    options = {"attackers": NAMES, "seeds": (0, 1), "max_train_rows": 1000, "level": "row", "device": "cpu"}
    return Campaign(**(options | {"progress": tqdm(disable=True)} | changes))


def test_an_attack_is_what_fitting_by_hand_gives(data):
    found = campaign().run([data, data])
    for m, name in enumerate(NAMES):
        for s in (0, 1):
            attacker = ATTACKERS[name].build(seed=s, device="cpu")
            attacker.fit(data.train.features, data.train.labels, (data.validation.features, data.validation.labels))
            np.testing.assert_allclose(found.scores[s, m], attacker.scores(data.test.features), atol=1e-6)
            tuned = attacker.scores(data.validation.features)
            np.testing.assert_allclose(found.tuned.scores[s, m], tuned, atol=1e-6)
            np.testing.assert_allclose(found.validation[s, m], average_precisions(data.validation.labels, tuned))


def test_what_is_shown_does_not_change_what_was_learnt(data):
    turned = data.mapped(lambda features: -features)
    shown = {"own": Exposure(data.validation, data.test), "turned": Exposure(turned.validation, turned.test)}
    found = campaign().run_on([data, data], shown)
    alone = campaign().run([data, data])
    np.testing.assert_array_equal(found["own"].scores, alone.scores)
    assert (found["own"].precision > 0.7).all()
    assert (found["turned"].precision < 0.6).all()  # what they learnt points the other way


def test_an_executor_gives_the_same_numbers(data):
    with ThreadPoolExecutor(1) as executor:
        found = campaign(executor=executor).run([data, data])
    np.testing.assert_array_equal(found.scores, campaign().run([data, data]).scores)


def test_progress_counts_every_seed_and_attacker(data):
    with tqdm(disable=False, file=io.StringIO()) as progress:
        campaign(progress=progress).run([data, data])
        assert progress.n == len(NAMES) * 2


def test_joined_attacks_choose_among_all(data):
    weak = data.mapped(lambda features: features * (np.arange(6) != 0).astype(np.float32))
    weaker = data.mapped(lambda features: features * (np.arange(6) != 1).astype(np.float32))
    own = {
        name: campaign().run_on([kind, kind], {"own": Exposure(kind.validation, kind.test)})["own"]
        for name, kind in (("first", weak), ("second", weaker))
    }
    both = joined(own)
    assert len(both.attackers) == 2 * len(NAMES)
    chosen = [both.attackers[m].split("/")[0] for m in both.best]
    assert chosen == ["second", "first"]
    np.testing.assert_array_equal(both.scores[:, : len(NAMES)], own["first"].scores)
    np.testing.assert_array_equal(both.tuned.scores[:, len(NAMES) :], own["second"].tuned.scores)


def test_some_of_the_attributes(data):
    attack = campaign().run([data, data])
    one = attack.of(np.array([1]))
    np.testing.assert_array_equal(one.precision, attack.precision[1:])
    np.testing.assert_array_equal(one.tuned.scores, attack.tuned.scores[..., 1:])


def test_seeds_that_differ_in_labels_alone_are_trained_at_once(data):
    """An attacker that solves for each attribute apart finds what it finds seed by seed."""
    shuffled = [shuffled_labels(data, seed=seed) for seed in (0, 1)]
    apart = campaign(attackers=("knn", "trees")).run(shuffled)
    together = campaign(attackers=("knn", "trees")).run_together(shuffled)
    for field in ("labels", "scores", "validation", "weights"):
        np.testing.assert_allclose(getattr(together, field), getattr(apart, field), atol=1e-6)
    np.testing.assert_array_equal(together.tuned.labels, apart.tuned.labels)
    np.testing.assert_allclose(together.tuned.scores, apart.tuned.scores, atol=1e-6)
