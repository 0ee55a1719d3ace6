"""A calm place under a fixed camera: two people near the front who now and then turn to each other, others who pass.

What makes a video abnormal (`Footage.events`) is staged by the same means as what doesn't: the two may talk or brawl,
whoever passes may walk or run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .gestures import IDLE
from .mishaps import MISHAPS
from .motions import MOTIONS, rest
from .plans import Plan, Stage, stage
from .render import FPS, Person
from .subjects import sample_outfit, sample_subject
from .timelines import Span, Timeline, follow, movement, per_frame, pose_per_frame, presence

BEHAVIOURS = MOTIONS | IDLE | MISHAPS
_EDGE = 0.15
"""Half the width of somebody in motion, frame widths: beyond it nothing of them is seen."""
_TURN = 0.1
"""How far out of sight somebody who comes back turns round, frame widths."""


@dataclass(frozen=True)
class Crossing:
    """Somebody who passes through the picture, once or to and fro."""

    motion: str
    times: int
    speed: float
    """Frame widths a second."""
    rightwards: bool
    """The first time."""
    start: int = 0
    """First frame in which something of them may be seen."""

    @property
    def num_frames(self) -> int:
        """From coming into sight to leaving it for good."""
        return math.ceil(FPS * self.way / self.speed)

    @property
    def way(self) -> float:
        """The same in frame widths."""
        return self.times * (1 + 2 * _EDGE) + (self.times - 1) * 2 * _TURN


@dataclass(frozen=True)
class Footage:
    """One video: who and where (`plan`), and what everybody does."""

    name: str
    plan: Plan
    anomaly: str | None
    """Class of the video; None if it is normal."""
    main: Timeline
    other: Timeline
    encounters: tuple[Span, ...]
    """When the two turn to each other, to `talk` or to `brawl`."""
    crossings: tuple[Crossing, ...]
    events: tuple[tuple[int, int], ...]
    """First frame and the one past the last of each anomaly, in order."""

    @property
    def num_frames(self) -> int:
        return self.main.num_frames

    def is_abnormal(self) -> np.ndarray:  # -> [T] bool
        """The truth, frame by frame."""
        truth = np.zeros(self.num_frames, bool)
        for start, stop in self.events:
            truth[start:stop] = True
        return truth


def set_stage(video: Footage, rng: np.random.Generator) -> Stage:
    """The cast of the plan and another person beside the main one; the camera hardly trembles."""
    shot = stage(video.plan, rng)
    *group, main = shot.people
    beside = float(rng.choice([-1.0, 1.0]))
    column, row = main.place(np.zeros(1))[0]
    main = replace(main, place=_at(column - 0.12 * beside, row))
    other = _other(rng, _at(column + 0.13 * beside, row - 0.01), 0.96 * main.height)
    front = []
    for person, timeline, toward in ((main, video.main, beside), (other, video.other, -beside)):
        followed = follow(person, timeline, BEHAVIOURS, rng, reach=0.03)
        front.append(_meet(followed, video.encounters, toward, video.num_frames))
    passing = [
        _passer_by(rng, crossing, row - 0.07, 0.84 * main.height, video.num_frames) for crossing in video.crossings
    ]
    return Stage(
        scene=replace(shot.scene, shake=min(shot.scene.shake, 0.4)),
        people=(*group, *passing, front[1], front[0]),
        seconds_offset=0.0,
    )


def _at(column: float, row: float) -> Callable[[np.ndarray], np.ndarray]:
    """The place of somebody who stays there."""
    return lambda seconds: np.tile((column, row), (len(seconds), 1))


def _other(rng: np.random.Generator, place: Callable[[np.ndarray], np.ndarray], height: float) -> Person:
    subject = sample_subject(rng, "other", dark_skin=bool(rng.integers(2)), female=bool(rng.integers(2)))
    return Person(
        subject=subject,
        outfit=sample_outfit(rng, subject, bare=False),
        pose=lambda seconds: rest(len(seconds)),
        place=place,
        azimuth=float(rng.uniform(-math.pi, math.pi)),
        height=height,
        role="bystander",
    )


def _meet(person: Person, encounters: Sequence[Span], toward: float, num_frames: int) -> Person:
    """The person turning to whoever stands on the side `toward` (1 is right), and in a brawl stepping closer."""
    seconds = np.arange(num_frames) / FPS
    azimuth, places = person.azimuth(seconds), person.place(seconds)
    for span in encounters:
        share = presence(span, num_frames)
        away = (azimuth - toward * 1.4 + np.pi) % (2 * np.pi) - np.pi
        azimuth = azimuth - share * away
        if span.motion == "brawl":
            places[:, 0] += 0.015 * toward * share
    return replace(person, azimuth=per_frame(azimuth), place=per_frame(places))


def _passer_by(rng: np.random.Generator, crossing: Crossing, row: float, height: float, num_frames: int) -> Person:
    subject = sample_subject(rng, "passer-by", dark_skin=bool(rng.integers(2)), female=bool(rng.integers(2)))
    columns, azimuth = path(crossing, num_frames)
    timeline = Timeline(num_frames, (Span(crossing.motion, 0, num_frames),))
    return Person(
        subject=subject,
        outfit=sample_outfit(rng, subject, bare=False),
        pose=pose_per_frame(movement(timeline, BEHAVIOURS, gait=subject.gait)),
        place=per_frame(np.stack((columns, np.full(num_frames, row)), axis=1)),
        azimuth=per_frame(azimuth),
        height=height,
        role="bystander",
    )


def path(crossing: Crossing, num_frames: int) -> tuple[np.ndarray, np.ndarray]:  # -> [T], [T]
    """Column and heading of somebody who crosses, frame by frame; out of sight before and after."""
    length = 1 + 2 * (_EDGE + _TURN)
    walked = crossing.speed * (np.arange(num_frames) - crossing.start) / FPS + _TURN
    walked = np.clip(walked, 0.0, crossing.way + 2 * _TURN)
    forth = walked // length % 2 == 0
    column = np.where(forth, walked % length, length - walked % length) - (_EDGE + _TURN)
    if not crossing.rightwards:
        column, forth = 1 - column, ~forth
    return column, np.where(forth, np.pi / 2, -np.pi / 2)
