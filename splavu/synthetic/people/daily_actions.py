"""Daily actions, standing: gestures of the hands, some of which are easily confused.

Most are given by where the hands go, and the angles follow (`reach`). Hair is brushed in several ways, one a video, and
each is a near double of another action: strokes beside the head of a wave, a strand drawn apart before the chest of a
clap, hair thrown over of a bow, brushing while one paces of a telephone call. A classifier that can't distinguish
them uses other information, such as the person. That is the purpose of these motions: the actions of `motions` have no
near doubles, and a head has little reason to be unfair.

Lengths are in body heights, measured from the own shoulder: across the chest, up, ahead. Letters: T moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from splavu.synthetic.drawing.render import FPS, render
from splavu.synthetic.drawing.scenes import KINDS
from splavu.synthetic.people.motions import (
    FLEX,
    LEFT,
    MOTIONS,
    RIGHT,
    SIDE,
    Gait,
    Motion,
    Pose,
    assume,
    bow,
    clap,
    stand,
    walk,
)
from splavu.synthetic.people.skeleton import Body
from splavu.synthetic.plans import Plan, Stage, generator, stage

_ARM = Body()
"""The angles are those of an average body; another one's hand lands a little elsewhere."""
LOOSENESS = 0.06
"""By how many radians the angles of the arms differ from one video to the next, standard deviation."""


def reach(pose: Pose, side: int, across: np.ndarray, up: np.ndarray, ahead: np.ndarray, *, elbow_out: float) -> None:
    """Bring one hand to a place; arguments broadcast to [T].

    Args:
        pose: Its shoulder and elbow of this side are set.
        side: `LEFT` or `RIGHT`.
        across: From the shoulder towards the middle of the body.
        up: Above the shoulder.
        ahead: Before it.
        elbow_out: Where the elbow points, radians: 0 down, pi / 2 outward.
    """
    moments = len(pose.yaw)
    target = np.stack([np.broadcast_to(part, moments) for part in (-np.asarray(across), up, ahead)], axis=-1)  # [T, 3]
    upper, forearm = _ARM.upper_arm, _ARM.forearm
    length = np.linalg.norm(target, axis=-1, keepdims=True)
    far = np.clip(length, 0.03, 0.99 * (upper + forearm))
    line = target / np.maximum(length, 1e-6)
    pole = np.array([np.sin(elbow_out), -np.cos(elbow_out), -0.2])
    aside = pole - (line @ pole)[:, None] * line
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    along = (upper**2 - forearm**2 + far**2) / (2 * far)
    elbow = along * line + np.sqrt(np.maximum(upper**2 - along**2, 0.0)) * aside
    pose.shoulder[:, side] = _angles(elbow)
    pose.elbow[:, side] = _angles(far * line - elbow) - pose.shoulder[:, side]


def _angles(limb: np.ndarray) -> np.ndarray:  # [T, 3] outward, up, ahead -> [T, 2] forward, outward
    """The angles that point a limb there, as `skeleton` reads them."""
    outward, up, ahead = (limb / np.linalg.norm(limb, axis=-1, keepdims=True)).T
    angles = np.empty((len(limb), 2))
    angles[:, FLEX] = np.arcsin(np.clip(ahead, -1.0, 1.0))
    angles[:, SIDE] = np.arctan2(outward, -up)
    return angles


def _calm(phase: np.ndarray, gait: Gait) -> Pose:
    return stand(0.3 * phase, gait)


def drink(phase: np.ndarray, gait: Gait) -> Pose:
    """A cup to the mouth, tilted with the head and the trunk."""
    pose, tilt = _calm(phase, gait), 0.5 - 0.5 * np.cos(phase)
    reach(pose, RIGHT, 0.09, -0.02 + 0.13 * gait.amplitude * tilt, 0.14, elbow_out=1.3)
    pose.nod[:] = 0.1 - 0.4 * tilt
    pose.lean[:] = -0.14 * tilt
    return pose


def eat(phase: np.ndarray, gait: Gait) -> Pose:
    """Bent over a plate before the belly, one hand and the other to the mouth."""
    pose = _calm(phase, gait)
    for side, sign in ((LEFT, -1.0), (RIGHT, 1.0)):
        reach(pose, side, 0.08, -0.03 + 0.13 * sign * gait.amplitude * np.sin(phase), 0.17, elbow_out=0.4)
    pose.lean[:] = 0.14
    pose.nod[:] = 0.12
    return pose


