"""Gait figures against loops, and swapped names against galleries that are really renamed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from refusals import refused

from gait.recognition import Walkers, recognise, shares_met, swapped_names
from splavu import metrics
from splavu.data.splits import CASIA_B_REPETITIONS, casia_name, casia_split
from splavu.metrics.retrieval import retrieve


@pytest.fixture
def walks() -> tuple[list[str], np.ndarray]:
    """Five people whose features are half their own; one view of one person is missing, so probes differ in number."""
    rng = np.random.default_rng(1)
    keys, features = [], []
    for subject in range(1, 6):
        person = rng.normal(size=6)
        for (walk, last), view in itertools.product(CASIA_B_REPETITIONS.items(), (0, 90, 180)):
            if (subject, view) != (2, 180):
                keys += [f"{subject:03d}-{walk}-{n:02d}-{view:03d}" for n in range(1, last + 1)]
                features += [person + rng.normal(size=6) for _ in range(last)]
    return keys, np.array(features)


def sides(keys: list[str]) -> tuple[Walkers, Walkers]:
    split = casia_split(keys)
    return Walkers.of(keys, split.probe), Walkers.of(keys, split.gallery)


def found_by_loop(keys: list[str], features: np.ndarray) -> dict[str, bool]:
    """Probe -> whether the most similar gallery video of another view shows the same person."""
    unit = dict(zip(keys, features / np.linalg.norm(features, axis=1, keepdims=True), strict=True))
    split, found = casia_split(keys), {}
    for probe in split.probe:
        met = [key for key in split.gallery if casia_name(key).view != casia_name(probe).view]
        best = max(met, key=lambda key: unit[key] @ unit[probe])
        found[probe] = casia_name(best).subject == casia_name(probe).subject
    return found


def test_rank1_is_that_of_a_loop_for_every_walk_and_view(walks):
    keys, features = walks
    result = recognise(keys, {"raw": features}, num_resamples=20)
    expected = found_by_loop(keys, features)
    raw = result["comparisons"]["raw"]
    assert raw["overall"]["rank1"]["value"] == pytest.approx(np.mean(list(expected.values())))
    for side, part_of in (
        ("by_walk", lambda k: casia_name(k).walk),
        ("by_view", lambda k: str(casia_name(k).view)),
    ):
        assert sorted(raw[side]) == sorted({part_of(key) for key in keys})
        for part, entry in raw[side].items():
            hits = [hit for key, hit in expected.items() if part_of(key) == part]
            assert entry["rank1"]["value"] == pytest.approx(np.mean(hits))
    assert 0.3 < raw["overall"]["rank1"]["value"] < 1
    assert result["change"] == {}


def test_chance_is_the_share_of_ones_own_walks_among_those_met(walks):
    probes, gallery = sides(walks[0])
    shares = shares_met(probes, gallery)
    for p, (subject, view) in enumerate(zip(probes.subjects, probes.views, strict=True)):
        met = [s for s, v in zip(gallery.subjects, gallery.views, strict=True) if v != view]
        assert shares[p] == pytest.approx(met.count(subject) / len(met))
    assert len(set(shares)) > 1


def test_the_interval_moves_subjects_whole(walks):
    keys, features = walks
    raw = recognise(keys, {"raw": features}, num_resamples=40, seed=3)["comparisons"]["raw"]
    hits = found_by_loop(keys, features)
    values, subjects = np.array(list(hits.values()), float), np.array([casia_name(key).subject for key in hits])
    resamples = metrics.cluster_resamples(subjects, num_resamples=40, seed=3)
    repeated = [np.repeat(values, counts[resamples.cluster_of_row]).mean() for counts in resamples.counts]
    assert raw["overall"]["rank1"]["interval"] == pytest.approx(np.quantile(repeated, [0.025, 0.975]))


def test_swapped_names_are_those_of_a_renamed_gallery(walks):
    keys, features = walks
    probes, gallery = sides(keys)

    def rank1(people: np.ndarray) -> float:
        return retrieve(
            features[probes.rows],
            features[gallery.rows],
            probe_people=probes.subjects,
            gallery_people=people,
            probe_views=probes.views,
            gallery_views=gallery.views,
        ).rank1

    names, of_gallery = np.unique(gallery.subjects, return_inverse=True)
    lenders = metrics.cluster_permutations(gallery.subjects, num_permutations=25, seed=2)
    renamed = np.array([np.nan_to_num(rank1(names[lender][of_gallery])).mean() for lender in lenders])
    found = retrieve(
        features[probes.rows],
        features[gallery.rows],
        probe_people=probes.subjects,
        gallery_people=gallery.subjects,
        probe_views=probes.views,
        gallery_views=gallery.views,
    )
    swapped = swapped_names(found, probes, gallery, num_swaps=25, seed=2)
    assert swapped["value"] == pytest.approx(renamed.mean())
    assert swapped["interval"] == pytest.approx(np.quantile(renamed, [0.025, 0.975]))
    assert swapped["p"] == pytest.approx((1 + np.sum(renamed >= found.rank1.mean())) / 26)


def test_the_same_features_are_no_change(walks):
    keys, features = walks
    result = recognise(keys, {"raw": features, "anonymized": -3 * features}, num_resamples=20)
    assert list(result["comparisons"]) == ["raw", "anonymized", "anonymized_vs_raw"]
    assert result["change"]["anonymized"]["rank1"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert result["change"]["anonymized_vs_raw"]["rank1"]["value"] < -0.3  # the least similar come first


def test_a_gallery_that_misses_somebody_is_refused(walks):
    keys, features = walks
    keep = [row for row, key in enumerate(keys) if not key.startswith("004-nm-0") or key[7:9] in ("05", "06")]
    with refused("004-nm-05-000"):
        recognise([keys[row] for row in keep], {"raw": features[keep]})
    only = [row for row, key in enumerate(keys) if key[4:6] == "nm" and int(key[7:9]) <= 4]
    with refused("casia_b"):
        recognise([keys[row] for row in only], {"raw": features[only]})
