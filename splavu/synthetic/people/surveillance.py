"""A calm place under a fixed camera: two people near the front who sometimes turn to each other, and passers-by.

What makes a video abnormal (`Footage.events`) is staged by the same means as what doesn't: the two may talk or brawl,
passers-by may walk or run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from splavu.synthetic.drawing.render import FPS, Person
from splavu.synthetic.people.gestures import IDLE
from splavu.synthetic.people.mishaps import MISHAPS
from splavu.synthetic.people.motions import MOTIONS, rest
from splavu.synthetic.people.subjects import sample_outfit, sample_subject
from splavu.synthetic.people.timelines import Span, Timeline, follow, movement, per_frame, pose_per_frame, presence
from splavu.synthetic.plans import Plan, Stage, stage

BEHAVIOURS = MOTIONS | IDLE | MISHAPS
_EDGE = 0.25
"""Half the width of somebody in full stride, frame widths: further out nothing of them is seen."""
_TURN = 0.15
"""How far from the picture's edge somebody who stays turns round, frame widths."""


@dataclass(frozen=True)
class Crossing:
    """Somebody who passes close to the camera, once or to and fro."""

    motion: str
    sweeps: int
    speed: float
    """Frame widths a second."""
    rightwards: bool
    """The first time."""
    start: int = 0
    """First frame in which something of them may be seen."""

    @property
    def waypoints(self) -> np.ndarray:  # [sweeps + 1] columns of one who starts rightwards
        turns = [1 - _TURN if sweep % 2 == 0 else _TURN for sweep in range(self.sweeps - 1)]
        return np.array([-_EDGE, *turns, 1 + _EDGE if self.sweeps % 2 else -_EDGE])

    @property
    def num_frames(self) -> int:
        """From coming into sight to leaving it."""
        return math.ceil(FPS * np.abs(np.diff(self.waypoints)).sum() / self.speed)


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
    main = follow(main, video.main, BEHAVIOURS, rng, reach=0.03)
    other = follow(other, video.other, BEHAVIOURS, rng, reach=0.03)
    falls = [span for span in video.main.actions if span.motion in ("fall_back", "fall_forward")]
    main = _turned(main, [(span, beside) for span in video.encounters], video.num_frames)
    main = _turned(main, [(s, beside if s.motion == "fall_forward" else -beside) for s in falls], video.num_frames)
    other = _turned(other, [(span, -beside) for span in video.encounters], video.num_frames)
    passing = [_passer_by(rng, crossing, row, main.height, video.num_frames) for crossing in video.crossings]
    return Stage(
        scene=replace(shot.scene, shake=min(shot.scene.shake, 0.4)),
        people=(*group, other, main, *passing),
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


def _turned(person: Person, turns: Sequence[tuple[Span, float]], num_frames: int) -> Person:
    """The person in profile during each span, looking to the side that goes with it (1 is right)."""
    seconds = np.arange(num_frames) / FPS
    azimuth = person.azimuth(seconds)
    for span, side in turns:
        away = (azimuth - side * 1.4 + np.pi) % (2 * np.pi) - np.pi
        azimuth = azimuth - presence(span, num_frames) * away
    return replace(person, azimuth=per_frame(azimuth))


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
    steps = np.diff(crossing.waypoints)
    reached = np.concatenate(([0.0], np.cumsum(np.abs(steps))))
    walked = crossing.speed * (np.arange(num_frames) - crossing.start) / FPS
    column = np.interp(walked, reached, crossing.waypoints)
    sweep = np.clip(np.searchsorted(reached, walked, side="right") - 1, 0, len(steps) - 1)
    around = np.hanning(15)[1:-1]  # a turn takes some 13 frames
    side = np.convolve(np.pad(np.sign(steps)[sweep], 6, mode="edge"), around / around.sum(), mode="valid")
    if not crossing.rightwards:
        column, side = 1 - column, -side
    return column, 0.5 * np.pi * side
