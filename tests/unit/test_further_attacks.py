"""benchmarks/further_attacks.py: each attack finds the leak that is planted for it, and gains are paired."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from splavu import metrics
from splavu.attacks.campaign import Attack, Scored
from splavu.audit.evaluator import Evaluator
from splavu.audit.questions import Questions


@pytest.fixture(scope="module")
def further():
    """The benchmark as a module: no package, so loaded by its path."""
    spec = importlib.util.spec_from_file_location("further_attacks", REPOSITORY / "benchmarks" / "further_attacks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["lookup", "one-hot", "set"])
def test_each_attack_finds_its_leak_and_nothing_in_exchanged_labels(further, attack):
    options = {"max_epochs": 30, "recipes": (("standardise", 1e-3, 1e-1),)} if attack == "set" else {}
    found, share = further.planted_precision(attack, **options)
    assert found > 0.95
    shuffled, _ = further.planted_precision(attack, shuffled=True, **options)
    assert shuffled < share + 0.1


def test_what_single_codes_do_not_say_is_looked_up_in_pairs(further):
    codes = np.random.default_rng(0).integers(0, 3, (300, 4))
    labels = ((codes[:, 1] == codes[:, 3]) * 1.0)[:, None]
    lookup = further.CodeLookup().fit(codes[:200], labels[:200], (codes[200:250], labels[200:250]))
    assert metrics.auc(labels[250:, 0], lookup.scores(codes[250:])[:, 0]) > 0.95
    unseen = lookup.scores(np.array([[7, 7, 7, 7]]))
    prior = labels[:200].mean()
    assert 1 / (1 + np.exp(-unseen[0, 0])) == pytest.approx(prior, abs=1e-6)


def test_a_gain_is_paired(further):
    """Two attacks that differ by one more clip found: the interval of the gain is narrower than those of the two."""
    rng = np.random.default_rng(1)
    people = np.repeat([f"p{place:02d}" for place in range(40)], 5)
    labels = np.repeat(rng.integers(0, 2, 40), 5)[:, None].astype(float)
    scores = (labels + rng.normal(size=(200, 1)) * 2)[None, None]

    def attack(scores: np.ndarray) -> Attack:
        precision = np.array([[metrics.average_precisions(labels, scores[0, 0])]])
        return Attack(("one",), labels, people, people, scores, precision, Scored(labels, people, people, scores))

    evaluator = Evaluator(
        Questions.binary(("gender",)), prior=np.array([0.5]), num_resamples=200, num_swaps=20, margin=0.05
    )
    ensemble = attack(scores)
    assert further.gain(ensemble, ensemble, evaluator).value == 0
    better = further.gain(attack(scores + 0.2 * (labels - 0.5)), ensemble, evaluator)
    assert 0 < better.low < better.value < better.high
    alone = np.ptp(metrics.percentile_interval(further.AttackScore.of(ensemble, evaluator).drawn[:, 0]))
    assert better.high - better.low < 0.5 * alone
    worse = further.gain(attack(rng.normal(size=scores.shape)), ensemble, evaluator)
    assert worse.high < 0
