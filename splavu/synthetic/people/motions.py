"""Actions as joint angles over time, each adapted to the gait of the person who performs it.

A motion is a function of time, not a clip: it can be sampled at any moment, so one still, a short video and a long one
that strings several actions together come from the same code. Every cycle is at most 1.2 s long, so that 16 frames at
30 per second (0.53 s) always show movement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

LEFT, RIGHT = 0, 1
FLEX, SIDE = 0, 1


@dataclass(frozen=True)
class Gait:
    """How one person moves; constant over all of that person's videos."""

    cadence: float = 1.0
    """Cycles relative to the motion's own period, about 0.85 to 1.2."""
    amplitude: float = 1.0
    """Scale of the swings, about 0.85 to 1.2."""
    arm_swing: float = 1.0
    """Scale of what the arms do while walking and running."""
    bounce: float = 1.0
    """Scale of the vertical movement."""
    lean: float = 0.0
    """Added forward lean of the trunk, radians."""
    right_handed: bool = True
    """Which side waves, throws and kicks."""


@dataclass(frozen=True)
class Pose:
    """Joint angles in radians at T moments; last axes are side (left, right) and direction (forward, outward).

    Arms and legs are measured from hanging straight down, in the frame of the pelvis (arms), not the trunk's.
    """

    yaw: np.ndarray  # [T] turn of the whole body about the vertical, added to the heading
    lean: np.ndarray  # [T] trunk forward
    roll: np.ndarray  # [T] trunk towards its left
    twist: np.ndarray  # [T] shoulders against hips
    nod: np.ndarray  # [T] head forward, besides the trunk's lean
    look: np.ndarray  # [T] head against the body about the vertical
    lift: np.ndarray  # [T] feet above the ground, body heights
    shoulder: np.ndarray  # [T, 2, 2]
    elbow: np.ndarray  # [T, 2, 2] forearm against upper arm
    hip: np.ndarray  # [T, 2, 2]
    knee: np.ndarray  # [T, 2] shin backward against the thigh


def rest(num_frames: int) -> Pose:
    """Standing upright with the arms hanging; the arrays are fresh and may be written to."""
    flat = {f.name: np.zeros(num_frames) for f in fields(Pose)[:7]}
    limbs = {name: np.zeros((num_frames, 2, 2)) for name in ("shoulder", "elbow", "hip")}
    pose = Pose(**flat, **limbs, knee=np.full((num_frames, 2), 0.06))
    pose.shoulder[..., SIDE] = 0.14
    pose.elbow[..., FLEX] = 0.18
    pose.hip[..., SIDE] = 0.05
    return pose


def _rise(phase: np.ndarray) -> np.ndarray:
    """0 at phase 0, 1 at half a cycle, smooth."""
    return 0.5 - 0.5 * np.cos(phase)


def _half(wave: np.ndarray, power: float = 1.0) -> np.ndarray:
    return np.maximum(wave, 0.0) ** power


def stand(phase: np.ndarray, gait: Gait) -> Pose:
    pose = rest(len(phase))
    pose.roll[:] = 0.02 * np.sin(phase)
    pose.look[:] = 0.06 * np.sin(0.7 * phase)
    pose.shoulder[..., FLEX] = 0.04 * np.sin(phase)[:, None]
    return pose


def embrace(phase: np.ndarray, gait: Gait) -> Pose:
    """Standing with one arm around the person beside."""
    pose = stand(phase, gait)
    pose.shoulder[:, RIGHT] = (0.1, 1.3)
    pose.elbow[:, RIGHT] = (0.1, 0.25)
    return pose


def hold(phase: np.ndarray, gait: Gait) -> Pose:
    """Standing with both hands on the person ahead."""
    pose = stand(phase, gait)
    pose.shoulder[..., FLEX] = 1.25
    pose.elbow[..., FLEX] = 0.2
    return pose


def walk(phase: np.ndarray, gait: Gait) -> Pose:
    pose, swing = rest(len(phase)), np.sin(phase)
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        pose.hip[:, side, FLEX] = 0.05 + sign * 0.5 * gait.amplitude * swing
        pose.knee[:, side] = 0.12 + 0.75 * gait.amplitude * _half(sign * np.cos(phase))
        pose.shoulder[:, side, FLEX] = -sign * 0.5 * gait.arm_swing * swing
        pose.elbow[:, side, FLEX] = 0.25 + 0.15 * gait.arm_swing
    pose.roll[:] = 0.04 * gait.bounce * swing
    pose.lean[:] = 0.03
    return pose


def run(phase: np.ndarray, gait: Gait) -> Pose:
    pose, swing = rest(len(phase)), np.sin(phase)
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        pose.hip[:, side, FLEX] = 0.35 + sign * 0.85 * gait.amplitude * swing
        pose.knee[:, side] = 0.45 + 1.35 * gait.amplitude * _half(sign * np.cos(phase - 0.3))
        pose.shoulder[:, side, FLEX] = -sign * 0.9 * gait.arm_swing * swing
        pose.elbow[:, side, FLEX] = 1.5
    pose.lift[:] = 0.05 * gait.bounce * np.abs(np.sin(phase))
    pose.lean[:] = 0.22
    return pose


