"""Gait retrieval against loops over scikit-learn, and against what chance must give."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from splavu.metrics import retrieval


@pytest.fixture
def walks():
    rng = np.random.default_rng(5)
    people = rng.normal(size=(6, 8))
    gallery_people, probe_people = np.arange(48) % 6, np.arange(30) % 6
    gallery_views, probe_views = rng.choice([0, 90, 180], 48), rng.choice([0, 90, 180], 30)
    gallery = people[gallery_people] + rng.normal(size=(48, 8))
    probes = people[probe_people] + rng.normal(size=(30, 8))
    people = {"probe_people": probe_people, "gallery_people": gallery_people}
    return probes, gallery, people, {"probe_views": probe_views, "gallery_views": gallery_views}


@pytest.mark.parametrize("across_views", [False, True])
def test_retrieval_is_that_of_a_loop(walks, across_views, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    probes, gallery, people, views = walks
    found = retrieval.retrieve(probes, gallery, **people, **(views if across_views else {}))
    for p in range(30):
        met = [n for n in range(48) if not across_views or views["gallery_views"][n] != views["probe_views"][p]]
        similarity = cosine_similarity(probes[p : p + 1], gallery[met])[0]
        same = people["gallery_people"][met] == people["probe_people"][p]
        assert found.rank1[p] == same[np.argmax(similarity)]
        assert found.nearest[p] == met[np.argmax(similarity)]
        assert found.average_precision[p] == pytest.approx(average_precision_score(same, similarity))
    assert 0 < found.rank1.mean() < 1


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_features_without_identity_give_chance(walks, constant):
    _, _, people, _ = walks
    found = retrieval.retrieve(np.full((30, 8), constant), np.full((48, 8), constant), **people)
    np.testing.assert_allclose(found.rank1, 1 / 6)
    np.testing.assert_allclose(found.average_precision, 1 / 6)


def test_scale_of_a_feature_does_not_matter(walks):
    probes, gallery, people, _ = walks
    found = retrieval.retrieve(probes, gallery, **people)
    scaled = retrieval.retrieve(probes * 100, gallery * np.arange(1, 49)[:, None], **people)
    np.testing.assert_array_equal(scaled.rank1, found.rank1)


def test_a_person_who_is_not_in_the_gallery_has_no_score():
    features = np.eye(3)
    found = retrieval.retrieve(features, features, probe_people=["a", "b", "z"], gallery_people=["a", "b", "b"])
    np.testing.assert_array_equal(found.rank1, [1, 1, np.nan])
    alone = retrieval.retrieve(
        features[:2],
        features[:2],
        probe_people=["a", "a"],
        gallery_people=["a", "b"],
        probe_views=[0, 90],
        gallery_views=[90, 0],
    )
    np.testing.assert_array_equal(alone.rank1, [1, np.nan])  # the second meets only b
    np.testing.assert_array_equal(alone.average_precision, [1, np.nan])
    lost = retrieval.retrieve(
        features[:1],
        features[:1],
        probe_people=["a"],
        gallery_people=["a"],
        probe_views=[0],
        gallery_views=[0],
    )
    assert lost.nearest.tolist() == [-1]
