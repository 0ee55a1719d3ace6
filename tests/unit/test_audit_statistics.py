"""The audit's statistics against hand calculation, scikit-learn, closed forms and loops that really repeat rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from splavu import metrics
from splavu.metrics import inference, resampling


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def draw(generator, num_rows=300, num_attributes=3, *, ties=False):
    labels = (generator.random((num_rows, num_attributes)) < 0.4).astype(np.float64)
    scores = generator.normal(size=labels.shape) + labels
    return labels, np.round(scores) if ties else scores


def repeated(resamples: metrics.Resamples, draw_: int) -> np.ndarray:
    return np.repeat(np.arange(len(resamples.cluster_of_row)), resamples.counts[draw_][resamples.cluster_of_row])


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04 -> never falling
    adjusted = inference.holm([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(inference.holm([0.9, 0.8]), [1, 1])
    assert inference.holm([]).shape == (0,)


def test_holm_keeps_the_family_wise_error(generator):
    # Of 20 true nulls, tested 2000 times, any is rejected about 5 % of the time: 4 deviations are 2 points.
    rejected = [inference.holm(generator.random(20)).min() <= 0.05 for _ in range(2000)]
    assert 0.03 < np.mean(rejected) < 0.07


def test_p_value_counts_draws(generator):
    draws = np.array([-1.0, 0.0, 1.0, 2.0])
    assert inference.bootstrap_p_value(draws) == pytest.approx(3 / 5)
    assert inference.bootstrap_p_value(draws, alternative="less") == pytest.approx(4 / 5)
    assert inference.bootstrap_p_value(draws, alternative="two-sided") == 1
    assert inference.bootstrap_p_value(np.append(np.ones(98), np.nan)) == pytest.approx(2 / 100)
    with pytest.raises(KeyError):
        inference.bootstrap_p_value(draws, alternative="bigger")


def test_equivalence_needs_both_tests(generator):
    around = generator.normal(0.5, 0.01, size=4000)
    within = inference.equivalence(around, chance=0.5, margin=0.03)
    assert within.equivalent
    assert within.p <= 0.01
    np.testing.assert_allclose([within.low, within.high], [0.5 - 0.01645, 0.5 + 0.01645], atol=0.002)
    assert not inference.equivalence(around + 0.02, chance=0.5, margin=0.03).equivalent
    assert not inference.equivalence(around - 0.02, chance=0.5, margin=0.03).equivalent
    assert not inference.equivalence(around, chance=0.5, margin=0.01).equivalent
    assert within.reach == pytest.approx(0.01645, abs=0.002)
    assert inference.equivalence(around, chance=0.5, margin=within.reach + 1e-4).equivalent
    assert not inference.equivalence(around, chance=0.5, margin=within.reach - 1e-3).equivalent


def test_few_people_are_no_evidence_of_equivalence(generator):
    """The opposite of a test for a difference: wide intervals must not pass."""
    wide = generator.normal(0.5, 0.1, size=4000)
    assert not inference.equivalence(wide, chance=0.5, margin=0.03).equivalent
    assert not inference.equivalence(np.full(100, np.nan), chance=0.5, margin=0.03).equivalent
    mostly = np.where(np.arange(1000) < 100, np.nan, 0.5)
    assert not inference.equivalence(mostly, chance=0.5, margin=0.03).equivalent


@pytest.mark.parametrize("ties", [False, True])
def test_resampled_aucs_are_those_of_repeated_rows(generator, ties, monkeypatch):
    monkeypatch.setattr(resampling, "CHUNK", 1000)
    labels, scores = draw(generator, ties=ties)
    labels[::7, 1] = np.nan
    resamples = metrics.cluster_resamples(np.arange(300) // 10, num_resamples=9, seed=1)
    drawn = inference.resampled_aucs(labels, scores, resamples)
    for r in range(9):
        for a in range(3):
            rows = repeated(resamples, r)
            rows = rows[~np.isnan(labels[rows, a])]
            assert drawn[r, a] == pytest.approx(roc_auc_score(labels[rows, a], scores[rows, a]))
    rows = ~np.isnan(labels[:, 1])
    expected = [roc_auc_score(labels[rows, a], scores[rows, a]) for a in (1,)]
    np.testing.assert_allclose(inference.aucs(labels, scores)[[1]], expected)


def test_one_class_has_no_auc():
    resamples = metrics.cluster_resamples(np.arange(4), num_resamples=5)
    assert np.isnan(inference.resampled_aucs(np.ones((4, 1)), np.ones((4, 1)), resamples)).all()
    assert np.isnan(inference.equal_error_rate(np.ones(4), np.arange(4)))


def slow_tpr(labels, scores, fpr):
    best = 0.0
    for threshold in np.unique(scores):
        if np.mean(scores[labels == 0] >= threshold) <= fpr + 1e-12:
            best = max(best, np.mean(scores[labels == 1] >= threshold))
    return best


@pytest.mark.parametrize("ties", [False, True])
def test_tpr_at_fpr_is_that_of_every_threshold(generator, ties):
    labels, scores = (values[:, 0] for values in draw(generator, ties=ties))
    for fpr in (0.06, 0.1, 0.5, 1.0):
        assert inference.tpr_at_fpr(labels, scores, fpr) == pytest.approx(slow_tpr(labels, scores, fpr))
    resamples = metrics.cluster_resamples(np.arange(300) // 10, num_resamples=5)
    drawn = inference.resampled_tprs(labels, scores, resamples, fpr=0.1)
    for r, value in enumerate(drawn):
        rows = repeated(resamples, r)
        assert value == pytest.approx(slow_tpr(labels[rows], scores[rows], 0.1))


def test_tpr_is_withheld_where_negatives_are_few():
    labels, scores = np.repeat([0.0, 1.0], 1000), np.arange(2000.0)
    assert inference.tpr_at_fpr(labels, scores, 0.01) == 1
    assert inference.tpr_at_fpr(labels[1:], scores[1:], 0.01) is None
    assert inference.tpr_at_fpr(np.zeros(1000), scores[:1000], 0.01) is None
    assert inference.tpr_at_fpr(labels, np.zeros(2000), 0.01) == 0  # all tied: none can be accused


def test_equal_error_rate_of_gaussians(generator):
    # Distance d between unit Gaussians: EER = Phi(-d / 2) = 0.158655 for d = 2.
    labels = np.repeat([0.0, 1.0], 100_000)
    scores = generator.normal(size=200_000) + 2 * labels
    assert inference.equal_error_rate(labels, scores) == pytest.approx(0.158655, abs=0.004)
    assert inference.equal_error_rate(labels, labels) == 0
    assert inference.equal_error_rate(labels, -labels) == 1
    assert inference.equal_error_rate(labels, 0 * labels) == pytest.approx(0.5)


def test_balanced_accuracy_at_thresholds_of_other_rows(generator):
    labels, scores = draw(generator)
    test_labels, test_scores = draw(generator)
    test_labels[::5] = np.nan
    thresholds = inference.best_thresholds(labels, scores)
    for a in range(3):
        tried = [
            balanced_accuracy_score(labels[:, a], scores[:, a] > t) for t in np.append(scores[:, a], thresholds[a])
        ]
        assert tried[-1] == pytest.approx(max(tried))
    kept = ~np.isnan(test_labels[:, 0])
    expected = [balanced_accuracy_score(test_labels[kept, a], (test_scores > thresholds)[kept, a]) for a in range(3)]
    np.testing.assert_allclose(inference.balanced_accuracies(test_labels, test_scores, thresholds), expected)
    resamples = metrics.cluster_resamples(np.arange(300) // 10, num_resamples=4)
    drawn = inference.resampled_balanced_accuracies(test_labels, test_scores, thresholds, resamples)
    rows = repeated(resamples, 3)
    rows = rows[kept[rows]]
    assert drawn[3, 1] == pytest.approx(
        balanced_accuracy_score(test_labels[rows, 1], (test_scores > thresholds)[rows, 1])
    )


def test_scores_that_rank_backwards_get_a_threshold_that_accuses_no_one():
    labels = np.array([[1.0], [1.0], [0.0], [0.0]])
    thresholds = inference.best_thresholds(labels, -labels)
    assert inference.balanced_accuracies(labels, -labels, thresholds) == 0.5
    assert np.isnan(inference.best_thresholds(np.ones((3, 1)), np.zeros((3, 1)))).all()


def test_usable_bits_of_a_binary_symmetric_channel(generator):
    # A label seen through a channel that flips 11 %: 1 - h(0.11) = 0.5001 bits.
    labels = (generator.random((100_000, 1)) < 0.5).astype(float)
    seen = np.where(generator.random(labels.shape) < 0.11, 1 - labels, labels)
    result = inference.usable_bits(labels, np.where(seen > 0, 0.89, 0.11), 0.5)
    np.testing.assert_allclose(result.bits, 0.5001, atol=0.015)
    np.testing.assert_allclose(result.prior_bits, 1.0)
    classes = inference.usable_bits(labels[:, 0], np.where(seen > 0, [0.11, 0.89], [0.89, 0.11]), np.array([0.5, 0.5]))
    assert classes.bits == pytest.approx(result.bits[0])
    np.testing.assert_allclose(classes.per_row.mean(), result.bits[0])


def test_usable_bits_are_cross_entropies(generator):
    labels, scores = draw(generator, num_attributes=2)
    probabilities = 1 / (1 + np.exp(-scores))
    labels[::3, 0] = np.nan
    kept = ~np.isnan(labels[:, 0])
    result = inference.usable_bits(labels, probabilities, np.array([0.3, 0.4]))
    expected = log_loss(labels[kept, 0], np.full(kept.sum(), 0.3)) - log_loss(labels[kept, 0], probabilities[kept, 0])
    assert result.raw[0] == pytest.approx(expected / np.log(2))


def test_an_attacker_who_is_worse_than_the_prior_has_no_bits():
    result = inference.usable_bits(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.5)
    assert result.bits == 0
    assert result.raw == pytest.approx(1 - inference.FEWEST_BITS)


def test_platt_finds_the_line_that_made_the_labels(generator):
    scores = generator.normal(5, 3, size=(20_000, 1))
    labels = (generator.random(scores.shape) < 1 / (1 + np.exp(-(0.7 * scores - 3)))).astype(float)
    fitted = inference.platt_scaling(labels, scores)
    expected = LogisticRegression(C=1e9).fit(scores, labels[:, 0])
    np.testing.assert_allclose(fitted.slope, expected.coef_[0], atol=2e-3)
    np.testing.assert_allclose(fitted(scores[:9]), expected.predict_proba(scores[:9])[:, 1:], atol=2e-3)


def test_platt_stays_finite_on_separated_and_on_missing_labels():
    labels, scores = np.repeat([[0.0], [1.0]], 20, axis=0), np.arange(40.0)[:, None]
    probabilities = inference.platt_scaling(labels, scores)(scores)
    # Where the loss has no slope: residuals against 1 / 22 and 21 / 22 sum to 0, and so they do times the score.
    residuals = probabilities - np.where(labels > 0, 21 / 22, 1 / 22)
    np.testing.assert_allclose([residuals.sum(), (residuals * scores).sum()], 0, atol=1e-6)
    empty = inference.platt_scaling(np.full((3, 1), np.nan), np.ones((3, 1)))
    np.testing.assert_array_equal(empty(np.ones((2, 1))), 0.5)


def probe(features, labels):
    fitted = LogisticRegression().fit(features, labels)
    return fitted.predict_proba


def test_random_labels_cost_as_much_as_without_features(generator):
    features, labels = generator.normal(size=(2000, 3)), generator.integers(0, 2, 2000)
    code = inference.online_code_length(probe, features, labels)
    assert code.uniform_bits == 2000
    assert code.compression == pytest.approx(1, abs=0.05)
    assert code.ends == (2, 4, 8, 16, 32, 64, 125, 250, 500, 1000, 2000)
    assert sum(code.block_bits) == pytest.approx(code.bits)


def test_a_code_by_hand():
    """A probe that says 0.9 for the right class: block after block, with its mixture."""
    labels = np.array([0, 1] * 8)
    features = labels[:, None].astype(float)

    def sure(_, seen):
        assert len(np.unique(seen)) == 2
        return lambda new: np.where(new > 0, [0.1, 0.9], [0.9, 0.1])

    code = inference.online_code_length(sure, features, labels, (0.5, 0.75, 1.0), seed=3)
    expected = 8 - 4 * np.log2((8 * 0.9 + 1) / 10) - 4 * np.log2((12 * 0.9 + 1) / 14)
    assert code.bits == pytest.approx(expected)
    assert code.compression == pytest.approx(16 / expected)


def test_frequent_classes_are_cheap_for_the_prior_code(generator):
    labels = (generator.random(4000) < 0.05).astype(float)
    code = inference.online_code_length(probe, generator.normal(size=(4000, 2)), labels)
    assert code.compression > 2.5  # h(0.05) = 0.29 bits
    assert code.compression_over_prior == pytest.approx(1, abs=0.05)


def test_people_who_are_recognised_do_not_cheapen_the_code_when_they_stay_together(generator):
    people = np.repeat(np.arange(40), 25)
    identity = generator.normal(size=(40, 60)) * 3
    label_of_person = generator.permutation(np.repeat([0, 1], 20))
    features = identity[people] + generator.normal(size=(1000, 60))
    labels = label_of_person[people]
    apart = inference.online_code_length(probe, features, labels)
    together = inference.online_code_length(probe, features, labels, clusters=people)
    assert apart.compression > 2
    assert together.compression < 1.05
    assert all(end % 25 == 0 for end in together.ends)


def test_single_class_blocks_need_no_probe():
    def refuses(features, labels):
        raise AssertionError("fitted on one class")

    code = inference.online_code_length(refuses, np.zeros((8, 1)), np.zeros(8), (0.5, 1.0), num_classes=2)
    # 4 bits for the first half, then (4 + 1) / (4 + 2) for each of the rest.
    assert code.bits == pytest.approx(4 - 4 * np.log2(5 / 6))
    assert code.prior_bits == code.bits
    with pytest.raises(ValueError, match="label"):
        inference.online_code_length(refuses, np.zeros((2, 1)), np.full(2, np.nan))


def test_simultaneous_intervals_hold_together(generator):
    draws = generator.normal(size=(2000, 6)) * np.arange(1, 7) + 10
    low, high = metrics.simultaneous_intervals(draws)
    inside = ((draws >= low) & (draws <= high)).all(axis=1).mean()
    assert 0.95 <= inside < 0.955
    # of independent ones each is at 0.95 ** (1 / 6), 2.63 deviations, against 1.96 for one alone
    np.testing.assert_allclose((high - low) / np.arange(1, 7) / 2, 2.63, atol=0.25)


def test_simultaneous_intervals_of_one_statistic_are_its_own(generator):
    draws = generator.normal(size=(1000, 1))
    alone = metrics.percentile_interval(draws)
    np.testing.assert_allclose(metrics.simultaneous_intervals(draws), alone, atol=0.05)
    same = metrics.simultaneous_intervals(np.repeat(draws, 4, axis=1))
    np.testing.assert_array_equal(same, np.repeat(metrics.simultaneous_intervals(draws), 4, axis=1))
    np.testing.assert_array_equal(metrics.simultaneous_intervals(np.ones((100, 2))), 1)


def test_simultaneous_intervals_without_values(generator):
    draws = generator.normal(size=(1000, 3))
    draws[:30, 0] = np.nan  # 3 %: left out of the others' draws
    draws[:60, 2] = np.nan  # 6 %: undefined
    ends = metrics.simultaneous_intervals(draws)
    assert np.isnan(ends).tolist() == [[False, False, True]] * 2
    np.testing.assert_array_equal(ends[:, :2], metrics.simultaneous_intervals(draws[30:, :2]))
    assert np.isnan(metrics.simultaneous_intervals(draws[:, 2:])).all()


@pytest.mark.slow
def test_the_interval_of_the_least_holds(generator):
    """Means of three measures on the same 30 clusters: the true least lies in [least low, least high]."""
    truth, held = np.array([0.30, 0.35, 0.60]), 0
    for _ in range(400):
        data = truth + generator.multivariate_normal(np.zeros(3), 0.6 * np.eye(3) + 0.4, size=30) * 0.3
        counts = generator.multinomial(30, np.full(30, 1 / 30), size=400)
        low, high = metrics.simultaneous_intervals(counts @ data / 30)
        held += low.min() <= truth.min() <= high.min()
    assert held / 400 > 0.92
