"""From joint angles to points on the screen: forward kinematics, then a weak perspective.

Body frame: lateral (to the person's left), up, forward. Camera frame: right, up, towards the camera. Lengths are in
body heights, so that one number (pixels per body height) scales a whole person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu.synthetic.people.motions import FLEX, SIDE, Pose

PERSPECTIVE = 0.22
"""Growth per body height towards the camera."""


@dataclass(frozen=True)
class Body:
    """Lengths and half-widths in body heights."""

    trunk: float = 0.30
    thigh: float = 0.225
    shin: float = 0.215
    upper_arm: float = 0.165
    forearm: float = 0.155
    neck: float = 0.035
    head: float = 0.118
    """Half the head's height."""
    shoulders: float = 0.125
    """Half the distance between the shoulders."""
    waist: float = 0.085
    hips: float = 0.09
    bust: float = 0.0
    limb: float = 0.036
    """Half the thickness of an upper arm; the other limbs follow it."""


@dataclass(frozen=True)
class Joints:
    """Points in the camera frame relative to the ground point below the pelvis, body heights; sides: left, right."""

    pelvis: np.ndarray  # [T, 3]
    neck: np.ndarray  # [T, 3]
    head: np.ndarray  # [T, 3]
    shoulder: np.ndarray  # [T, 2, 3]
    elbow: np.ndarray  # [T, 2, 3]
    wrist: np.ndarray  # [T, 2, 3]
    hip: np.ndarray  # [T, 2, 3]
    knee: np.ndarray  # [T, 2, 3]
    ankle: np.ndarray  # [T, 2, 3]
    toe: np.ndarray  # [T, 2, 3]
    facing: np.ndarray  # [T] angle between the trunk's front and the camera, 0 = towards it
    gaze: np.ndarray  # [T] the same for the face
    pitch: np.ndarray  # [T] how far the face looks down


_SIDES = np.array([1.0, -1.0])  # lateral sign of left and right


def _direction(forward: np.ndarray, outward: np.ndarray) -> np.ndarray:  # [T, 2], [T, 2] -> [T, 2, 3]
    """Unit vector of a limb that hangs down, swung forward and then outward on either side."""
    return np.stack(
        (_SIDES * np.sin(outward) * np.cos(forward), -np.cos(outward) * np.cos(forward), np.sin(forward)), axis=-1
    )


def joints(pose: Pose, body: Body, *, azimuth: float | np.ndarray) -> Joints:
    """Place every joint; the lower foot stands on the ground, plus the pose's lift.

    Args:
        pose: Angles at T moments.
        body: Lengths of the person.
        azimuth: Heading against the direction to the camera, radians, [] or [T]: 0 faces the camera, pi/2 faces right.
    """
    trunk_up = np.stack(
        (np.sin(pose.roll) * np.cos(pose.lean), np.cos(pose.roll) * np.cos(pose.lean), np.sin(pose.lean)), axis=-1
    )  # [T, 3]
    neck = body.trunk * trunk_up
    bend = pose.lean + pose.nod
    head_up = np.stack((np.sin(pose.roll) * np.cos(bend), np.cos(bend), np.sin(bend)), axis=-1)
    head = neck + (body.neck + body.head) * head_up
    across = np.stack((np.cos(pose.twist), np.zeros_like(pose.twist), -np.sin(pose.twist)), axis=-1)
    shoulder = (0.93 * neck)[:, None] + body.shoulders * _SIDES[:, None] * across[:, None]
    elbow = shoulder + body.upper_arm * _direction(pose.shoulder[..., FLEX], pose.shoulder[..., SIDE])
    forearm = pose.shoulder + pose.elbow
    wrist = elbow + body.forearm * _direction(forearm[..., FLEX], forearm[..., SIDE])
    hip = np.zeros_like(shoulder)
    hip[..., 0] = 0.55 * body.hips * _SIDES
    knee = hip + body.thigh * _direction(pose.hip[..., FLEX], pose.hip[..., SIDE])
    shin = pose.hip[..., FLEX] - pose.knee
    ankle = knee + body.shin * _direction(shin, 0.6 * pose.hip[..., SIDE])
    toe = ankle + 0.065 * np.stack(
        (0.25 * _SIDES * np.ones_like(shin), -0.35 + 0.5 * np.sin(shin), np.cos(shin)), axis=-1
    )
    sole = np.minimum(ankle[..., 1].min(axis=1) - 0.03, toe[..., 1].min(axis=1) - 0.012)
    raised = np.stack((np.zeros_like(sole), pose.lift - sole, np.zeros_like(sole)), axis=-1)  # [T, 3]
    facing = np.asarray(azimuth) + pose.yaw
    cosine, sine = np.cos(facing), np.sin(facing)

    def camera(points: np.ndarray) -> np.ndarray:
        per_frame = (-1, *(1,) * (points.ndim - 2))
        c, s = cosine.reshape(per_frame), sine.reshape(per_frame)
        lateral, up, forward = np.moveaxis(points + raised.reshape(*per_frame, 3), -1, 0)
        return np.stack((lateral * c + forward * s, up, forward * c - lateral * s), axis=-1)

    return Joints(
        pelvis=camera(np.zeros_like(neck)), neck=camera(neck), head=camera(head), shoulder=camera(shoulder),
        elbow=camera(elbow), wrist=camera(wrist), hip=camera(hip), knee=camera(knee), ankle=camera(ankle),
        toe=camera(toe), facing=facing + pose.twist * 0.5, gaze=facing + pose.look, pitch=bend,
    )  # fmt: skip


