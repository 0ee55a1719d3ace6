"""Timelines: what goes on outside an action's span is the same with and without it, and nothing jumps."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from splavu.synthetic.drawing.render import FPS
from splavu.synthetic.people.gestures import IDLE
from splavu.synthetic.people.motions import MOTIONS, Gait, Pose, perform
from splavu.synthetic.people.skeleton import Body, joints
from splavu.synthetic.people.timelines import (
    Span,
    Timeline,
    drift,
    movement,
    per_frame,
    pose_per_frame,
    presence,
    sample_background,
)
from splavu.synthetic.plans import generator

BEHAVIOURS = MOTIONS | IDLE
GAIT = Gait(cadence=1.1)
CALM = Timeline(300, sample_background(generator(0, "t"), 300, dict.fromkeys(IDLE, 1.0)))


def angles(pose: Pose) -> np.ndarray:  # -> [T, 20] all angles of a pose side by side
    return np.concatenate([getattr(pose, f.name).reshape(len(pose.yaw), -1) for f in fields(Pose)], axis=1)


def moved(timeline: Timeline) -> np.ndarray:
    return angles(movement(timeline, BEHAVIOURS, gait=GAIT))


def test_background_fills_every_frame_once_and_never_repeats_at_once() -> None:
    for seed in range(20):
        spans = sample_background(generator(seed, "t"), 400, {"stand": 1.0, "stroll": 5.0, "stoop": 1.0})
        covered = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        assert np.array_equal(covered, np.arange(400))
        assert all(first.motion != second.motion for first, second in pairwise(spans))


@pytest.mark.parametrize("action", ["bow", "clap", "climb", "jumping_jack", "kick", "punch", "run", "squat", "throw"])
def test_an_action_changes_the_pose_from_its_first_frame_to_its_last_and_nowhere_else(action: str) -> None:
    span = Span(action, 100, 160, phase=2.0)
    with_action, without = moved(replace(CALM, actions=(span,))), moved(CALM)
    differs = np.abs(with_action - without).max(axis=1) > 0
    assert np.array_equal(np.flatnonzero(differs), np.arange(100, 160))


def test_in_the_middle_of_an_action_the_pose_is_the_trimmed_worlds() -> None:
    timeline = replace(CALM, actions=(Span("squat", 100, 160, phase=0.7, ramp=12),))
    seconds = np.arange(12, 48) / FPS
    expected = angles(perform("squat", seconds, gait=GAIT, phase=0.7))
    assert np.allclose(moved(timeline)[112:148], expected)


def fastest(span: Span) -> float:
    """Most that a wrist or an ankle moves from one frame to the next around the ends of an action, body heights."""
    pose = movement(replace(CALM, actions=(span,)), BEHAVIOURS, gait=GAIT)
    points = joints(pose, Body(), azimuth=0.0)
    speed = np.stack([np.abs(np.diff(p, axis=0)).max(axis=(1, 2)) for p in (points.wrist, points.ankle)]).max(axis=0)
    return speed[np.r_[span.start - 2 : span.start + 14, span.stop - 14 : span.stop + 1]].max()


@pytest.mark.parametrize("action", ["jumping_jack", "squat", "climb"])
def test_nothing_jumps_at_the_ends_of_an_action(action: str) -> None:
    assert fastest(Span(action, 100, 160, ramp=12)) < 0.17, "a jumping jack alone reaches 0.1"
    assert fastest(Span(action, 100, 160, ramp=1)) > 0.17


def test_presence_is_above_zero_on_exactly_the_frames_of_the_span() -> None:
    share = presence(Span("wave", 10, 55, ramp=8), 80)
    assert np.array_equal(np.flatnonzero(share), np.arange(10, 55))
    assert (share[17:48] == 1).all()
    assert (np.diff(share[9:18]) > 0).all()


def test_actions_on_the_spot_stop_the_stroll_and_running_goes_on() -> None:
    stroll = Timeline(200, (Span("stroll", 0, 200),))
    halted = drift(replace(stroll, actions=(Span("squat", 50, 150),)), BEHAVIOURS, gait=GAIT)
    running = drift(replace(stroll, actions=(Span("run", 50, 150),)), BEHAVIOURS, gait=GAIT)
    assert np.ptp(halted[65:135]) < 1e-9
    assert np.diff(halted[:45]).min() > 0
    assert np.diff(running[65:135]).min() > np.diff(halted[:45]).max()


def test_tables_give_the_frame_of_a_moment() -> None:
    seconds = np.array([0, 31, 299]) / FPS
    assert np.array_equal(per_frame(np.arange(300))(seconds), [0, 31, 299])
    pose = movement(CALM, BEHAVIOURS, gait=GAIT)
    assert np.array_equal(angles(pose_per_frame(pose)(seconds)), angles(pose)[[0, 31, 299]])
