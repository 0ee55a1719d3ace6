"""Groups against scikit-learn, resampling against rows that are really repeated."""

from __future__ import annotations

import numpy as np
import pytest
from odds import equalized_odds_difference
from refusals import refused
from sklearn.metrics import accuracy_score

from splavu import metrics
from splavu.metrics import fairness

NUM_CLASSES = 5


def predictions_of(rng, targets, share_right) -> np.ndarray:
    return np.where(rng.random(len(targets)) < share_right, targets, rng.integers(0, NUM_CLASSES, len(targets)))


@pytest.fixture
def sample():
    """600 rows of 20 people, women and men; rows are right more often for men."""
    rng = np.random.default_rng(7)
    people = np.repeat(np.arange(20), 30)
    gender = np.where(people % 5 < 2, "female", "male")
    targets = rng.integers(0, NUM_CLASSES, len(people))
    return targets, predictions_of(rng, targets, np.where(gender == "male", 0.8, 0.5)), gender, people


def odds(targets, predictions, gender) -> list[float]:
    """The difference of each class against the rest."""
    return [equalized_odds_difference(targets == c, predictions == c, gender) for c in range(NUM_CLASSES)]


def test_group_accuracy_is_that_of_each_group_alone(sample):
    targets, predictions, gender, _ = sample
    found = fairness.group_accuracy(targets, predictions, gender)
    alone = [accuracy_score(targets[gender == g], predictions[gender == g]) for g in ("female", "male")]
    assert found.names == ("female", "male")
    assert found.counts.tolist() == [240, 360]
    np.testing.assert_allclose(found.accuracy, alone)
    assert found.overall == pytest.approx(accuracy_score(targets, predictions))
    assert found.gap == pytest.approx(alone[1] - alone[0])
    assert (found.worst, found.best) == ("female", "male")
    assert found.gap_of(np.array([[0.5, 0.4], [0.3, 0.9]])) == pytest.approx([-0.1, 0.6])


def test_three_groups_have_a_best_and_a_worst():
    found = fairness.group_accuracy(np.zeros(6), np.array([0, 0, 0, 1, 1, 1]), [2, 2, 0, 0, 1, 1])
    assert (found.names, found.best, found.worst, found.gap) == (("0", "1", "2"), "2", "1", 1.0)
    assert found.accuracy.tolist() == [0.5, 0.0, 1.0]


def test_equalised_odds_are_those_of_each_class_against_the_rest(sample):
    targets, predictions, gender, _ = sample
    found = fairness.equalised_odds(targets, predictions, gender, num_classes=NUM_CLASSES)
    expected = odds(targets, predictions, gender)
    np.testing.assert_allclose(found.per_class, expected)
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.worst_class == int(np.argmax(expected))
    assert found.left_out == ()


def test_equalised_odds_leave_out_what_a_group_lacks():
    """Class 2 has no row of group b: its true positive rate is no number, and not 0."""
    targets, predictions = np.array([0, 1, 2, 0, 1, 1]), np.array([0, 1, 2, 0, 1, 0])
    group = np.array(list("aaabbb"))
    found = fairness.equalised_odds(targets, predictions, group, num_classes=4)
    assert found.left_out == (2, 3)
    # class 0: TPR 1 and 1, FPR 0/2 and 1/2; class 1: TPR 1 and 1/2, FPR 0/2 and 0/1
    np.testing.assert_allclose(found.per_class, [0.5, 0.5, np.nan, np.nan])
    assert found.mean == pytest.approx(0.5)
    nothing = fairness.equalised_odds(np.array([0, 1]), np.array([0, 1]), ["a", "b"], num_classes=2)
    assert np.isnan(nothing.mean)
    assert nothing.worst_class is None


def test_a_resample_is_as_if_its_people_were_repeated(sample):
    targets, predictions, gender, people = sample
    resamples = metrics.cluster_resamples(people, num_resamples=8, seed=2)
    accuracies = fairness.resampled_group_means(targets == predictions, gender, resamples)
    differences = fairness.resampled_equalised_odds(targets, predictions, gender, resamples, num_classes=NUM_CLASSES)
    for counts, accuracy, difference in zip(resamples.counts, accuracies, differences, strict=True):
        rows = np.repeat(np.arange(len(targets)), counts[people])
        repeated = targets[rows], predictions[rows], gender[rows]
        alone = [accuracy_score(*(array[repeated[2] == g] for array in repeated[:2])) for g in ("female", "male")]
        np.testing.assert_allclose(accuracy, alone)
        assert difference == pytest.approx(np.mean(odds(*repeated)))


def test_permutation_swaps_the_groups_of_whole_people(sample):
    targets, predictions, gender, people = sample
    few = people < 4  # 0 and 1 are women, 2 and 3 men: six ways to choose who is a woman
    targets, predictions, gender, people = (array[few] for array in (targets, predictions, gender, people))
    values = fairness.permuted_equalised_odds(
        targets, predictions, gender, people, num_classes=NUM_CLASSES, num_permutations=200
    )
    ways = {
        round(np.mean(odds(targets, predictions, np.where(np.isin(people, [0, other]), "female", "male"))), 9)
        for other in (1, 2, 3)  # the complement of a choice gives the same difference
    }
    assert {round(value, 9) for value in values} == ways
    with refused(0):
        fairness.permuted_equalised_odds(targets, predictions, np.arange(len(people)) % 2, people, num_classes=5)


def test_a_gap_is_found_where_there_is_one_and_only_there(sample):
    """The claim and its opposite: the interval of the gap excludes 0 under bias, and holds it without."""
    targets, biased, gender, people = sample
    fair = predictions_of(np.random.default_rng(1), targets, 0.7)
    resamples = metrics.cluster_resamples(people, num_resamples=500)
    for predictions, is_biased in ((biased, True), (fair, False)):
        accuracy = fairness.group_accuracy(targets, predictions, gender)
        means = fairness.resampled_group_means(targets == predictions, gender, resamples)
        low, high = metrics.percentile_interval(accuracy.gap_of(means))
        assert low <= accuracy.gap <= high
        assert (low > 0) == is_biased
        odds_mean = fairness.equalised_odds(targets, predictions, gender, num_classes=NUM_CLASSES).mean
        chance = fairness.permuted_equalised_odds(targets, predictions, gender, people, num_classes=NUM_CLASSES)
        assert (odds_mean > np.quantile(chance, 0.975)) == is_biased


def test_group_means_leave_out_what_is_unknown():
    values = np.array([1.0, np.nan, 0.0, 1.0, np.nan])
    found = fairness.group_means(values, ["nm", "nm", "nm", "bg", "cl"])
    assert found["nm"] == 0.5
    assert found["bg"] == 1.0
    assert np.isnan(found["cl"])


def test_one_group_is_no_comparison(sample):
    targets, predictions, _, _ = sample
    for function in (fairness.group_accuracy, lambda *data: fairness.equalised_odds(*data, num_classes=NUM_CLASSES)):
        with refused("groups"):
            function(targets, predictions, ["male"] * len(targets))
