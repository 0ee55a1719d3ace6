"""Scores against scikit-learn, resampling against slow loops that really repeat and swap rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from splavu import metrics
from splavu.metrics import resampling
from splavu.metrics.inference import resampled_aucs


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(3)


def draw(generator, num_rows=200, num_attributes=3, ties=False):
    targets = (generator.random((num_rows, num_attributes)) < 0.4).astype(np.float64)
    scores = generator.normal(size=targets.shape) + targets
    return targets, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_scikit_learn(generator, ties):
    targets, scores = draw(generator, ties=ties)
    expected = [sklearn_metrics.average_precision_score(t, s) for t, s in zip(targets.T, scores.T, strict=True)]
    np.testing.assert_allclose(metrics.average_precisions(targets, scores), expected, atol=1e-12)


def test_constant_scores_give_prevalence(generator):
    targets, _ = draw(generator)
    precisions = metrics.average_precisions(targets, np.zeros_like(targets))
    np.testing.assert_allclose(precisions, targets.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(metrics.prevalences(targets), targets.mean(axis=0), atol=1e-12)


def test_unknown_labels_are_left_out(generator):
    targets, scores = draw(generator)
    targets[::5] = np.nan
    kept = np.arange(len(targets)) % 5 != 0
    expected = [
        sklearn_metrics.average_precision_score(t[kept], s[kept]) for t, s in zip(targets.T, scores.T, strict=True)
    ]
    np.testing.assert_allclose(metrics.average_precisions(targets, scores), expected, atol=1e-12)


def test_cmap_names_the_attributes_it_leaves_out(generator):
    targets, scores = draw(generator, num_attributes=4)
    targets[:, 1], targets[:, 3] = 0, 1
    result = metrics.cmap(targets, scores)
    assert result.left_out == (1, 3)
    assert np.isnan(result.per_attribute[[1, 3]]).all()
    both = [sklearn_metrics.average_precision_score(targets[:, a], scores[:, a]) for a in (0, 2)]
    assert result.mean == pytest.approx(np.mean(both))


def test_no_rows_is_no_score():
    assert np.isnan(metrics.average_precision(np.empty(0), np.empty(0)))
    assert np.isnan(metrics.top1(np.empty(0), np.empty((0, 3))))
    assert metrics.video_scores(np.empty((0, 3)), []) == {}


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_that_of_scikit_learn(generator, ties):
    targets, scores = draw(generator, ties=ties)
    target, score = targets[:, 0], scores[:, 0]
    assert metrics.auc(target, score) == pytest.approx(sklearn_metrics.roc_auc_score(target, score))


def test_one_class_has_no_auc():
    assert np.isnan(metrics.auc(np.ones(4), np.arange(4)))


def test_top1():
    assert metrics.top1(np.array([0, 1, 1]), np.array([[2, 1], [0, 3], [5, 4]])) == pytest.approx(2 / 3)


def test_video_scores_average_clips_that_stand_apart():
    clips = np.array([[0.8, 0.2], [0.1, 0.9], [0.4, 0.6]])
    videos = metrics.video_scores(clips, ["b", "a", "b"])
    assert list(videos) == ["b", "a"]
    np.testing.assert_allclose(videos["b"], [0.6, 0.4])
    with pytest.raises(ValueError, match=r"\b3\b.*\b2\b"):
        metrics.video_scores(clips, ["a", "b"])


def test_normalised_leakage():
    anonymized, raw = np.array([0.5, 0.3, 0.9, 0.5]), np.array([0.7, 0.7, 0.7, 0.2])
    leakage = metrics.normalised_leakage(anonymized, raw, np.full(4, 0.3))
    np.testing.assert_allclose(leakage[:3], [0.5, 0.0, 1.5])
    assert np.isnan(leakage[3])


@pytest.mark.parametrize("ties", [False, True])
def test_a_resample_scores_as_if_its_rows_were_repeated(generator, ties):
    targets, scores = draw(generator, num_rows=120, ties=ties)
    targets[generator.random(targets.shape) < 0.1] = np.nan
    clusters = np.array([f"person_{i % 11}" for i in range(120)])
    resamples = metrics.cluster_resamples(clusters, num_resamples=20, seed=5)
    precisions = metrics.resampled_average_precisions(targets, scores, resamples)
    shares = metrics.resampled_prevalences(targets, resamples)
    for resample in range(20):
        counts = resamples.counts[resample]
        assert counts.sum() == 11
        rows = np.repeat(np.arange(120), counts[resamples.cluster_of_row])
        for attribute in range(3):
            known = rows[~np.isnan(targets[rows, attribute])]
            target, score = targets[known, attribute], scores[known, attribute]
            expected = sklearn_metrics.average_precision_score(target, score)
            assert precisions[resample, attribute] == pytest.approx(expected)
            assert shares[resample, attribute] == pytest.approx(target.mean())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("setting", [("CHUNK", 450), ("MOST_CLUSTERS", 3)])
@pytest.mark.parametrize("statistic", [metrics.resampled_average_precisions, resampled_aucs])
def test_how_sums_are_made_does_not_change_the_resamples(generator, monkeypatch, ties, setting, statistic):
    targets, scores = draw(generator, ties=ties)
    resamples = metrics.cluster_resamples(np.arange(200) // 10, num_resamples=30)
    whole = statistic(targets, scores, resamples)
    monkeypatch.setattr(resampling, *setting)
    np.testing.assert_allclose(statistic(targets, scores, resamples), whole, atol=1e-12)


def test_alike_rows_of_a_person_widen_the_interval(generator):
    targets, scores = (np.repeat(array, 25, axis=0) for array in draw(generator, num_rows=40, num_attributes=1))
    width = {}
    for name, clusters in {"row": np.arange(1000), "person": np.arange(1000) // 25}.items():
        resamples = metrics.cluster_resamples(clusters, num_resamples=400)
        ends = metrics.percentile_interval(metrics.resampled_average_precisions(targets, scores, resamples))[:, 0]
        assert ends[0] < metrics.average_precisions(targets, scores)[0] < ends[1]
        width[name] = ends[1] - ends[0]
    assert width["person"] > 3 * width["row"]  # sqrt(25) = 5 for identical rows


def test_interval_is_withheld_where_values_are_missing():
    statistics = np.stack([np.arange(100.0), np.full(100, np.nan), np.arange(100.0)], axis=1)
    statistics[:20, 2] = np.nan
    ends = metrics.percentile_interval(statistics)
    np.testing.assert_allclose(ends[:, 0], [2.475, 96.525])
    assert np.isnan(ends[:, 1:]).all()


def test_permutation_moves_whole_clusters_and_whole_videos(generator):
    clusters = np.repeat(["a", "b", "c", "d"], [6, 6, 9, 3])
    videos = np.array([f"{c}{i // 3}" for i, c in enumerate(clusters)])
    shuffled = generator.permutation(len(clusters))
    clusters, videos = clusters[shuffled], videos[shuffled]
    permuted = metrics.permuted_rows(clusters, videos, num_permutations=200)
    assert permuted.shape == (200, 24)
    for rows in permuted:
        for video in np.unique(videos):
            assert len(set(videos[rows[videos == video]])) == 1
            assert len(set(rows[videos == video])) == 3
        donors = {cluster: set(clusters[rows[clusters == cluster]]) for cluster in "abcd"}
        assert all(len(donor) == 1 for donor in donors.values())
        assert set.union(*donors.values()) == set("abcd")
    assert len({tuple(rows) for rows in permuted}) == 24  # all 4! ways


def test_scores_of_identities_do_not_beat_permuted_identities(generator):
    """A score that knows persons but not the attribute: far from prevalence at times, never far from its null."""
    clusters = np.arange(600) // 20
    inside = []
    for _ in range(40):
        targets = (generator.random((30, 1)) < 0.4).astype(float)[clusters]
        scores = generator.normal(size=(30, 1))[clusters]
        permuted = metrics.permuted_rows(clusters, num_permutations=200)
        null = metrics.permuted_average_precisions(targets, scores, permuted)[:, 0]
        assert null.mean() > targets.mean()  # the bias that prevalence as chance would overlook
        inside.append(metrics.average_precision(targets[:, 0], scores[:, 0]) <= np.quantile(null, 0.975))
    assert np.mean(inside) > 0.9
    informed = targets[:, 0] + 0.3 * generator.normal(size=30)[clusters]
    assert metrics.average_precision(targets[:, 0], informed) > np.quantile(null, 0.975)


def test_permuted_scores_are_those_of_scikit_learn(generator):
    targets, scores = draw(generator, num_rows=60, ties=True)
    permuted = metrics.permuted_rows(np.arange(60) // 6, num_permutations=5)
    null = metrics.permuted_average_precisions(targets, scores, permuted)
    for rows, values in zip(permuted, null, strict=True):
        expected = [sklearn_metrics.average_precision_score(targets[rows, a], scores[:, a]) for a in range(3)]
        np.testing.assert_allclose(values, expected, atol=1e-12)
