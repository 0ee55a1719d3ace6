"""Frames, motions and what they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2")

from splavu.synthetic.drawing.render import ATTRIBUTES, FPS, render
from splavu.synthetic.layouts import film
from splavu.synthetic.people.motions import ACTIONS, MOTIONS, Gait, perform
from splavu.synthetic.people.skeleton import Body, joints
from splavu.synthetic.plans import generator, sample_plans, sample_subjects, stage

SUBJECTS = sample_subjects(1, "t", 8)
PLAN = replace(
    sample_plans(1, "t", SUBJECTS, per_subject=1)[0],
    action="walk", face="complete", bare=False, companion=False, group=False, num_frames=16,
)  # fmt: skip


def shown(**changes: object) -> np.ndarray:
    """The mean of a plan's first frames, the same random choices for every plan."""
    return film(replace(PLAN, **changes), 1, "t", num_frames=4).mean(axis=0)


def test_the_same_arguments_give_the_same_pixels() -> None:
    first, second = film(PLAN, 1, "t"), film(PLAN, 1, "t")
    assert first.shape == (16, 120, 160, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert not np.array_equal(first, film(PLAN, 2, "t"))


def test_a_frame_does_not_depend_on_the_frames_around_it() -> None:
    shot = stage(PLAN, generator(1, "t"))
    seconds = np.arange(8) / FPS
    whole = render(shot.scene, shot.people, seconds).frames
    assert np.array_equal(render(shot.scene, shot.people, seconds[5:6]).frames[0], whole[5])


def test_there_are_twelve_actions_in_alphabetical_order() -> None:
    assert len(ACTIONS) == 12
    assert list(ACTIONS) == sorted(ACTIONS)


@pytest.mark.parametrize("action", sorted(MOTIONS))
def test_bones_keep_their_length_and_the_lower_foot_stays_on_the_ground(action: str) -> None:
    body, seconds = Body(), np.linspace(0, 2, 31)
    pose = perform(action, seconds, gait=Gait(), phase=0.4)
    points = joints(pose, body, azimuth=0.7)
    for start, end, length in (
        (points.hip, points.knee, body.thigh), (points.knee, points.ankle, body.shin),
        (points.shoulder, points.elbow, body.upper_arm), (points.elbow, points.wrist, body.forearm),
    ):  # fmt: skip
        assert np.allclose(np.linalg.norm(end - start, axis=-1), length)
    lowest = np.minimum(points.ankle[..., 1].min(axis=1) - 0.03, points.toe[..., 1].min(axis=1) - 0.012)
    assert np.allclose(lowest, pose.lift)


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_repeat_after_a_period_and_move_within_a_clip(action: str) -> None:
    seconds, body = np.arange(16) / FPS, Body()
    now = joints(perform(action, seconds, gait=Gait()), body, azimuth=0.0).wrist
    period = MOTIONS[action].period
    later = joints(perform(action, seconds + 5 * period, gait=Gait()), body, azimuth=0.0).wrist
    assert np.ptp(now, axis=0).max() > 0.03, "a clip of 16 frames shows movement"
    # `wave` sways the trunk at 0.4 of its own rate, so five periods are two of the sway.
    assert np.allclose(now, later, atol=1e-9)


def test_a_left_handed_gait_mirrors_the_motion() -> None:
    seconds = np.arange(6) / FPS
    right, left = (
        joints(perform("throw", seconds, gait=Gait(right_handed=h)), Body(), azimuth=0.0) for h in (True, False)
    )
    assert np.allclose(right.wrist[:, 0] * (-1, 1, 1), left.wrist[:, 1])


def test_dark_skin_darkens_the_figure() -> None:
    light, dark = (next(s for s in SUBJECTS if s.dark_skin == value) for value in (False, True))
    assert sum(light.skin) > sum(dark.skin) + 150
    twin = replace(light, dark_skin=True, skin=dark.skin)
    difference = shown(subject=light, bare=True) - shown(subject=twin, bare=True)
    figure = np.abs(difference).max(axis=-1) > 20
    assert difference[figure].mean() > 20
    assert figure.sum() > 500, "pixels of 19200 that show it"


@pytest.mark.parametrize(
    ("changes", "pixels"),
    [({"bare": True}, 400), ({"face": "hidden"}, 250), ({"companion": True}, 1500), ({"group": True}, 1000)],
)
def test_each_video_attribute_changes_a_part_of_the_picture(changes: dict, pixels: int) -> None:
    assert (np.abs(shown(**changes) - shown()).max(axis=-1) > 20).sum() > pixels


def test_visible_attributes_agree_with_the_plan_while_walking() -> None:
    for face in ("complete", "partial", "hidden"):
        for index in range(6):
            plan = replace(PLAN, face=face, bare=True, companion=index % 2 == 0, group=index % 3 == 0)
            shot = stage(plan, generator(5, "visible", face, index))
            visible = render(shot.scene, shot.people, np.arange(4) / FPS).visible
            assert visible.shape == (4, len(ATTRIBUTES))
            assert np.array_equal(visible, np.tile(plan.attributes, (4, 1)))
