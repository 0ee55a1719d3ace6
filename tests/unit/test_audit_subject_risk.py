"""Who is protected worst: right by slow loops, found where planted, nobody where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest

from splavu.audit.questions import Questions
from splavu.audit.subject_risk import attribute_risk, linkage_risk

PEOPLE, CLIPS, WIDTH = 20, 6, 8
ATTRIBUTES = "abcdefghijkl"  # of three, luck has one subject in eight right throughout


def study(seed, *, exposed=()):
    """Labels [n, A], scores [1, n, A], clusters, videos: scores know nothing but of the exposed subjects."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat([f"p{person:02d}" for person in range(PEOPLE)], CLIPS)
    videos = np.array([f"{name}-{clip // 2}" for name, clip in zip(clusters, list(range(CLIPS)) * PEOPLE, strict=True)])
    labels = np.stack([rng.permutation(PEOPLE) % 2 for _ in ATTRIBUTES], axis=1).astype(float).repeat(CLIPS, axis=0)
    scores = rng.normal(size=(PEOPLE, len(ATTRIBUTES))).repeat(CLIPS, axis=0) + rng.normal(size=labels.shape)
    shown = np.isin(clusters, exposed)
    scores[shown] += 8 * (labels[shown] - 0.5)
    return labels, scores[None], clusters, videos


def risk_of(seed, **changes):
    return attribute_risk(*study(seed, **changes), Questions.binary(ATTRIBUTES), num_permutations=200)


def test_risk_is_the_share_of_the_other_label_on_the_right_side():
    labels = np.array([[1.0], [0.0], [1.0], [0.0], [np.nan]])
    scores = np.array([[[3.0], [1.0], [1.0], [2.0], [9.0]]])
    clusters = np.array(list("aabcd"))
    found = attribute_risk(labels, scores, clusters, clusters, Questions.binary("x"), num_permutations=10)
    # 3 lies above 1 and 2; 1 (no) below 3 and as high as 1; 1 (yes) as high as 1, below 2; 2 (no) below 3, above 1
    assert found.subjects.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(found.risk, [(1 + 0.75) / 2, 0.25, 0.5])


def test_the_mean_over_subjects_of_one_size_is_the_auc():
    from sklearn.metrics import roc_auc_score

    labels, scores, clusters, videos = study(0)
    found = attribute_risk(labels, scores, clusters, videos, Questions.binary(ATTRIBUTES), num_permutations=10)
    expected = np.mean([roc_auc_score(labels[:, a], scores[0, :, a]) for a in range(len(ATTRIBUTES))])
    assert found.risk.mean() == pytest.approx(expected)  # ten subjects have each label


def test_the_subjects_that_are_read_are_found_and_named():
    record = risk_of(3, exposed=("p04", "p11")).record()
    assert {one["subject"] for one in record["who"]} == {"p04", "p11"}
    assert record["beyond_luck"] == 2
    assert record["p"] < 0.02
    assert record["max"]["value"] > 0.95
    assert record["median"]["value"] < 0.7  # the two lie on the right side of everybody else, too


def test_where_there_is_nothing_nobody_is_beyond_luck():
    """In 5 % of audits somebody is: of 60, more than 8 have probability 0.4 % (binomial)."""
    found = [risk_of(seed).record() for seed in range(60)]
    assert sum(one["beyond_luck"] > 0 for one in found) <= 8
    for name in ("median", "p90", "max"):
        gaps = [one[name]["value"] - one[name]["luck"] for one in found]
        assert abs(np.mean(gaps)) < 3.5 * np.std(gaps) / np.sqrt(len(gaps))


def linked(seed, *, exposed=()):
    """Three videos a person; those of the exposed are alike."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(PEOPLE), 3)
    features = rng.normal(size=(len(people), WIDTH))
    features[np.isin(people, exposed)] = rng.normal(size=(len(exposed), WIDTH)).repeat(3, axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    videos = np.arange(len(people))
    return linkage_risk(features @ features.T, (people, people), (videos, videos), num_permutations=100)


def test_the_subjects_that_are_linked_are_found_and_named():
    risk, first = linked(0, exposed=(2, 7))
    record = risk.record()
    assert {one["subject"] for one in record["who"]} == {"2", "7"}
    assert first["found_first"] >= 2
    assert first["found_first_by_luck"] < 1


def test_where_nobody_can_be_linked_nobody_is_beyond_luck():
    found = [linked(seed)[0].record() for seed in range(40)]
    assert sum(one["beyond_luck"] > 0 for one in found) <= 6
    gaps = [one["max"]["value"] - one["max"]["luck"] for one in found]
    assert abs(np.mean(gaps)) < 3.5 * np.std(gaps) / np.sqrt(len(gaps))


def test_linkage_risk_by_slow_loops():
    rng = np.random.default_rng(1)
    people, videos = np.array([0, 0, 0, 1, 1, 2]), np.arange(6)
    similarity = rng.normal(size=(6, 6))
    risk, _ = linkage_risk(similarity, (people, people), (videos, videos), num_permutations=5)
    expected = []
    for person in (0, 1):
        of_probes = []
        for probe in np.flatnonzero(people == person):
            strangers = similarity[probe, people != person]
            mates = [g for g in np.flatnonzero(people == person) if g != probe]
            of_probes.append(np.mean([np.mean(strangers < similarity[probe, mate]) for mate in mates]))
        expected.append(np.mean(of_probes))
    assert risk.subjects.tolist() == [0, 1]  # the third has one video
    np.testing.assert_allclose(risk.risk, expected)