def wave(phase: np.ndarray, gait: Gait) -> Pose:
    pose = stand(0.4 * phase, gait)
    pose.shoulder[:, RIGHT] = (0.15, 1.75)
    pose.elbow[:, RIGHT, FLEX] = 0.1
    pose.elbow[:, RIGHT, SIDE] = 1.2 + 0.65 * gait.amplitude * np.sin(phase)
    pose.roll[:] = 0.05 * np.sin(phase)
    return pose


def clap(phase: np.ndarray, gait: Gait) -> Pose:
    pose, apart = rest(len(phase)), _rise(phase)
    pose.shoulder[..., FLEX] = 0.95
    pose.shoulder[..., SIDE] = (0.05 + 0.75 * gait.amplitude * apart)[:, None]
    pose.elbow[..., FLEX] = 0.75
    pose.elbow[..., SIDE] = (-0.75 + 0.45 * apart)[:, None]
    pose.nod[:] = 0.08 * apart
    return pose


def jumping_jack(phase: np.ndarray, gait: Gait) -> Pose:
    pose, up = rest(len(phase)), _rise(phase)
    pose.shoulder[..., SIDE] = (0.15 + 2.6 * up)[:, None]
    pose.elbow[..., FLEX] = 0.1
    pose.hip[..., SIDE] = (0.05 + 0.45 * gait.amplitude * up)[:, None]
    pose.knee[:] = (0.1 + 0.25 * np.cos(phase) ** 2)[:, None]
    pose.hip[..., FLEX] = (0.12 * np.cos(phase) ** 2)[:, None]
    pose.lift[:] = 0.07 * gait.bounce * np.abs(np.sin(phase))
    return pose


def kick(phase: np.ndarray, gait: Gait) -> Pose:
    pose, out, back = rest(len(phase)), _half(np.sin(phase), 1.3), _half(-np.sin(phase))
    pose.hip[:, RIGHT, FLEX] = 1.55 * gait.amplitude * out - 0.55 * back
    pose.knee[:, RIGHT] = 0.15 + 1.2 * back + 0.9 * _half(np.cos(phase), 2.0) * out
    pose.knee[:, LEFT] = 0.2
    pose.hip[:, LEFT, FLEX] = 0.1
    pose.lean[:] = -0.28 * out + 0.15 * back
    pose.shoulder[:, LEFT] = (0.5, 0.5)
    pose.shoulder[:, RIGHT, SIDE] = 0.6
    pose.shoulder[:, RIGHT, FLEX] = -0.7 * out + 0.4 * back
    pose.shoulder[:, LEFT, FLEX] += 0.6 * out
    pose.elbow[:, :, FLEX] = 0.7
    return pose


def punch(phase: np.ndarray, gait: Gait) -> Pose:
    pose = rest(len(phase))
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        out = _half(sign * np.sin(phase), 0.8)
        pose.shoulder[:, side, FLEX] = 0.55 + 1.0 * gait.amplitude * out
        pose.shoulder[:, side, SIDE] = 0.25 - 0.3 * out
        pose.elbow[:, side, FLEX] = 2.1 * (1.0 - out) + 0.05
        pose.hip[:, side, FLEX] = 0.28 * sign
    pose.knee[:] = 0.3
    pose.twist[:] = -0.55 * np.sin(phase)
    pose.lean[:] = 0.12
    pose.lift[:] = 0.012 * gait.bounce * _rise(2 * phase)
    return pose


def squat(phase: np.ndarray, gait: Gait) -> Pose:
    pose, down = rest(len(phase)), _rise(phase) * min(gait.amplitude, 1.12)
    pose.hip[..., FLEX] = (1.55 * down)[:, None]
    pose.hip[..., SIDE] = (0.12 + 0.25 * down)[:, None]
    pose.knee[:] = (0.06 + 2.05 * down)[:, None]
    pose.lean[:] = 0.45 * down
    pose.shoulder[..., FLEX] = (1.45 * down)[:, None]
    pose.elbow[..., FLEX] = 0.1
    return pose


def bow(phase: np.ndarray, gait: Gait) -> Pose:
    pose, down = rest(len(phase)), _rise(phase) * gait.amplitude
    pose.lean[:] = 1.3 * down
    pose.nod[:] = 0.25 * down
    pose.hip[..., FLEX] = (-0.12 * down)[:, None]
    pose.shoulder[..., FLEX] = (0.3 * down)[:, None]
    return pose


