"""Spearman's correlation: as SciPy has it, on draws and under permutations of subjects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from splavu.metrics import cluster_resamples, permuted_rows
from splavu.metrics.correlation import permuted_spearman, resampled_spearman, spearman


def study(seed, *, strength=0.0, people=30, clips=3):
    """Values of people, with ties; scores that follow them by `strength`."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=people), 1).repeat(clips)
    scores = np.round(strength * values + rng.normal(size=people).repeat(clips) + rng.normal(size=len(values)), 1)
    return values, scores, np.arange(people).repeat(clips)


def test_it_is_scipys_with_ties_and_without_unknown_values():
    values, scores, _ = study(0, strength=1.0)
    values[:10] = np.nan
    assert spearman(values, scores) == pytest.approx(spearmanr(values[10:], scores[10:]).statistic)


def test_a_draw_is_ranked_as_the_rows_that_were_drawn():
    values, scores, people = study(1, strength=1.0)
    values[4] = np.nan
    resamples = cluster_resamples(people, num_resamples=5)
    found = resampled_spearman(values, scores, resamples)
    for counts, one in zip(resamples.counts, found, strict=True):
        rows = np.repeat(np.arange(len(values)), counts[people])
        rows = rows[~np.isnan(values[rows])]
        assert one == pytest.approx(spearmanr(values[rows], scores[rows]).statistic)


def test_a_permutation_is_that_of_the_values_lent():
    values, scores, people = study(2)
    permuted = permuted_rows(people, num_permutations=5)
    found = permuted_spearman(values, scores, permuted)
    expected = [spearmanr(values[lent], scores).statistic for lent in permuted]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("constant", ["values", "scores"])
def test_what_does_not_vary_has_no_correlation(constant):
    values, scores = np.arange(4.0), np.arange(4.0)
    (values if constant == "values" else scores)[:] = 1
    assert np.isnan(spearman(values, scores))


def test_intervals_hold_the_truth_and_p_values_are_right():
    """100 studies: the interval holds the population's correlation of persons' means in at least 85 (binomial of 0.95,
    0.01 %); without any, p <= 0.05 in at most 13 (0.04 %)."""
    truth = spearmanr(*study(99, strength=1.0, people=20_000)[:2]).statistic
    held = rejected = 0
    for seed in range(100):
        values, scores, people = study(seed, strength=1.0)
        low, high = np.quantile(resampled_spearman(values, scores, cluster_resamples(people)), [0.025, 0.975])
        held += low <= truth <= high
        values, scores, people = study(seed)
        null = permuted_spearman(values, scores, permuted_rows(people, num_permutations=400))
        rejected += (1 + np.sum(null >= spearman(values, scores))) / 401 <= 0.05
    assert held >= 85
    assert rejected <= 13
