"""What one person does over a long video: a background without gaps, and actions that set in and pass on top of it.

The background goes on unseen below an action, so a video with an action and the same video without it are alike, pose
for pose, on every frame outside the action's span. Inside, the action's share grows from the first frame on and is gone
after the last: a span is exact to the frame, although nothing ever jumps.

Letters: T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np

from splavu.synthetic.drawing.render import FPS, Person
from splavu.synthetic.people.motions import Gait, Motion, Pose, assume

CROSSFADE = 12
"""Frames that one background behaviour takes to become the next."""
DRIFT = 0.4
"""How much of a stride moves the figure, in frame widths per body height; the remaining motion is on the spot."""


@dataclass(frozen=True)
class Span:
    """One behaviour from frame `start` up to, not including, `stop`."""

    motion: str
    start: int
    stop: int
    phase: float = 0.0
    """Where in the cycle it starts, radians."""
    tempo: float = 1.0
    """Cycles relative to the person's own cadence."""
    ramp: int = CROSSFADE
    """Frames in which an action sets in, and in which it passes."""
    release: int | None = None
    """Frames in which it passes, if they are others."""

    def seconds(self) -> tuple[float, float]:
        return round(self.start / FPS, 6), round(self.stop / FPS, 6)


@dataclass(frozen=True)
class Timeline:
    """All that one person does in `num_frames` frames."""

    num_frames: int
    background: tuple[Span, ...]
    """In order and without gaps from frame 0 to the last."""
    actions: tuple[Span, ...] = ()
    """In order, none touching another."""

    def is_acting(self) -> np.ndarray:  # -> [T] bool
        """Whether an action is on, frame by frame."""
        acting = np.zeros(self.num_frames, bool)
        for span in self.actions:
            acting[span.start : span.stop] = True
        return acting


def sample_background(
    rng: np.random.Generator, num_frames: int, shares: Mapping[str, float], *, seconds: tuple[float, float] = (1.5, 5.0)
) -> tuple[Span, ...]:
    """Behaviours in random order, each lasting for a random time within `seconds`, none twice in a row.

    Args:
        rng: Where the choices come from.
        num_frames: Length to fill.
        shares: Behaviour -> how often it is chosen, in any unit.
        seconds: Shortest and longest time of one behaviour; the last may be shorter.
    """
    names, weights = list(shares), np.array(list(shares.values()), float)
    spans: list[Span] = []
    start = 0
    while start < num_frames:
        allowed = weights * [not spans or name != spans[-1].motion for name in names]
        motion = names[int(rng.choice(len(names), p=allowed / allowed.sum()))]
        length = max(2 * CROSSFADE, round(FPS * rng.uniform(*seconds)))
        stop = num_frames if num_frames - start - length < 2 * CROSSFADE else start + length
        phase, tempo = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.85, 1.15))
        spans.append(Span(motion, start, stop, phase, tempo))
        start = stop
    return tuple(spans)


def movement(timeline: Timeline, motions: Mapping[str, Motion], *, gait: Gait) -> Pose:  # of T = num_frames
    """The pose of every frame: background behaviours faded into each other, actions faded in and out above them."""
    weights = np.zeros(timeline.num_frames)
    background = _nothing(timeline.num_frames)
    for span, share in zip(timeline.background, _shares(timeline), strict=True):
        _add(background, _pose(span, motions, gait, *_active(share)), share, _active(share))
    acting = _nothing(timeline.num_frames)
    for span in timeline.actions:
        share = presence(span, timeline.num_frames)
        weights += share
        _add(acting, _pose(span, motions, gait, span.start, span.stop), share, (span.start, span.stop))
    mixed = {}
    for field in fields(Pose):
        below, above = getattr(background, field.name), getattr(acting, field.name)
        mixed[field.name] = above + below * (1.0 - weights).reshape(-1, *(1,) * (below.ndim - 1))
    return Pose(**mixed)


def presence(span: Span, num_frames: int) -> np.ndarray:  # -> [T] in 0..1
    """How much of an action is there: above 0 from its first frame to its last, 0 elsewhere."""
    frames = np.arange(num_frames)
    rising, falling = (frames - span.start + 1) / span.ramp, (span.stop - frames) / (span.release or span.ramp)
    return smooth(np.minimum(rising, falling))


