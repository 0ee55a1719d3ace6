"""What ought not to happen: two people at each other's throats, somebody on the ground.

A fall is not a cycle: lying is a posture like any other, and falling is how quickly one passes into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

import numpy as np

from splavu.synthetic.people.motions import FLEX, SIDE, Gait, Motion, Pose, kick, punch, rest


def brawl(phase: np.ndarray, gait: Gait) -> Pose:
    """Blows of both fists, now and then a kick, the trunk swaying."""
    fists, foot = punch(phase, gait), kick(0.6 * phase, gait)
    share = np.maximum(np.sin(0.27 * phase), 0.0) ** 2
    mixed = {}
    for field in fields(Pose):
        first, second = getattr(fists, field.name), getattr(foot, field.name)
        weight = share.reshape(-1, *(1,) * (first.ndim - 1))
        mixed[field.name] = (1.0 - weight) * first + weight * second
    pose = Pose(**mixed)
    pose.lean[:] += 0.16 * np.sin(0.43 * phase)
    pose.roll[:] += 0.1 * np.sin(0.61 * phase)
    return pose


def lie(phase: np.ndarray, gait: Gait, *, forward: float) -> Pose:
    """Flat on the ground along the heading, in pain; `forward` is 1 on the belly, -1 on the back."""
    pose = rest(len(phase))
    pose.lean[:] = 1.42 * forward
    pose.nod[:] = -0.15 * forward
    pose.shoulder[..., FLEX] = 1.3 * forward
    for side, sign in ((0, 1.0), (1, -1.0)):
        drawn = np.maximum(sign * np.sin(phase), 0.0) * gait.amplitude
        pose.hip[:, side, FLEX] = -1.4 * forward + (0.7 * drawn if forward < 0 else 0.0)
        pose.knee[:, side] = 0.12 + 1.5 * drawn
        pose.shoulder[:, side, SIDE] = 0.5 + 0.9 * drawn
    return pose


MISHAPS: Mapping[str, Motion] = MappingProxyType(
    {
        "brawl": Motion(brawl, 0.55),
        "fall_back": Motion(lambda phase, gait: lie(phase, gait, forward=-1.0), 0.9),
        "fall_forward": Motion(lambda phase, gait: lie(phase, gait, forward=1.0), 0.9),
    }
)
"""Behaviours that make a video abnormal."""
