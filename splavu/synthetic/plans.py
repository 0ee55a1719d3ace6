"""What each video or picture of a set is to show, decided before anything is drawn.

A plan fixes the subject, the action and the attribute values; `stage` turns it into a scene and people with a generator
of the video's own, so pixels depend on (seed, set, index) alone. Attribute quotas are exact within a set and
independent of each other and of the action.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from splavu.synthetic.drawing.render import ATTRIBUTES, Person
from splavu.synthetic.drawing.scenes import KINDS, Scene, sample_scene
from splavu.synthetic.people.motions import ACTIONS, MOTIONS, perform
from splavu.synthetic.people.subjects import Outfit, Subject, bright_uniform, sample_outfit, sample_subject

PREVALENCE = {
    "complete_face": 0.40, "partial_face": 0.35, "semi_nudity": 0.25, "personal_relationship": 0.30,
    "social_relationship": 0.25,
}  # fmt: skip
"""Share of videos with the attribute; the two of the subject (skin colour, gender) are even."""


@dataclass(frozen=True)
class Plan:
    """One video or picture."""

    index: int
    subject: Subject
    action: str
    face: str
    """`complete`, `partial` or `hidden`."""
    bare: bool
    companion: bool
    group: bool
    kind: int
    """Backdrop, an index into `scenes.KINDS`."""
    num_frames: int

    @property
    def attributes(self) -> tuple[int, ...]:
        """Seven zeros and ones in the order of `render.ATTRIBUTES`."""
        values = {
            "skin_color": self.subject.dark_skin,
            "gender": self.subject.female,
            "complete_face": self.face == "complete",
            "partial_face": self.face == "partial",
            "semi_nudity": self.bare,
            "personal_relationship": self.companion,
            "social_relationship": self.group,
        }
        return tuple(int(values[name]) for name in ATTRIBUTES)


@dataclass(frozen=True)
class Split:
    """How many people, and videos or pictures of each."""

    subjects: int
    per_subject: int


@dataclass(frozen=True)
class Stage:
    """What `render` needs for one plan."""

    scene: Scene
    people: tuple[Person, ...]
    seconds_offset: float
    """The moment of the first frame."""


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """The random stream of one thing in the world, named by where it stands: the same for any order of work."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def sample_subjects(seed: int, group: str, count: int) -> list[Subject]:
    """Identities of one group of people; any two neighbours differ in both of their attributes."""
    order = generator(seed, group, "order")
    subjects = []
    for pair in range((count + 1) // 2):
        skin, female = pair % 2 == 0, bool(order.integers(2))
        if pair % 2 and subjects:
            female = subjects[-2].female
        for flip in (False, True):
            index = len(subjects)
            subjects.append(
                sample_subject(
                    generator(seed, group, "subject", index),
                    f"{group}{index:04d}",
                    dark_skin=skin != flip,
                    female=female != flip,
                )
            )
    return subjects[:count]


def sample_plans(
    seed: int,
    name: str,
    subjects: Sequence[Subject],
    *,
    per_subject: int,
    actions: Sequence[str] = ACTIONS,
    lengths: tuple[int, int] = (34, 90),
    scene_bias: float = 0.0,
) -> list[Plan]:
    """Plans of one set: every subject appears `per_subject` times, the actions in turn.

    Args:
        seed: The world's seed.
        name: The set's name, part of every random stream.
        subjects: Who appears.
        per_subject: Videos of each subject.
        actions: Classes; each is used equally often, up to one.
        lengths: Fewest and most frames of a video.
        scene_bias: Probability that the backdrop is the one that belongs to the action instead of a random one.
    """
    rng = generator(seed, name, "plans")
    count = len(subjects) * per_subject

    def quota(attribute: str) -> np.ndarray:
        return rng.permutation(count) < round(PREVALENCE[attribute] * count)

    faces = rng.permutation(count)
    complete = round(PREVALENCE["complete_face"] * count)
    partial = complete + round(PREVALENCE["partial_face"] * count)
    bare, companion, group = (quota(name) for name in ("semi_nudity", "personal_relationship", "social_relationship"))
    plans = []
    for index in range(count):
        action = actions[index % len(actions)]
        biased = rng.random() < scene_bias
        free = int(rng.integers(len(KINDS)))
        plans.append(
            Plan(
                index=index,
                subject=subjects[index // per_subject],
                action=action,
                face="complete" if faces[index] < complete else "partial" if faces[index] < partial else "hidden",
                bare=bool(bare[index]),
                companion=bool(companion[index]),
                group=bool(group[index]),
                kind=ACTIONS.index(action) % len(KINDS) if biased else free,
                num_frames=int(rng.integers(lengths[0], lengths[1] + 1)),
            )
        )
    return plans


def sample_splits(seed: int, name: str, splits: Mapping[str, Split], **options: Any) -> dict[str, list[Plan]]:
    """Plans of all splits of the set `name`, with the options of `sample_plans`; no person is in two of them."""
    plans = {}
    for split, row in splits.items():
        people = sample_subjects(seed, f"{name[0]}{split}", row.subjects)
        plans[split] = sample_plans(seed, f"{name}/{split}", people, per_subject=row.per_subject, **options)
    return plans


def stage(plan: Plan, rng: np.random.Generator) -> Stage:
    """Cast and arrange the people of a plan."""
    scene = sample_scene(rng, plan.kind)
    azimuth, cover = _face(rng, plan.face)
    outfit = sample_outfit(rng, plan.subject, bare=plan.bare, cover=cover)
    if plan.face == "hidden" and outfit.cap is not None:
        outfit = replace(outfit, cap=None)
    height = float(rng.uniform(0.76, 0.86))
    floor = float(rng.uniform(0.93, 0.965))
    middle = float(rng.uniform(-0.05, 0.05))
    beside = -math.copysign(1.0, math.sin(azimuth)) if abs(math.sin(azimuth)) > 0.7 else float(rng.choice([-1.0, 1.0]))
    if plan.companion:
        middle -= 0.085 * beside
    start = (0.5 + middle, floor)
    speed = MOTIONS[plan.action].stride / MOTIONS[plan.action].period * 0.4 * math.sin(azimuth)
    swing = 0.0 if plan.companion else 0.05
    main = _person(plan.subject, outfit, plan.action, rng, start, azimuth, height, "main", speed, swing)
    people = []
    if plan.group:
        people += _group(rng, start, beside if plan.companion else float(rng.choice([-1.0, 1.0])), height)
    if plan.companion:
        people.append(_companion(rng, plan.subject, start, azimuth, height, beside))
    people.append(main)
    return Stage(scene=scene, people=tuple(people), seconds_offset=float(rng.uniform(0, 20)))


def _face(rng: np.random.Generator, face: str) -> tuple[float, str]:
    """Heading and covering that show the face completely, partly or not at all."""
    side = float(rng.choice([-1.0, 1.0]))
    if face == "complete":
        return side * rng.uniform(0.0, math.radians(32)), "none"
    if face == "partial":
        if rng.random() < 0.75:
            return side * rng.uniform(math.radians(62), math.radians(100)), "none"
        return side * rng.uniform(0.0, math.radians(40)), str(rng.choice(["sunglasses", "mask"]))
    if rng.random() < 0.85:
        return side * rng.uniform(math.radians(140), math.radians(180)), "none"
    return side * rng.uniform(0.0, math.radians(90)), "helmet"


def _person(
    subject: Subject, outfit: Outfit, action: str, rng: np.random.Generator, start: tuple[float, float],
    azimuth: float, height: float, role: str, speed: float = 0.0, reach: float = 0.0,
) -> Person:  # fmt: skip
    """Somebody who performs one action, drifting back and forth with it within `reach` of the start."""
    phase = float(rng.uniform(0, 2 * math.pi))
    drift = float(rng.uniform(0, 2 * math.pi))
    gait = subject.gait

    def place(seconds: np.ndarray) -> np.ndarray:
        offset = reach * np.sin(drift + seconds * speed / max(reach, 1e-6)) if speed else np.zeros_like(seconds)
        return np.stack((start[0] + offset, np.full_like(seconds, start[1])), axis=1)

    return Person(
        subject=subject,
        outfit=outfit,
        pose=lambda seconds: perform(action, seconds, gait=gait, phase=phase),
        place=place,
        azimuth=azimuth,
        height=height,
        role=role,
    )


def _companion(
    rng: np.random.Generator, main: Subject, start: tuple[float, float], azimuth: float, height: float, beside: float
) -> Person:
    """A second person in touch with the main one: an arm around the shoulders, or hands on the back."""
    dark = main.dark_skin if rng.random() < 0.75 else not main.dark_skin
    subject = sample_subject(rng, "companion", dark_skin=dark, female=bool(rng.integers(2)))
    outfit = sample_outfit(rng, subject, bare=False)
    profile = abs(math.sin(azimuth)) > 0.7
    inner_is_right = (beside > 0) == (math.cos(azimuth) > 0)
    subject = replace(subject, gait=replace(subject.gait, right_handed=inner_is_right))
    at = (start[0] + beside * (0.215 if profile else 0.2), start[1] - 0.015)
    return _person(subject, outfit, "hold" if profile else "embrace", rng, at, azimuth, 0.93 * height, "companion")


def _group(rng: np.random.Generator, start: tuple[float, float], avoid: float, height: float) -> list[Person]:
    """Two or three people further back, all in the same bright working clothes."""
    people = []
    uniform = bright_uniform(rng)
    for index in range(int(rng.integers(2, 4))):
        subject = sample_subject(rng, "group", dark_skin=bool(rng.integers(2)), female=bool(rng.integers(2)))
        outfit = sample_outfit(rng, subject, bare=False)
        outfit = replace(outfit, top=uniform, bottom=uniform, sleeves=1.0, shorts=False, stripes=True, skirt=False)
        offset = -avoid * (0.17 + 0.095 * index) + float(rng.uniform(-0.015, 0.015))
        at = (start[0] + offset, start[1] - 0.17 + float(rng.uniform(-0.01, 0.01)))
        azimuth = float(rng.uniform(-math.pi / 3, math.pi / 3))
        people.append(_person(subject, outfit, "stand", rng, at, azimuth, 0.64 * height, "group"))
    return people