def brush_teeth(phase: np.ndarray, gait: Gait) -> Pose:
    """Bent over the basin, quick strokes at the mouth."""
    pose = _calm(phase, gait)
    reach(pose, RIGHT, 0.08 + 0.05 * gait.amplitude * np.sin(phase), 0.08, 0.17, elbow_out=1.3)
    pose.lean[:] = 0.5
    pose.roll[:] += 0.03 * np.sin(phase)
    return pose


def brush_pacing(phase: np.ndarray, gait: Gait) -> Pose:
    """Strokes beside the head while walking about."""
    pose = walk(0.8 * phase, gait)
    pose.shoulder[:, LEFT] = 0.0, 0.14
    pose.yaw[:] = 0.3 * np.sin(0.4 * phase)
    reach(pose, RIGHT, 0.0, 0.18 - 0.05 * gait.amplitude * np.cos(phase), 0.05, elbow_out=0.9)
    return pose


def brush_ends(phase: np.ndarray, gait: Gait) -> Pose:
    """Both hands draw a strand apart before the chest and meet again, much as in a clap."""
    pose = clap(phase, gait)
    pose.shoulder[..., FLEX] -= 0.05
    pose.elbow[..., FLEX] += 0.15
    pose.nod[:] += 0.1
    return pose


def brush_side(phase: np.ndarray, gait: Gait) -> Pose:
    """The elbow high beside the head, the brush to and fro above it."""
    pose = _calm(phase, gait)
    pose.shoulder[:, RIGHT] = (0.15, 1.75)
    pose.elbow[:, RIGHT, FLEX] = 0.1
    pose.elbow[:, RIGHT, SIDE] = 1.35 + 0.62 * gait.amplitude * np.sin(phase)
    pose.roll[:] = 0.05 * np.sin(phase)
    return pose


def brush_over(phase: np.ndarray, gait: Gait) -> Pose:
    """Down and up again, strokes along the hair that hangs."""
    pose = bow(phase, gait)
    pose.lean[:] *= 0.92
    pose.elbow[:, RIGHT, FLEX] += 0.4 + 0.25 * np.sin(2 * phase)
    return pose


def phone_call(phase: np.ndarray, gait: Gait) -> Pose:
    """A telephone at the ear, pacing on the spot."""
    pose = walk(phase, gait)
    pose.shoulder[:, LEFT] = 0.0, 0.14
    pose.yaw[:] = 0.3 * np.sin(0.5 * phase)
    reach(pose, RIGHT, 0.0, 0.15, 0.05, elbow_out=0.9)
    return pose


def pick_up(phase: np.ndarray, gait: Gait) -> Pose:
    """Down to something on the ground with one hand, and up again."""
    pose, down = _calm(phase, gait), 0.5 - 0.5 * np.cos(phase)
    pose.lean[:] = 0.8 * gait.amplitude * down
    pose.hip[..., FLEX] = (0.7 * down)[:, None]
    pose.knee[:] = (0.06 + 1.0 * down)[:, None]
    pose.shoulder[:, RIGHT, FLEX] = 0.8 * down
    return pose


def cheer(phase: np.ndarray, gait: Gait) -> Pose:
    """Both arms flung up, the knees bouncing."""
    pose, up = _calm(phase, gait), 0.5 - 0.5 * np.cos(phase)
    pose.shoulder[..., SIDE] = (1.5 + 1.1 * gait.amplitude * up)[:, None]
    pose.knee[:] += (0.3 * (1.0 - up))[:, None]
    pose.hip[..., FLEX] += (0.15 * (1.0 - up))[:, None]
    return pose


def play_phone(phase: np.ndarray, gait: Gait) -> Pose:
    """Both hands at a telephone before the chest, head and trunk bowed to it."""
    pose = _calm(phase, gait)
    reach(pose, LEFT, 0.09, -0.07, 0.15, elbow_out=0.2)
    reach(pose, RIGHT, 0.08 + 0.02 * gait.amplitude * np.sin(phase), -0.06, 0.15, elbow_out=0.3)
    pose.nod[:] = 0.35
    pose.lean[:] = 0.15
    return pose


def take_pills(phase: np.ndarray, gait: Gait) -> Pose:
    """The flat hand to the mouth, and the head thrown back."""
    pose, back = _calm(phase, gait), 0.5 - 0.5 * np.cos(phase)
    reach(pose, RIGHT, 0.09, -0.14 + 0.24 * back, 0.14, elbow_out=0.9)
    pose.nod[:] = 0.2 - 0.6 * gait.amplitude * back
    pose.lean[:] = -0.2 * back
    return pose


