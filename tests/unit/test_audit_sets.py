"""Sets against slow loops; the attention attacker where one clip of a set tells, and where none does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from refusals import refused
from sklearn.metrics.pairwise import cosine_similarity

from splavu import metrics
from splavu.audit.attributes import set_attackers as module
from splavu.audit.attributes.set_attackers import AttentionPooling, ClipSets, maximum_similarity, pool
from splavu.audit.identity.linkage import linked
from splavu.audit.identity.similarity import Metric

NAMES = np.array(["b", "a", "b", "c", "a", "b"])


def test_pooling_is_that_of_a_loop():
    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    expected = {
        "mean": lambda rows: rows.mean(axis=0),
        "mean+std": lambda rows: np.concatenate([rows.mean(axis=0), rows.std(axis=0)]),
        "max": lambda rows: rows.max(axis=0),
    }
    for how, slow in expected.items():
        names, pooled = pool(features, NAMES, how)
        assert names.tolist() == ["a", "b", "c"]
        np.testing.assert_allclose(pooled, [slow(features[name == NAMES]) for name in names], atol=1e-6)
    with refused("pooling"):
        pool(features, NAMES, "meen")


def test_sets_hold_their_clips_and_nothing_else():
    features = np.arange(12.0).reshape(6, 2)
    sets = ClipSets.of(features, NAMES)
    assert sets.names.tolist() == ["a", "b", "c"]
    assert sets.features.shape == (3, 3, 2)
    for place, name in enumerate(sets.names):
        np.testing.assert_array_equal(sets.features[place][sets.mask[place]], features[name == NAMES])
    assert (sets.features[~sets.mask] == 0).all()
    thinned = ClipSets.of(np.arange(10.0)[:, None], ["x"] * 10, max_clips=4)
    assert thinned.features[0, :, 0].tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize("excluded", [False, True])
def test_the_most_similar_pair_is_that_of_a_loop(excluded, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 3)
    rng = np.random.default_rng(0)
    probes, gallery = rng.normal(size=(7, 4)), rng.normal(size=(6, 4))
    probe_sets, videos = (
        np.array([2, 1, 2, 1, 0, 0, 2]),
        (np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 2, 3, 0, 0, 1])),
    )
    found, probe_names, gallery_names = maximum_similarity(
        probes, probe_sets, gallery, NAMES, exclude=videos if excluded else None
    )
    similarity = cosine_similarity(probes, gallery)
    if excluded:
        similarity[videos[1][:, None] == videos[0][None]] = -np.inf
    for i, probe in enumerate(probe_names):
        for j, name in enumerate(gallery_names):
            assert found[i, j] == pytest.approx(similarity[probe_sets == probe][:, name == NAMES].max())
    assert np.isneginf(found).any() == excluded  # set 0 has video 0 alone, set "c" too


def test_sets_that_never_meet_are_left_out_of_linking():
    similarity = np.random.default_rng(0).uniform(-1, 1, size=(16, 16))
    own, people = np.arange(16), np.arange(16) // 2
    infinite = linked(np.where(own[:, None] == own, -np.inf, similarity), people, people, num_resamples=9)
    excluded = linked(similarity, people, people, exclude=(own, own), num_resamples=9)
    np.testing.assert_array_equal(infinite.mated, excluded.mated)
    assert infinite.rank1 == excluded.rank1
    assert infinite.eer == excluded.eer
    for name, draws in excluded.draws.items():
        if name != "d_sys_corrected":  # whom exchanged people don't meet is known by names alone
            np.testing.assert_array_equal(infinite.draws[name], draws)


def test_a_metric_is_applied_to_either_side():
    rows = np.random.default_rng(0).normal(size=(4, 3))
    swap = Metric(gallery=lambda x: x[:, ::-1], probes=lambda x: x, name="reversed")
    found, _, _ = maximum_similarity(rows, range(4), rows[:, ::-1], range(4), metric=swap)
    np.testing.assert_allclose(np.diag(found), 1)


def draw(seed: int, *, signal: float = 4.0, num_sets: int = 150):
    """Sets of 3 to 8 clips. Attribute 0 shows in one clip of the set, attribute 1 in the mean, attribute 2 nowhere."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 9, num_sets)
    names = np.repeat(np.arange(num_sets), sizes)
    labels = rng.integers(0, 2, size=(num_sets, 3)).astype(np.float64)
    features = rng.normal(size=(len(names), 8))
    telling = np.cumsum(sizes) - rng.integers(1, sizes + 1)
    features[telling, 0] += signal  # the clip to look at, for either label
    features[telling, 1] += signal * (2 * labels[:, 0] - 1)
    features[:, 2] += signal / 4 * (2 * labels[names, 1] - 1)
    return ClipSets.of(features, names), labels


def test_attention_finds_the_clip_that_tells():
    sets, labels = draw(1, num_sets=300)
    labels[::7, 1] = np.nan
    attacker = AttentionPooling(recipes=(("standardise", 1e-3, 1e-1),), max_epochs=20).fit(sets, labels, draw(2))
    test, truth = draw(3, num_sets=300)
    scores = attacker.scores(test)
    areas = [metrics.auc(truth[:, a], scores[:, a]) for a in range(3)]
    assert scores.shape == (300, 3)
    assert areas[0] > 0.9
    assert areas[1] > 0.9
    assert abs(areas[2] - 0.5) < 0.12


def test_padding_and_the_order_of_clips_do_not_matter():
    sets, labels = draw(1, num_sets=40)
    attacker = AttentionPooling(max_epochs=2).fit(sets, labels, draw(2, num_sets=40))
    test, _ = draw(3, num_sets=10)
    scores = attacker.scores(test)
    wider = np.full((10, test.mask.shape[1] + 3, 8), 1e3, dtype=np.float32)
    mask = np.zeros(wider.shape[:2], dtype=bool)
    for place in range(10):
        clips = test.features[place][test.mask[place]][::-1]
        wider[place, 2 : 2 + len(clips)], mask[place, 2 : 2 + len(clips)] = clips, True
    np.testing.assert_allclose(attacker.scores(ClipSets(wider, mask, test.names)), scores, atol=1e-5)


def test_the_attacker_is_drawn_by_its_seed_alone():
    sets, labels = draw(1, num_sets=40)
    state = torch.get_rng_state()
    scores = [AttentionPooling(max_epochs=2, seed=s).fit(sets, labels, draw(2)).scores(sets) for s in (5, 5, 6)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    assert torch.equal(state, torch.get_rng_state())


def test_drawn_parts_are_parts_with_a_clip_each():
    torch.manual_seed(0)
    mask = torch.arange(6) < torch.arange(1, 7)[:, None]
    parts = torch.stack([module._drawn_part(mask) for _ in range(200)])
    assert (parts.sum(dim=2) >= 1).all()
    assert not (parts & ~mask).any()
    assert (parts.any(dim=0) == mask).all()
