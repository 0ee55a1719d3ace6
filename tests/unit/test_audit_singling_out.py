"""Risks less those of a control group: against loops, on releases that single out and on those that cannot."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from splavu.attacks.rows import Rows
from splavu.audit.identity.similarity import Metric
from splavu.audit.identity.singling_out import release_risks
from splavu.metrics.residual_risk import MOST_ATTACKS, residual_risk, wilson_rate
from splavu.metrics.vector_owners import vector_owners

PLAIN = Metric(lambda rows: np.asarray(rows, float), lambda rows: np.asarray(rows, float), "cosine")


def people(features_of, num_people: int = 40, *, videos: int = 6, clips: int = 3, seed: int = 0) -> Rows:
    """`gender` of each person, `outdoors` of each video; `features_of` person, video, generator -> [clips, D]."""
    rng = np.random.default_rng(seed)
    features = np.stack([features_of(p, v, rng) for p in range(num_people) for v in range(videos)])
    gender = (np.arange(num_people) % 2).repeat(videos * clips)
    outdoors = rng.integers(0, 2, num_people * videos).repeat(clips)
    names = np.array([f"p{p:03d}" for p in range(num_people)]).repeat(videos * clips)
    of_video = np.array([f"p{p:03d}-{v}" for p in range(num_people) for v in range(videos)]).repeat(clips)
    labels = np.stack([gender, outdoors], axis=1).astype(np.float32)
    return Rows(features.reshape(-1, features.shape[-1]).astype(np.float32), labels, names, of_video)


def test_a_vector_of_their_own_singles_people_out_and_links_them():
    rows = people(lambda p, v, rng: np.eye(40)[p] + np.zeros((3, 1)))
    found = release_risks(rows, PLAIN, attributes=("gender", "outdoors"))
    for name in ("singling out by a clip", "singling out by a video", "linkability"):
        assert found[name].attack == 1
        assert found[name].risk.value > 0.85, name
        assert found[name].risk.low > 0.6, name
    assert found["singling out by a clip"].control == 0
    assert found["inference of gender"].attack == 1
    assert found["inference of gender"].risk.low > 0.5
    assert found["inference of outdoors"].risk.low < 0 < found["inference of outdoors"].risk.high
    assert found["inference"].attack == pytest.approx((1 + found["inference of outdoors"].attack) / 2)


def test_a_release_of_two_vectors_singles_out_no_one():
    """Everybody has both vectors: exactly one subject never fits, released or not."""
    rows = people(lambda p, v, rng: np.eye(4)[[0, 1, v % 2]])
    found = release_risks(rows, PLAIN, attributes=("gender", "outdoors"))
    assert {found[name].attack for name in ("singling out by a clip", "singling out by a video")} == {0}
    assert {found[name].risk.value for name in ("singling out by a clip", "singling out by a video")} == {0}
    assert found["linkability"].risk.low < 0.02


def test_what_holds_of_people_in_general_is_no_risk_of_the_release():
    """Features tell gender and nothing of who it is: control subjects are inferred as well."""
    rows = people(lambda p, v, rng: np.eye(4)[p % 2] + rng.normal(size=(3, 4)) * 0.1)
    found = release_risks(rows, PLAIN, attributes=("gender", "outdoors"))
    assert found["inference of gender"].attack > 0.95
    assert found["inference of gender"].control > 0.95
    assert found["linkability"].risk.low < 0 < found["linkability"].risk.high


def test_attack_and_control_are_those_of_loops():
    """Codes are shared by few. One draw, repeated by hand from the parts that the world deals."""
    from splavu.audit.identity.singling_out import _World

    rows = people(lambda p, v, rng: np.eye(30)[rng.integers(0, 30, 3)], num_people=8)
    world = _World.of(rows, PLAIN)
    found = world.attacked(np.random.default_rng(7))
    generator = np.random.default_rng(7)
    released = generator.permutation(8) < 4
    part = world._parts(generator)
    codes = rows.features.argmax(axis=1).reshape(8, 6, 3)
    part = part.reshape(8, 6)
    assert sorted(np.bincount(row, minlength=3).tolist() for row in part) == [[4, 1, 1]] * 8
    has = [set(codes[p][part[p] == 0].ravel().tolist()) for p in range(8)]
    for side, group in enumerate((released, ~released)):
        members = np.flatnonzero(group)
        for p in range(8):
            if not released[p]:
                assert np.isnan(found[side][:2, p]).all()
                continue
            of_clips = [sum(code in has[q] for q in members) == 1 for code in codes[p][part[p] == 0].ravel().tolist()]
            of_videos = [sum(set(video) <= has[q] for q in members) == 1 for video in codes[p][part[p] == 0].tolist()]
            assert found[side][:2, p] == pytest.approx([np.mean(of_clips), np.mean(of_videos)])
        assert np.isnan(found[side][2]).tolist() == (~group).tolist()


def test_too_few_videos_are_refused():
    with refused("singling out"):
        release_risks(people(lambda p, v, rng: rng.normal(size=(3, 4)), videos=2), PLAIN)


def test_residual_risk_is_that_of_anonymeter():
    """Figures of `anonymeter.stats.confidence` 1.1.0 for 60 and 40 of 100 attacks, and for 34 and 1 of 34."""
    attack, control = np.repeat([1.0, 0.0], [60, 40]), np.repeat([1.0, 0.0], [40, 60])
    assert wilson_rate(attack) == pytest.approx((0.5963006501793015, 0.09429806338823966))
    found = residual_risk(attack, control)
    assert found.value == pytest.approx(0.2 / 0.6)
    assert (found.low, found.high) == pytest.approx((0.3229936 - 0.1909706, 0.3229936 + 0.1909706), abs=1e-6)
    found = residual_risk(np.ones(34), np.eye(34)[0])
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.9449974 - 0.0551696, abs=1e-6)
    assert residual_risk(np.ones(5), np.ones(5)).value == 0


def test_intervals_of_risks_hold_the_truth():
    """400 studies of 30 subjects, whose own success rates vary and of whom some attacks are made: 95 % less 2.2 %,
    two standard deviations of the simulation."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        rates = rng.beta(2, 2, size=30), rng.beta(1, 4, size=30)  # means 0.5 and 0.2
        attack, control = (rng.binomial(6, rate) / 6 for rate in rates)
        found = residual_risk(attack, control)
        held += found.low <= (0.5 - 0.2) / 0.8 <= found.high
    assert held / 400 >= 0.928


def test_many_equal_shares_do_not_make_an_interval_of_nothing():
    assert wilson_rate(np.full(20, 0.5))[1] == pytest.approx(wilson_rate(np.repeat([0.0, 1.0], 10 * MOST_ATTACKS))[1])


def test_vectors_of_one_subject_are_counted():
    features = np.array([[1, 0], [1, 0], [2, 0], [2, 0], [3, 0], [1, 0]], dtype=np.float32)
    found = vector_owners(features, np.array(["a", "b", "a", "a", "b", "a"]))
    assert (found.vectors, found.share, found.clip_share) == pytest.approx((3, 2 / 3, 3 / 6))