def throw(phase: np.ndarray, gait: Gait) -> Pose:
    pose = rest(len(phase))
    skewed = phase + 0.5 * np.sin(phase)  # slow wind-up, fast release
    back, out = _rise(skewed), 1.0 - _rise(skewed)
    pose.shoulder[:, RIGHT, FLEX] = 0.7 + 2.7 * back
    pose.shoulder[:, RIGHT, SIDE] = 0.25
    pose.elbow[:, RIGHT, FLEX] = 0.15 + 1.0 * back
    pose.shoulder[:, LEFT, FLEX] = -0.3 + 1.5 * gait.amplitude * back
    pose.lean[:] = 0.4 * out - 0.22 * back
    pose.twist[:] = 0.5 * (out - back)
    pose.hip[:, LEFT, FLEX] = 0.1 + 0.5 * gait.amplitude * back
    pose.hip[:, RIGHT, FLEX] = -0.3 * out
    pose.knee[:, LEFT] = 0.15 + 0.3 * back
    return pose


def climb(phase: np.ndarray, gait: Gait) -> Pose:
    pose = rest(len(phase))
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        reach = _rise(phase + (0.0 if sign > 0 else np.pi))
        pose.shoulder[:, side, FLEX] = 1.9 + 1.0 * gait.amplitude * reach
        pose.shoulder[:, side, SIDE] = 0.3
        pose.elbow[:, side, FLEX] = 1.1 * (1.0 - reach) + 0.1
        pose.hip[:, side, FLEX] = 0.15 + 1.25 * gait.amplitude * (1.0 - reach)
        pose.hip[:, side, SIDE] = 0.22
        pose.knee[:, side] = 0.2 + 1.6 * (1.0 - reach)
    pose.roll[:] = 0.12 * np.cos(phase)
    pose.lift[:] = 0.05 + 0.04 * gait.bounce * np.sin(2 * phase)
    pose.nod[:] = -0.2
    return pose


def turn(phase: np.ndarray, gait: Gait) -> Pose:
    """Turning left and right on the spot; the gaze stays near the heading, as a dancer's does."""
    pose, swing = rest(len(phase)), np.sin(phase)
    pose.yaw[:] = 1.25 * gait.amplitude * swing
    pose.look[:] = -0.85 * pose.yaw
    pose.twist[:] = 0.35 * np.cos(phase)
    pose.shoulder[..., SIDE] = 0.75
    pose.elbow[..., FLEX] = 0.35
    pose.hip[..., SIDE] = 0.1
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        lifted = _half(sign * np.cos(phase), 2.0)
        pose.hip[:, side, FLEX] = 0.3 * lifted
        pose.knee[:, side] = 0.1 + 0.6 * lifted
    return pose


@dataclass(frozen=True)
class Motion:
    """One row of the table: the angles as a function of phase, and the seconds that a cycle lasts."""

    angles: Callable[[np.ndarray, Gait], Pose]
    period: float
    stride: float = 0.0
    """Body heights covered per cycle along the heading."""


MOTIONS: dict[str, Motion] = {
    "bow": Motion(bow, 1.2),
    "clap": Motion(clap, 0.42),
    "climb": Motion(climb, 0.9),
    "embrace": Motion(embrace, 1.6),
    "hold": Motion(hold, 1.6),
    "jumping_jack": Motion(jumping_jack, 0.8),
    "kick": Motion(kick, 0.85),
    "punch": Motion(punch, 0.55),
    "run": Motion(run, 0.6, stride=0.35),
    "squat": Motion(squat, 1.1),
    "stand": Motion(stand, 1.6),
    "throw": Motion(throw, 0.9),
    "turn": Motion(turn, 1.1),
    "walk": Motion(walk, 1.0, stride=0.25),
    "wave": Motion(wave, 0.5),
}
ACTIONS: tuple[str, ...] = tuple(name for name in MOTIONS if name not in ("stand", "embrace", "hold"))
"""The classes of the action sets; their labels are positions in this alphabetical order."""


def perform(action: str, seconds: np.ndarray, *, gait: Gait, phase: float = 0.0) -> Pose:
    """The pose of somebody with this gait at each moment of the action.

    Args:
        action: A key of `MOTIONS`.
        seconds: Moments, [T], in any order.
        gait: Cadence, amplitude and handedness of the person.
        phase: Where in the cycle second 0 lies, radians.
    """
    motion = MOTIONS[action]
    return assume(motion, phase + 2 * np.pi * gait.cadence * seconds / motion.period, gait=gait)


def assume(motion: Motion, phase: np.ndarray, *, gait: Gait) -> Pose:
    """The pose of somebody with this gait at each phase [T] of a motion, radians; the cadence is left to the caller."""
    pose = motion.angles(phase, gait)
    pose.lean[:] += gait.lean
    return pose if gait.right_handed else _mirrored(pose)


def _mirrored(pose: Pose) -> Pose:
    swapped = {name: getattr(pose, name)[:, ::-1] for name in ("shoulder", "elbow", "hip", "knee")}
    negated = {name: -getattr(pose, name) for name in ("yaw", "roll", "twist", "look")}
    return Pose(lean=pose.lean, nod=pose.nod, lift=pose.lift, **swapped, **negated)