def drift(timeline: Timeline, motions: Mapping[str, Motion], *, gait: Gait) -> np.ndarray:  # -> [T]
    """Distance walked up to each frame, in frame widths for somebody seen from the side."""
    speed = np.zeros(timeline.num_frames)
    still = np.ones(timeline.num_frames)
    for span in timeline.actions:
        share = presence(span, timeline.num_frames)
        speed += share * _speed(span, motions, gait)
        still -= share
    for span, share in zip(timeline.background, _shares(timeline), strict=True):
        speed += still * share * _speed(span, motions, gait)
    return np.cumsum(speed) / FPS


def follow(
    person: Person, timeline: Timeline, motions: Mapping[str, Motion], rng: np.random.Generator, *, reach: float
) -> Person:
    """The person, acting by a timeline: strolling within `reach` of their place, the heading wandering by 8 degrees.

    Args:
        person: Identity, clothes, place at second 0 and mean heading.
        timeline: What they do, from second 0 on.
        motions: What the names in the timeline mean.
        rng: For the wandering.
        reach: Share of the frame's width.
    """
    gait = person.subject.gait
    seconds = np.arange(timeline.num_frames) / FPS
    start = person.place(np.zeros(1))[0]
    rates, phases = rng.uniform(0.03, 0.12, 2), rng.uniform(0, 2 * math.pi, 2)
    wander = np.sin(2 * math.pi * rates * seconds[:, None] + phases).mean(axis=1)
    azimuth = float(person.azimuth) + math.radians(8) * wander
    places = np.tile(start, (timeline.num_frames, 1))
    if reach:
        walked = drift(timeline, motions, gait=gait) * abs(math.sin(float(person.azimuth)))
        places[:, 0] += reach * np.sin(rng.uniform(0, 2 * math.pi) + walked / reach)
    return replace(
        person,
        pose=pose_per_frame(movement(timeline, motions, gait=gait)),
        place=per_frame(places),
        azimuth=per_frame(azimuth),
    )


def per_frame(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:  # [T, ...] -> (seconds [n] -> [n, ...])
    """A table of frames as the function of time that `render` asks for."""
    return lambda seconds: values[np.rint(seconds * FPS).astype(int)]


def pose_per_frame(pose: Pose) -> Callable[[np.ndarray], Pose]:
    """`per_frame` for all angles of a pose."""
    tables = {field.name: per_frame(getattr(pose, field.name)) for field in fields(Pose)}
    return lambda seconds: Pose(**{name: table(seconds) for name, table in tables.items()})


def smooth(share: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1 on, and without a kink between."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(share, 0.0, 1.0))


def _shares(timeline: Timeline) -> Sequence[np.ndarray]:
    """The background's weights, one array [T] per span; they add up to 1 on every frame."""
    frames = np.arange(timeline.num_frames)
    arrived = [smooth((frames - span.start) / CROSSFADE + 0.5) for span in timeline.background[1:]]
    arrived = [np.ones(timeline.num_frames), *arrived, np.zeros(timeline.num_frames)]
    return [first - second for first, second in pairwise(arrived)]


def _active(share: np.ndarray) -> tuple[int, int]:
    """The frames, from and up to, that have a weight above 0."""
    found = np.flatnonzero(share)
    return int(found[0]), int(found[-1]) + 1


def _pose(span: Span, motions: Mapping[str, Motion], gait: Gait, start: int, stop: int) -> Pose:
    motion = motions[span.motion]
    seconds = (np.arange(start, stop) - span.start) / FPS
    phase = span.phase + 2 * np.pi * gait.cadence * span.tempo * seconds / motion.period
    return assume(motion, phase, gait=gait)


def _speed(span: Span, motions: Mapping[str, Motion], gait: Gait) -> float:
    motion = motions[span.motion]
    return DRIFT * motion.stride * gait.cadence * span.tempo / motion.period


def _nothing(num_frames: int) -> Pose:
    limbs = {name: np.zeros((num_frames, 2, 2)) for name in ("shoulder", "elbow", "hip")}
    flat = {field.name: np.zeros(num_frames) for field in fields(Pose)[:7]}
    return Pose(**flat, **limbs, knee=np.zeros((num_frames, 2)))


def _add(total: Pose, part: Pose, share: np.ndarray, span: tuple[int, int]) -> None:
    """Add `part`, which covers the frames of `span`, weighted with its share [T]."""
    frames = slice(*span)
    for field in fields(Pose):
        values = getattr(part, field.name)
        getattr(total, field.name)[frames] += values * share[frames].reshape(-1, *(1,) * (values.ndim - 1))