KEYPOINTS = ("head", "neck", "pelvis", "shoulder", "elbow", "wrist", "knee", "ankle")
"""The joints of `keypoints`, in this order; the paired ones count twice (left, right)."""


def keypoints(skeleton: Joints, *, ground: np.ndarray, scale: float) -> np.ndarray:  # -> [T, 13, 2]
    """Columns and rows of the main joints in pixels; arguments as for `on_screen`."""
    num_frames = len(ground)
    points = (on_screen(getattr(skeleton, name), ground=ground, scale=scale) for name in KEYPOINTS)
    return np.concatenate([point[..., :2].reshape(num_frames, -1, 2) for point in points], axis=1)


FACE_POINTS = ((-0.42, 0.02), (0.42, 0.02), (0.0, -0.68))
"""Right eye, left eye, mouth: longitude from the nose and latitude from eye level on the head, radians."""
HEAD_WIDTH = 0.82
"""The head's width relative to its height."""


def face_points(skeleton: Joints, body: Body, *, ground: np.ndarray, scale: float) -> np.ndarray:  # -> [T, 3, 3]
    """Columns and rows of eyes and mouth in pixels, and how far each points to the camera (1 towards it, -1 away)."""
    head = on_screen(skeleton.head, ground=ground, scale=scale)[:, None]  # [T, 1, 3]
    longitude, latitude = np.array(FACE_POINTS).T
    gaze, pitch = skeleton.gaze[:, None], skeleton.pitch[:, None]
    ahead, aside, up = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
    level = ahead * np.cos(pitch) + up * np.sin(pitch)  # along the gaze, after nodding
    x = level * np.sin(gaze) + aside * np.cos(gaze)
    y = up * np.cos(pitch) - ahead * np.sin(pitch)
    z = level * np.cos(gaze) - aside * np.sin(gaze)
    radius = body.head * head[..., 2]
    return np.stack((head[..., 0] + HEAD_WIDTH * radius * x, head[..., 1] - radius * y, z), axis=-1)


def on_screen(points: np.ndarray, *, ground: np.ndarray, scale: float) -> np.ndarray:  # [T, ..., 3] -> [T, ..., 3]
    """Pixels (column, row) and the local scale (pixels per body height), which grows towards the camera.

    Args:
        points: Camera frame, body heights.
        ground: Column and row of the ground point below the pelvis, [T, 2].
        scale: Pixels per body height at depth 0.
    """
    local = scale / (1.0 - PERSPECTIVE * points[..., 2])
    origin = ground.reshape(ground.shape[0], *(1,) * (points.ndim - 2), 2)
    return np.stack((origin[..., 0] + points[..., 0] * local, origin[..., 1] - points[..., 1] * local, local), axis=-1)
