"""Sets of clips: pooling against a slow loop, and labels that hold for a set or are unknown."""

from __future__ import annotations

import numpy as np
import pytest

from splavu.attacks.campaign import Attack, Scored
from splavu.attacks.rows import Rows
from splavu.audit.attributes.units import pooled, set_attack, set_labels, set_rows
from splavu.metrics import average_precision


def clips(seed: int = 0, num: int = 90) -> Rows:
    """Clips of 4 people with 3 videos each, standing apart."""
    rng = np.random.default_rng(seed)
    person = rng.integers(0, 4, num)
    person[:12] = np.arange(12) // 3
    video = rng.integers(0, 3, num)
    video[:12] = np.arange(12) % 3
    names = np.array([f"p{p}" for p in person])
    labels = np.stack([person % 2, (person + video) % 2], axis=1).astype(np.float32)
    return Rows(
        rng.normal(size=(num, 5)).astype(np.float32),
        labels,
        names,
        np.array([f"{p}-{v}" for p, v in zip(names, video, strict=True)]),
    )


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_is_what_a_loop_over_sets_gives(pooling):
    rows = clips()
    values = rows.features.astype(np.float64)
    values[3, 1] = np.nan
    found = pooled(values, rows.videos, pooling)
    how = {"mean": np.nanmean, "max": np.nanmax}[pooling]
    for place, name in enumerate(sorted(set(rows.videos))):
        np.testing.assert_allclose(found[place], how(values[rows.videos == name], axis=0), rtol=1e-12)


def test_a_set_of_unknown_values_stays_unknown():
    values = np.array([[np.nan], [np.nan], [2.0]])
    for pooling in ("mean", "max"):
        np.testing.assert_array_equal(pooled(values, np.array(["a", "a", "b"]), pooling), [[np.nan], [2.0]])


def test_a_label_holds_for_a_set_or_is_unknown_there():
    labels = np.array([[1, 1], [1, 0], [0, np.nan], [0, 1]], dtype=np.float32)
    found = set_labels(labels, np.array(["a", "a", "b", "b"]))
    np.testing.assert_array_equal(found, [[1, np.nan], [0, 1]])


def test_rows_of_sets_keep_whose_they_are():
    rows = clips()
    by_person = set_rows(rows, "person")
    assert by_person.clusters.tolist() == ["p0", "p1", "p2", "p3"]
    np.testing.assert_array_equal(by_person.labels[:, 0], [0, 1, 0, 1])
    assert np.isnan(by_person.labels[:, 1]).all()  # each person has videos of both kinds
    by_video = set_rows(rows, "video")
    assert [name.split("-")[0] for name in by_video.videos] == by_video.clusters.tolist()
    assert not np.isnan(by_video.labels).any()
    assert set_rows(rows, "clip") is rows


def test_pooled_scores_are_judged_on_sets():
    rows, rng = clips(), np.random.default_rng(1)
    scores = rng.normal(size=(2, 3, len(rows), 2))
    tuned = Scored(rows.labels, rows.clusters, rows.videos, scores)
    attack = Attack(("a", "b", "c"), rows.labels, rows.clusters, rows.videos, scores, np.zeros((2, 3, 2)), tuned)
    found = set_attack(attack, "video", "mean")
    names = sorted(set(rows.videos))
    assert found.videos.tolist() == names
    expected = [scores[1, 2, rows.videos == name, 0].mean() for name in names]
    np.testing.assert_allclose(found.scores[1, 2, :, 0], expected)
    labels = [rows.labels[rows.videos == name, 0][0] for name in names]
    assert found.validation[1, 2, 0] == pytest.approx(average_precision(np.array(labels), np.array(expected)))
