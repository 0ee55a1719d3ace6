"""Idle gestures: slower and smaller than the actions they resemble.

A scratch of the head looks like the start of a wave, a stoop like a bow or a squat, so a detector has to
distinguish them. They occur in untrimmed videos and are not a class of any set.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from splavu.synthetic.people.motions import FLEX, LEFT, MOTIONS, RIGHT, SIDE, Gait, Motion, Pose, rest, stand


def scratch(phase: np.ndarray, gait: Gait) -> Pose:
    """One hand at the head, as a wave begins."""
    pose = stand(0.3 * phase, gait)
    pose.shoulder[:, RIGHT] = (0.55, 1.15)
    pose.elbow[:, RIGHT, FLEX] = 1.75 + 0.12 * gait.amplitude * np.sin(phase)
    pose.elbow[:, RIGHT, SIDE] = 0.5
    pose.nod[:] = 0.1
    return pose


def look_about(phase: np.ndarray, gait: Gait) -> Pose:
    """Head and shoulders turn a little from side to side, as a turn begins."""
    pose = stand(0.7 * phase, gait)
    pose.look[:] = 0.22 * np.sin(phase)
    pose.twist[:] = 0.25 * np.sin(phase - 0.5)
    return pose


def stoop(phase: np.ndarray, gait: Gait) -> Pose:
    """Half down to something on the ground and up again, between a bow and a squat."""
    pose, down = rest(len(phase)), 0.5 - 0.5 * np.cos(phase)
    pose.lean[:] = 0.62 * down
    pose.hip[..., FLEX] = (0.55 * down)[:, None]
    pose.knee[:] = (0.06 + 0.8 * down)[:, None]
    pose.shoulder[:, RIGHT, FLEX] = 0.75 * down
    return pose


def stretch(phase: np.ndarray, gait: Gait) -> Pose:
    """Both arms held above the head, as in a jumping jack or on a wall."""
    pose = stand(phase, gait)
    pose.shoulder[..., SIDE] = (2.35 + 0.12 * np.sin(phase))[:, None]
    pose.elbow[..., FLEX] = 0.35
    pose.lean[:] = -0.06
    return pose


def rub_hands(phase: np.ndarray, gait: Gait) -> Pose:
    """Hands together before the chest, as for a clap."""
    pose = stand(0.2 * phase, gait)
    pose.shoulder[..., FLEX] = 0.6
    pose.shoulder[..., SIDE] = 0.06
    pose.elbow[..., SIDE] = -0.55
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        pose.elbow[:, side, FLEX] = 1.1 + 0.12 * sign * np.sin(phase)
    return pose


def swing_leg(phase: np.ndarray, gait: Gait) -> Pose:
    """One leg dangles to and fro, a lazy kick."""
    pose = stand(0.5 * phase, gait)
    pose.hip[:, RIGHT, FLEX] = 0.12 + 0.32 * gait.amplitude * np.sin(phase)
    pose.knee[:, RIGHT] = 0.3 - 0.15 * np.sin(phase)
    return pose


def fidget(phase: np.ndarray, gait: Gait) -> Pose:
    """Weight from foot to foot, hands at the hips."""
    pose, swing = rest(len(phase)), np.sin(phase)
    pose.roll[:] = 0.07 * swing
    pose.shoulder[..., SIDE] = 0.55
    pose.elbow[..., FLEX] = 0.9
    pose.elbow[..., SIDE] = -0.9
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        pose.knee[:, side] = 0.1 + 0.3 * np.maximum(sign * swing, 0.0)
        pose.hip[:, side, FLEX] = 0.15 * np.maximum(sign * swing, 0.0)
    return pose


def read_phone(phase: np.ndarray, gait: Gait) -> Pose:
    """A hand held before the chest, the head bowed to it."""
    pose = stand(0.5 * phase, gait)
    pose.shoulder[:, RIGHT] = (0.45, 0.12)
    pose.elbow[:, RIGHT, FLEX] = 1.45 + 0.04 * np.sin(phase)
    pose.nod[:] = 0.3
    return pose


IDLE: Mapping[str, Motion] = MappingProxyType(
    {
        "fidget": Motion(fidget, 2.2),
        "look_about": Motion(look_about, 2.8),
        "read_phone": Motion(read_phone, 2.0),
        "rub_hands": Motion(rub_hands, 0.7),
        "scratch": Motion(scratch, 0.6),
        "stand": MOTIONS["stand"],
        "stoop": Motion(stoop, 2.4),
        "stretch": Motion(stretch, 2.6),
        "stroll": MOTIONS["walk"],
        "swing_leg": Motion(swing_leg, 1.3),
    }
)
"""Behaviours of the background."""
