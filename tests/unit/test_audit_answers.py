"""Which class, how large a value: found where planted, right by hand, chance where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from splavu import metrics
from splavu.audit.answers import Answers


def answers(truth, scores, *, people=None, tuned=None, seed=0):
    """Of one seed of attackers; validation units look like the test's unless they are given."""
    people = np.arange(len(truth)) if people is None else people
    resamples = metrics.cluster_resamples(people, num_resamples=200, seed=seed)
    labels, tuned_scores = tuned if tuned is not None else (np.zeros((1, scores.shape[-1])), scores)
    return Answers(
        truth, scores[None], labels, tuned_scores[None], resamples, np.ones((200, 1)),
        metrics.permuted_rows(people, num_permutations=200, seed=seed),
    )  # fmt: skip


def classes(seed, *, strength, people=60, num_classes=3):
    """Everyone's class, scores of one question a class, and the labels of those questions."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(num_classes, size=people)
    labels = (truth[:, None] == np.arange(num_classes)).astype(float)
    return truth.astype(float), strength * labels + rng.normal(size=labels.shape), labels


def test_a_value_is_ranked_by_the_mean_of_its_answers_in_units_of_their_spread():
    """The second question's scores are a thousand times larger and must not drown the first."""
    truth = np.arange(6.0)
    scores = np.stack([[0, 1, 2, 3, 4, 5], np.array([1, 0, 1, 0, 1, 0]) * 1000], axis=1).astype(float)
    (found,) = answers(truth, scores).of_value()
    level = scores[:, 0] / scores[:, 0].std() + scores[:, 1] / scores[:, 1].std()
    ranks = np.argsort(np.argsort(level))
    assert found.estimate.value == pytest.approx(np.corrcoef(ranks, truth)[0, 1])


def test_classes_are_named_and_rare_ones_count_as_much():
    truth, scores, labels = classes(0, strength=8.0)
    top1, balanced = answers(truth, scores, tuned=(labels, scores)).of_class()
    assert top1.estimate.value == balanced.estimate.value == 1
    assert top1.p < 0.01
    always = np.zeros((60, 3))
    always[:, 0] = 1  # the same class for all: right as often as there are such, a third of the classes
    top1, balanced = answers(truth, always, tuned=(labels, always)).of_class()
    assert top1.estimate.value == pytest.approx(max(np.mean(truth == c) for c in range(3)))
    assert balanced.estimate.value == pytest.approx(1 / 3)


def test_an_unknown_class_is_left_out():
    truth, scores, labels = classes(1, strength=8.0)
    truth[:20] = np.nan
    top1, _ = answers(truth, scores, tuned=(labels, scores)).of_class()
    assert top1.estimate.value == 1


@pytest.mark.parametrize("kind", ["class", "value"])
def test_where_there_is_nothing_p_values_are_right(kind):
    """Of 100 studies p <= 0.05 in at most 13, both figures of classes together in at most 24 (binomial, 0.1 %)."""
    rejected = 0
    for seed in range(100):
        truth, scores, _ = classes(seed, strength=0.0)
        _, tuned, labels = classes(1000 + seed, strength=0.0)
        one = answers(truth, scores, tuned=(labels, tuned), seed=seed)
        rejected += sum(found.p <= 0.05 for found in (one.of_class() if kind == "class" else one.of_value()))
    assert rejected <= (24 if kind == "class" else 13)
