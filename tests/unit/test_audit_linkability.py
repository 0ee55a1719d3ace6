"""Linkability against closed forms, slow loops over pairs, `retrieval`, and features with and without identity."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused
from sklearn.metrics.pairwise import cosine_similarity

from splavu import metrics
from splavu.audit.identity import pair_scores
from splavu.audit.identity.linkage import d_sys, linkability, linked
from splavu.metrics import retrieval


def draw(seed: int, *, identity: float = 1.0, num_people: int = 12, clips: int = 6, width: int = 10):
    rng = np.random.default_rng(seed)
    people = np.tile(np.arange(num_people), clips)
    return identity * rng.normal(size=(num_people, width))[people] + rng.normal(size=(len(people), width)), people


def halves(seed: int, **options):
    features, people = draw(seed, **options)
    gallery = np.arange(len(people)) < len(people) // 2
    return features[gallery], people[gallery], features[~gallery], people[~gallery]


def test_d_sys_of_distributions_apart_and_alike():
    rng = np.random.default_rng(0)
    assert d_sys(rng.uniform(2, 3, 5000), rng.uniform(0, 1, 5000)) == 1
    assert (
        d_sys(rng.uniform(0, 1, 5000), rng.uniform(2, 3, 5000)) == 1
    )  # as linkable when mates are the dissimilar ones
    same = rng.permutation(np.repeat(np.linspace(0, 1, 100), 50))
    assert d_sys(same, same) == 0
    assert d_sys(np.ones(10), np.ones(99)) == 0
    assert d_sys(rng.normal(size=50_000), rng.normal(size=50_000)) < 0.03


def test_d_sys_of_overlapping_uniforms():
    # Mated on [0, 1], non-mated on [0.5, 1.5]: LR is infinite on one half and 1 on the other.
    rng = np.random.default_rng(0)
    assert d_sys(rng.uniform(0, 1, 100_000), rng.uniform(0.5, 1.5, 100_000)) == pytest.approx(0.5, abs=0.02)
    # Mated twice as dense on its half of [0, 2]: D = (1 - 1/2) / (1 + 1/2) = 1/3 everywhere.
    assert d_sys(rng.uniform(0, 1, 100_000), rng.uniform(0, 2, 100_000)) == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("excluded", [False, True])
def test_everything_is_that_of_loops_over_pairs(excluded, monkeypatch):
    monkeypatch.setattr(pair_scores, "TALLY", 4000)  # tallies in several blocks
    gallery, gallery_ids, probes, probe_ids = halves(3, num_people=5, clips=8)
    probe_ids = np.where(probe_ids == 4, 9, probe_ids)  # one who is not in the gallery
    views = (np.arange(len(gallery)) % 3, np.arange(len(probes)) % 3)
    found = linkability(
        gallery, gallery_ids, probes, probe_ids, exclude=views if excluded else None, num_resamples=8, seed=2
    )
    similarity = cosine_similarity(probes, gallery)
    mated, non_mated = [], []
    for p in range(len(probes)):
        for g in range(len(gallery)):
            if not (excluded and views[0][g] == views[1][p]):
                (mated if probe_ids[p] == gallery_ids[g] else non_mated).append(similarity[p, g])
    np.testing.assert_allclose(found.mated, mated)
    np.testing.assert_allclose(found.non_mated, non_mated)
    wanted = retrieval.retrieve(
        probes,
        gallery,
        probe_people=probe_ids,
        gallery_people=gallery_ids,
        **({"gallery_views": views[0], "probe_views": views[1]} if excluded else {}),
    )
    assert found.rank1.value == pytest.approx(np.nanmean(wanted.rank1))
    assert found.mean_ap.value == pytest.approx(np.nanmean(wanted.average_precision))
    fives = []
    for p in np.flatnonzero(probe_ids != 9):
        met = [g for g in range(len(gallery)) if not (excluded and views[0][g] == views[1][p])]
        nearest = sorted(met, key=lambda g: -similarity[p, g])[:5]
        fives.append(any(gallery_ids[g] == probe_ids[p] for g in nearest))
    assert found.rank5.value == pytest.approx(np.mean(fives))

    low, high = min(mated + non_mated), max(mated + non_mated)
    bins = round(2 * len(mated) ** (1 / 3))  # there are fewer mated than other pairs
    draws = metrics.cluster_resamples(np.arange(6), num_resamples=8, seed=2).counts  # people 0 to 4, and 9
    number = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 9: 5}
    slow = []
    for counts in draws:
        tallies = np.zeros((2, bins))
        for p in range(len(probes)):
            for g in range(len(gallery)):
                if not (excluded and views[0][g] == views[1][p]):
                    same = probe_ids[p] == gallery_ids[g]
                    weight = counts[number[probe_ids[p]]] * (1 if same else counts[number[gallery_ids[g]]])
                    step = min(bins - 1, int((similarity[p, g] - low) / (high - low) * bins))
                    tallies[int(same), step] += weight
        other, own = tallies / tallies.sum(axis=1, keepdims=True)
        slow.append(sum(o * max(0, (o - n) / (o + n)) for o, n in zip(own, other, strict=True) if o + n > 0))
    slow += found.d_sys.value - np.mean(slow)
    np.testing.assert_allclose([found.d_sys.low, found.d_sys.high], np.quantile(slow, [0.025, 0.975]), atol=1e-9)


def test_exchanged_people_are_never_themselves():
    gallery, gallery_ids, probes, probe_ids = halves(3, identity=50, num_people=4)
    found = linkability(gallery, gallery_ids, probes, probe_ids, num_resamples=20, num_permutations=100)
    similarity, slow = cosine_similarity(probes, gallery), []
    true = gallery_ids[None] == probe_ids[:, None]
    for couple in ([1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]):  # all there are
        taken = gallery_ids[None] == np.array(couple)[probe_ids][:, None]
        steps = np.histogram_bin_edges(similarity, round(2 * len(found.mated) ** (1 / 3)))
        own, other = (np.histogram(similarity[rows], steps)[0] / rows.sum() for rows in (taken, ~taken & ~true))
        slow.append(sum(o * max(0, o - n) / (o + n) for o, n in zip(own, other, strict=True) if o + n > 0))
    assert found.d_sys.value > 0.99  # were a true pair among the exchanged ones, its score would stand out
    assert found.d_sys_null.shape == (100,)
    np.testing.assert_allclose(np.unique(np.round(found.d_sys_null, 12)), np.sort(slow))
    assert found.p == 1 / 4  # of three exchanges and the truth


def test_a_store_linked_with_itself_without_identity_is_at_chance():
    """Every pair counts twice there, and no video meets itself: the exchanged people must have it likewise."""
    rng, found = np.random.default_rng(0), []
    people, videos = np.repeat(np.arange(16), 12), np.repeat(np.arange(64), 3)
    for seed in range(40):
        features = rng.normal(size=(64, 10))[videos] + 0.5 * rng.normal(size=(192, 10))
        options = {"exclude": (videos, videos), "num_resamples": 40, "num_permutations": 99, "seed": seed}
        found.append(linkability(features, people, features, people, **options))
    corrected = [result.d_sys_corrected for result in found]
    assert abs(np.mean([c.value for c in corrected])) < 0.01
    assert np.mean([c.low <= 0 <= c.high for c in corrected]) > 0.85
    assert np.mean([result.p <= 0.1 for result in found]) < 0.25


def test_features_without_identity_are_at_chance():
    """Few scores inflate D_sys; corrected it is about 0, on average over sets."""
    found = [
        linkability(*halves(seed, identity=0), num_resamples=40, num_permutations=100, seed=seed) for seed in range(40)
    ]
    raw, corrected, p = (
        [result.d_sys.value for result in found],
        [result.d_sys_corrected.value for result in found],
        [result.p for result in found],
    )
    assert np.mean(raw) > 0.05
    assert abs(np.mean(corrected)) < 0.01
    inside = [result.d_sys_corrected.low <= 0 <= result.d_sys_corrected.high for result in found]
    assert np.mean(inside) > 0.85
    assert np.mean(np.array(p) <= 0.05) < 0.15
    for name in ("rank1", "rank5", "mean_ap", "eer"):
        values = [getattr(result, name).value for result in found]
        assert np.mean(values) == pytest.approx(getattr(found[0], name).chance, abs=0.03), name


def test_features_of_people_are_linked():
    found = linkability(*halves(1, identity=4), num_resamples=100, num_permutations=100)
    assert found.rank1.value > 0.9
    assert found.eer.value < 0.05
    assert found.d_sys.low > 0.8
    assert found.p == pytest.approx(1 / 101)


def test_chance_of_ranks_and_precision_is_that_of_drawn_orders():
    rng = np.random.default_rng(0)
    gallery_ids, probe_ids = np.repeat([0, 1, 2], [2, 3, 7]), np.array([0, 1, 2])
    drawn = [
        linked(rng.normal(size=(3, 12)), gallery_ids, probe_ids, num_resamples=2, num_permutations=2)
        for _ in range(200)
    ]
    for name in ("rank1", "rank5", "mean_ap"):
        values = [getattr(result, name).value for result in drawn]
        assert np.mean(values) == pytest.approx(getattr(drawn[0], name).chance, abs=0.03), name


def test_equal_scores_are_no_find():
    found = linked(np.zeros((3, 12)), np.repeat([0, 1, 2], 4), [0, 1, 2], num_resamples=5)
    assert found.rank1.value == pytest.approx(found.rank1.chance)
    assert found.rank5.value == pytest.approx(found.rank5.chance)
    assert found.d_sys.value == 0
    assert found.eer.value == pytest.approx(0.5)


def test_nothing_to_score_is_told():
    with refused("linkability"):
        linked(np.zeros((2, 2)), [0, 1], [2, 3])
    with refused("linkability"):
        linked(np.zeros((2, 2)), [0, 0], [0, 0])
    with refused("metric"):
        linkability(*halves(1), metric="cosin")


def test_one_person_with_mates_has_nobody_to_be_exchanged_with():
    found = linked(np.random.default_rng(0).normal(size=(4, 6)), [0, 0, 0, 1, 2, 3], [0, 0, 0, 0], num_resamples=5)
    assert len(found.d_sys_null) == 0
    assert found.p == 1
    assert np.isnan(found.d_sys.chance)
    assert np.isnan(found.d_sys_corrected.value)