def read_book(phase: np.ndarray, gait: Gait) -> Pose:
    """Both hands at a book, the head bowed; the eyes go from line to line."""
    pose = _calm(phase, gait)
    for side in (LEFT, RIGHT):
        reach(pose, side, 0.03, 0.06, 0.22, elbow_out=0.3)
    pose.nod[:] = 0.1
    pose.look[:] = 0.1 * gait.amplitude * np.sin(phase)
    return pose


def wash_up(phase: np.ndarray, gait: Gait) -> Pose:
    """One hand holds a plate above the sink, the other goes round on it."""
    pose = _calm(phase, gait)
    pose.lean[:] = 0.35
    reach(pose, LEFT, 0.08, -0.17, 0.17, elbow_out=0.3)
    radius = 0.06 * gait.amplitude
    reach(pose, RIGHT, 0.08 + radius * np.cos(phase), -0.15 + radius * np.sin(phase), 0.17, elbow_out=0.4)
    pose.nod[:] = 0.15
    return pose


def stir(phase: np.ndarray, gait: Gait) -> Pose:
    """A spoon goes round in a big pot, the shoulders with it; the other arm hangs."""
    pose = _calm(phase, gait)
    pose.twist[:] = 0.35 * np.sin(phase)
    across, ahead = 0.04 + 0.1 * gait.amplitude * np.cos(phase), 0.19 + 0.05 * np.sin(phase)
    reach(pose, RIGHT, across, -0.12 + 0.02 * np.sin(phase), ahead, elbow_out=0.5)
    pose.nod[:] = 0.12
    return pose


DAILY: Mapping[str, tuple[Motion, ...]] = MappingProxyType(
    {
        "bow": (MOTIONS["bow"],),
        "brush_hair": (
            Motion(brush_ends, 0.46),
            Motion(brush_over, 1.15),
            Motion(brush_pacing, 0.8),
            Motion(brush_side, 0.55),
        ),
        "brush_teeth": (Motion(brush_teeth, 0.4),),
        "cheer": (Motion(cheer, 0.6),),
        "clap": (MOTIONS["clap"],),
        "drink": (Motion(drink, 1.1),),
        "eat": (Motion(eat, 1.1),),
        "phone_call": (Motion(phone_call, 1.0),),
        "pick_up": (Motion(pick_up, 1.2),),
        "play_phone": (Motion(play_phone, 0.45),),
        "read_book": (Motion(read_book, 1.2),),
        "sit_down": (MOTIONS["squat"],),
        "stir": (Motion(stir, 0.8),),
        "take_pills": (Motion(take_pills, 1.1),),
        "throw": (MOTIONS["throw"],),
        "turn": (MOTIONS["turn"],),
        "walk": (MOTIONS["walk"],),
        "wash_up": (Motion(wash_up, 0.7),),
        "wave": (MOTIONS["wave"],),
    }
)
"""Action -> the ways to do it, of which each video shows one."""


def tied_to_scenes(plans: Sequence[Plan], rng: np.random.Generator, *, scene_bias: float) -> list[Plan]:
    """Each plan, with this probability before the backdrop that belongs to its action of `DAILY`."""
    kinds = {action: place % len(KINDS) for place, action in enumerate(DAILY)}
    return [replace(plan, kind=kinds[plan.action]) if rng.random() < scene_bias else plan for plan in plans]


def stage_daily(plan: Plan, rng: np.random.Generator) -> Stage:
    """`plans.stage` for an action of `DAILY`, each video's arms a little their own way."""
    shot = stage(replace(plan, action="walk" if plan.action == "walk" else "stand"), rng)
    *others, main = shot.people
    gait, ways = plan.subject.gait, DAILY[plan.action]
    motion = ways[int(rng.integers(len(ways)))]
    phase, tempo = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.85, 1.15))
    loose = rng.normal(0.0, LOOSENESS, (2, 2, 2))  # joint, side, direction

    def pose(seconds: np.ndarray) -> Pose:
        posed = assume(motion, phase + 2 * np.pi * gait.cadence * tempo * seconds / motion.period, gait=gait)
        posed.shoulder[:] += loose[0]
        posed.elbow[:] += loose[1]
        return posed

    return replace(shot, people=(*others, replace(main, pose=pose)))


def film_daily(plan: Plan, seed: int, name: str) -> np.ndarray:  # -> [T, H, W, 3]
    """`layouts.film` for an action of `DAILY`."""
    shot = stage_daily(plan, generator(seed, name, "video", plan.index))
    return render(shot.scene, shot.people, shot.seconds_offset + np.arange(plan.num_frames) / FPS).frames
