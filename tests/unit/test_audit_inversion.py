"""Inversion where the answer is known: maps with an inverse, projections, noise, and scikit-learn's R2 and ridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from splavu import metrics
from splavu.audit.identity import inversion as module
from splavu.audit.identity.inversion import INVERTERS, inversion, learn_mlp, learn_ridge

WIDTH = 12
SPREAD = np.logspace(0, -3, WIDTH)
"""Of the raw dimensions."""


def draw(seed: int, num_people: int = 20, clips: int = 15):
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(num_people), clips)
    raw = (rng.normal(size=(num_people, WIDTH))[people] + rng.normal(size=(len(people), WIDTH))) * SPREAD + 3.0
    return raw, people


def release(raw: np.ndarray) -> np.ndarray:
    """An affine map that squeezes half of the directions to a ten-thousandth."""
    rng = np.random.default_rng(99)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    return (raw - 3.0) / SPREAD @ turn * np.where(np.arange(WIDTH) % 2, 1.0, 1e-4) @ turn.T + 1.0


@pytest.mark.parametrize("kind", INVERTERS)
def test_an_affine_map_is_undone(kind):
    (train, _), (validation, _), (test, people) = draw(1, 40), draw(2), draw(3)
    inverter = INVERTERS[kind](release(train), train, (release(validation), validation))
    result = inversion(inverter(release(test)), test, people, num_resamples=50)
    assert result.explained.value > 0.9999
    assert result.explained_between.value > 0.9999
    assert result.per_dimension.min() > 0.999
    assert result.top1.value > 0.99
    assert result.median_rank.value == 1
    assert result.top1.chance == 1 / 300


@pytest.mark.parametrize("kind", INVERTERS)
def test_noise_tells_nothing(kind):
    (train, _), (validation, _), (test, people) = draw(1, 40), draw(2), draw(3)
    noise = [np.random.default_rng(seed).normal(size=rows.shape) for seed, rows in enumerate((train, validation, test))]
    inverter = INVERTERS[kind](noise[0], train, (noise[1], validation))
    result = inversion(inverter(noise[2]), test, people, num_resamples=200)
    assert abs(result.explained.value) < 0.1
    assert result.top1.value < 0.02
    assert result.median_rank.low < result.median_rank.chance < result.median_rank.high


def test_half_of_the_variance_comes_back_from_half_of_the_dimensions():
    rng = np.random.default_rng(0)
    train, validation, test = (rng.normal(size=(2000, WIDTH)) for _ in range(3))
    inverter = learn_ridge(train[:, ::2], train, (validation[:, ::2], validation))
    result = inversion(inverter(test[:, ::2]), test, np.arange(2000) // 10, num_resamples=200)
    assert result.explained.value == pytest.approx(0.5, abs=0.03)
    assert result.explained.low < 0.5 < result.explained.high
    np.testing.assert_allclose(result.per_dimension, [1, 0] * (WIDTH // 2), atol=0.03)


def test_explained_variance_is_that_of_scikit_learn():
    raw, people = draw(5)
    guess = raw + np.random.default_rng(6).normal(size=raw.shape) * SPREAD
    result = inversion(guess, raw, people, num_resamples=6, seed=4)
    assert result.explained.value == pytest.approx(r2_score(raw, guess, multioutput="variance_weighted"))
    np.testing.assert_allclose(result.per_dimension, r2_score(raw, guess, multioutput="raw_values"))
    means, guesses = (np.stack([rows[people == p].mean(axis=0) for p in range(20)]) for rows in (raw, guess))
    assert result.explained_between.value == pytest.approx(r2_score(means, guesses, multioutput="variance_weighted"))
    resamples = metrics.cluster_resamples(people, num_resamples=6, seed=4)
    slow, medians = [], []
    for counts in resamples.counts:
        rows = np.repeat(np.arange(len(people)), counts[people])
        slow.append(1 - np.square(guess - raw)[rows].sum() / np.square(raw - raw.mean(axis=0))[rows].sum())
        medians.append(np.quantile(result.ranks[rows], 0.5, method="inverted_cdf"))
    np.testing.assert_allclose([result.explained.low, result.explained.high], np.quantile(slow, [0.025, 0.975]))
    np.testing.assert_allclose([result.median_rank.low, result.median_rank.high], np.quantile(medians, [0.025, 0.975]))


def test_ranks_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)
    raw, people = draw(5, 4)
    guess = raw + np.random.default_rng(6).normal(size=raw.shape) * 2 * SPREAD
    result = inversion(guess, raw, people, num_resamples=5)
    searched = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    for row, query in enumerate((guess - raw.mean(axis=0)) / raw.std(axis=0)):
        cosines = [query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in searched]
        assert result.ranks[row] == 1 + sum(cosine > cosines[row] + 1e-9 for cosine in cosines)
    assert result.top1.value == np.mean(result.ranks == 1)


def test_a_constant_guess_has_the_rank_and_the_score_of_chance():
    raw, people = draw(5)
    result = inversion(np.broadcast_to(raw.mean(axis=0), raw.shape), raw, people, num_resamples=20)
    assert result.explained.value == pytest.approx(0)
    assert result.median_rank.value == result.median_rank.chance == 150.5
    assert result.top1.value == pytest.approx(result.top1.chance)


def test_ridge_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    inputs, targets, wanted = rng.normal(size=(60, 5)), rng.normal(size=(60, 3)), rng.normal(size=(30, 5))
    inputs = inputs / inputs.std(axis=0)
    penalty = 0.3
    unit = np.square(np.linalg.svd(inputs - inputs.mean(axis=0))[1]).mean()
    expected = Ridge(alpha=penalty * unit).fit(inputs, targets).predict(wanted)
    mine = learn_ridge(inputs, targets, (inputs, targets), penalties=(penalty,))
    np.testing.assert_allclose(mine(wanted), expected)


def test_the_network_adds_what_a_line_cannot():
    rng = np.random.default_rng(0)
    train, validation, test = (rng.normal(size=(2000, 4)) for _ in range(3))
    pairs = (train, np.abs(train)), (validation, np.abs(validation))
    ridge, network = learn_ridge(*pairs[0], pairs[1]), learn_mlp(*pairs[0], pairs[1], hidden=64)
    people = np.arange(2000) // 5
    assert inversion(ridge(test), np.abs(test), people, num_resamples=5).explained.value < 0.05
    assert inversion(network(test), np.abs(test), people, num_resamples=5).explained.value > 0.8


def test_the_network_is_drawn_by_its_seed_alone():
    raw, _ = draw(1)
    state = torch.get_rng_state()
    first, again = (learn_mlp(release(raw) ** 2, raw, (release(raw), raw), max_epochs=2, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first(raw), again(raw))
    assert torch.equal(state, torch.get_rng_state())
