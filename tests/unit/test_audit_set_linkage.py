"""Several clips against several: drawn sets, what more clips bring, chance, and rates at few false positives."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from splavu.attacks.rows import AttackData, Rows
from splavu.audit.identity import linkage
from splavu.audit.identity.linkage import linked
from splavu.audit.identity.set_linkage import MOST_SETS, drawn_sets, linked_sets
from splavu.metrics.inference import tpr_at_fpr


def people(num_people: int, seed: int, *, videos: int = 4, clips: int = 5, identity: float = 1.0) -> Rows:
    rng = np.random.default_rng(seed)
    of_person = identity * rng.normal(size=(num_people, 16)).repeat(videos * clips, axis=0)
    features = (of_person + 2 * rng.normal(size=of_person.shape)).astype(np.float32)
    names = np.array([f"{seed}-{person:03d}" for person in range(num_people)])
    of_video = np.array([f"{name}-{video}" for name in names for video in range(videos)]).repeat(clips)
    return Rows(features, np.zeros((len(features), 1), np.float32), names.repeat(videos * clips), of_video)


def groups(**options) -> AttackData:
    return AttackData(people(60, 1, **options), people(40, 2, **options), people(60, 3, **options))


def test_sets_are_of_disjoint_videos_and_of_the_size_asked_for():
    rows = people(5, 0, videos=3, clips=4)
    identified = Rows(np.eye(len(rows), dtype=np.float32), rows.labels, rows.clusters, rows.videos)
    for size in (1, 3, None):
        sets = drawn_sets(identified, size)
        assert sets.num_draws > 1
        for probe, gallery, subject in zip(sets.probes, sets.gallery, sets.subjects, strict=True):
            of_probe, of_gallery = np.flatnonzero(probe), np.flatnonzero(gallery)
            assert not set(rows.videos[of_probe]) & set(rows.videos[of_gallery])
            assert set(rows.clusters[of_probe]) | set(rows.clusters[of_gallery]) == {subject}
            assert len(of_probe) == (size or 4)  # the smaller half of three videos is one
            assert len(of_gallery) == (size or 8)
            assert probe[of_probe] == pytest.approx(1 / len(of_probe))


def test_subjects_without_enough_clips_are_left_out_and_refused_if_none_is_left():
    rows = people(4, 0, videos=2, clips=3)
    few = rows.take(np.flatnonzero((rows.clusters != "0-000") | (rows.videos == "0-000-0")))
    assert set(drawn_sets(few, 2).subjects) == {"0-001", "0-002", "0-003"}
    with refused("linkage of sets"):
        drawn_sets(rows, 4)


def test_many_subjects_stay_within_the_cap():
    rows = people(MOST_SETS + 100, 0, videos=2, clips=1)
    sets = drawn_sets(rows, 1)
    assert len(sets.subjects) == MOST_SETS
    assert sets.num_draws == 1


def test_more_clips_find_a_person_more_often():
    """d' of a person in the mean of n clips grows as sqrt n."""
    data = groups()
    found = {size: linked_sets(data, size, num_resamples=100, num_permutations=50) for size in (1, 4, None)}
    assert {count for _, count in found.values()} == {60}
    one, four, every = (result for result, _ in found.values())
    assert one.rank1.value < four.rank1.value < every.rank1.value
    assert one.eer.value > four.eer.value > every.eer.value
    assert every.rank1.low > 0.5
    assert every.rank1.chance == pytest.approx(1 / 60)
    assert every.tpr[0.01].low > 0.3
    assert every.tpr[0.001] is None  # 3,540 pairs of two subjects, whatever the number of draws


def test_features_without_identity_are_at_chance():
    found, _ = linked_sets(groups(identity=0.0), 4, num_resamples=200, num_permutations=200)
    assert found.eer.value == pytest.approx(0.5, abs=0.05)
    assert found.tpr[0.01].value == pytest.approx(0.01, abs=0.02)
    assert found.tpr[0.01].chance == 0.01


def test_rates_at_few_false_positives_are_those_of_a_loop(monkeypatch):
    """Pairs written out as often as their people were drawn, each draw with its own threshold."""
    rng = np.random.default_rng(1)
    ids = np.arange(30).repeat(2)
    similarity = rng.normal(size=(60, 60)) + 1.5 * (ids[:, None] == ids)
    videos = np.arange(60)
    found = linked(similarity, ids, ids, exclude=(videos, videos), num_resamples=40, num_permutations=10)
    met = ~np.eye(60, dtype=bool)
    labels = (ids[:, None] == ids)[met]
    assert found.tpr[0.01].value == tpr_at_fpr(labels, similarity[met], 0.01)
    counts = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=40)
    rates = []
    for count in counts:
        weights = np.where(labels, count[ids][:, None].repeat(60, 1)[met], np.outer(count[ids], count[ids])[met])
        rates.append(tpr_at_fpr(labels.repeat(weights), similarity[met].repeat(weights), 0.01))
    assert (found.tpr[0.01].low, found.tpr[0.01].high) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])))
    monkeypatch.setattr(linkage, "MOST_RATED", 60 * 40)
    thinned = linked(similarity, ids, ids, exclude=(videos, videos), num_resamples=40, num_permutations=10)
    assert thinned.tpr[0.01].value == pytest.approx(found.tpr[0.01].value, abs=0.15)
