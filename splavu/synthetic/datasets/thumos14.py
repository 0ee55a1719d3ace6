"""Untrimmed videos in the layout of THUMOS14: a person idles and sometimes performs an action.

One shot, one place and one main person per video, with the private attributes of the trimmed world. `walk` is not a
class, because people in the background walk about; the other actions are classes, in alphabetical order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from splavu.runtime.files import write_bytes
from splavu.synthetic.drawing.recording import chunks, write_mp4
from splavu.synthetic.drawing.render import ATTRIBUTES, FPS, Person
from splavu.synthetic.drawing.scenes import KINDS
from splavu.synthetic.layouts import write_csv
from splavu.synthetic.people.gestures import IDLE
from splavu.synthetic.people.motions import ACTIONS, MOTIONS, rest
from splavu.synthetic.people.subjects import sample_outfit, sample_subject
from splavu.synthetic.people.timelines import Span, Timeline, follow, sample_background
from splavu.synthetic.plans import Plan, Split, Stage, generator, sample_splits, stage

NAME = "thumos14"
VERSION = "Thumos14-30fps"
CLASSES: tuple[str, ...] = tuple(action for action in ACTIONS if action != "walk")
BEHAVIOURS = MOTIONS | IDLE
BACKGROUND = {
    "stand": 3.0, "stroll": 3.0, "fidget": 1.0, "look_about": 1.0, "read_phone": 1.0, "rub_hands": 1.0, "scratch": 1.0,
    "stoop": 1.0, "stretch": 1.0, "swing_leg": 1.0,
}  # fmt: skip
"""How often each idle behaviour is chosen."""
SECOND_CLASS = 0.25
"""Share of videos that show two classes."""
BYSTANDER = 0.2
"""Share of videos in which somebody else idles further back, among those without a group there."""
INSTANCE = (1.5, 8.0)
"""Seconds of an action, log-uniform."""
GAP = (1.2, 6.0)
"""Seconds between two actions."""


@dataclass(frozen=True)
class Untrimmed:
    """One video: who and where (`plan`, whose action is the video's main class), and what happens when."""

    name: str
    plan: Plan
    timeline: Timeline


def sample_videos(
    seed: int,
    splits: Mapping[str, Split],
    *,
    seconds: tuple[float, float],
    actions: Sequence[str] = CLASSES,
    scene_bias: float = 0.0,
) -> dict[str, list[Untrimmed]]:
    """The videos of the splits `validation` (which trains, as in THUMOS14) and `test`.

    Args:
        seed: The world's seed.
        splits: People and videos of each.
        seconds: Shortest and longest video; short ones are more frequent.
        actions: Classes.
        scene_bias: Probability that the backdrop is the one that belongs to the video's main class.
    """
    planned = sample_splits(seed, NAME, splits, actions=actions, scene_bias=scene_bias)
    videos: dict[str, list[Untrimmed]] = {}
    for split, plans in planned.items():
        videos[split] = []
        for plan in plans:
            rng = generator(seed, NAME, split, "timeline", plan.index)
            num_frames = round(FPS * (seconds[0] + (seconds[1] - seconds[0]) * rng.random() ** 2))
            timeline = _timeline(rng, num_frames, plan.action, actions)
            name = f"video_{split}_{plan.index + 1:07d}"
            videos[split].append(Untrimmed(name, replace(plan, num_frames=num_frames), timeline))
    return videos


def _timeline(rng: np.random.Generator, num_frames: int, action: str, actions: Sequence[str]) -> Timeline:
    classes = [action]
    others = [other for other in actions if other != action]
    if others and rng.random() < SECOND_CLASS:
        classes.append(others[int(rng.integers(len(others)))])
    spans: list[Span] = []
    while not spans:  # a very short video may take several tries
        spans = _instances(rng, num_frames, classes)
    return Timeline(num_frames, sample_background(rng, num_frames, BACKGROUND), tuple(spans))


def _instances(rng: np.random.Generator, num_frames: int, classes: Sequence[str]) -> list[Span]:
    """Actions one after another until the video is full."""
    spans: list[Span] = []
    start = round(FPS * rng.uniform(*GAP))
    while True:
        length = round(FPS * math.exp(rng.uniform(*np.log(INSTANCE))))
        if start + length > num_frames - FPS // 2:
            return spans
        spans.append(
            Span(
                motion=classes[int(rng.integers(len(classes)))],
                start=start,
                stop=start + length,
                phase=float(rng.uniform(0, 2 * math.pi)),
                tempo=float(rng.uniform(0.85, 1.15)),
                ramp=int(rng.integers(6, 13)),
            )
        )
        start += length + round(FPS * rng.uniform(*GAP))


def set_stage(video: Untrimmed, rng: np.random.Generator) -> Stage:
    """The cast of the video's plan, with the main person following the timeline."""
    shot = stage(video.plan, rng)
    *others, main = shot.people
    reach = 0.0 if video.plan.companion else float(rng.uniform(0.04, 0.08))
    main = follow(main, video.timeline, BEHAVIOURS, rng, reach=reach)
    if not video.plan.group and rng.random() < BYSTANDER:
        others.insert(0, _bystander(rng, main, video.timeline.num_frames))
    return replace(shot, people=(*others, main), seconds_offset=0.0)


def _bystander(rng: np.random.Generator, main: Person, num_frames: int) -> Person:
    """Somebody further back who idles all the time."""
    subject = sample_subject(rng, "bystander", dark_skin=bool(rng.integers(2)), female=bool(rng.integers(2)))
    column, row = main.place(np.zeros(1))[0]
    side = 1.0 if column < 0.5 else -1.0
    at = np.array([[column + side * rng.uniform(0.2, 0.3), row - 0.15]])
    person = Person(
        subject=subject,
        outfit=sample_outfit(rng, subject, bare=False),
        pose=lambda seconds: rest(len(seconds)),
        place=lambda seconds: np.repeat(at, len(seconds), axis=0),
        azimuth=float(rng.uniform(-math.pi, math.pi)),
        height=0.68 * main.height,
        role="bystander",
    )
    timeline = Timeline(num_frames, sample_background(rng, num_frames, BACKGROUND))
    return follow(person, timeline, BEHAVIOURS, rng, reach=0.05)


def write_video(video: Untrimmed, seed: int, folder: Path) -> None:
    path = folder / "videos" / f"{video.name}.mp4"
    if not path.exists():
        shot = set_stage(video, generator(seed, NAME, "video", video.name))
        write_mp4(path, chunks(shot, video.timeline.num_frames))


def write_labels(folder: Path, splits: Mapping[str, Sequence[Untrimmed]], actions: Sequence[str] = CLASSES) -> None:
    """`thumos14.json` in the format of the published file, and `private_labels.csv`."""
    database = {}
    for split, videos in splits.items():
        for video in videos:
            database[video.name] = {
                "subset": split.capitalize(),
                "duration": round(video.timeline.num_frames / FPS, 6),
                "fps": float(FPS),
                "annotations": [
                    {
                        "label": span.motion,
                        "segment": list(span.seconds()),
                        "segment(frames)": [float(span.start), float(span.stop)],
                        "label_id": actions.index(span.motion),
                    }
                    for span in video.timeline.actions
                ],
            }
    content = {"version": VERSION, "database": dict(sorted(database.items()))}
    write_bytes(folder / "thumos14.json", (json.dumps(content, indent=4) + "\n").encode())
    header = ("filename", "subject", "split", *ATTRIBUTES, "action", "background", "num_frames")
    rows = (
        (f"{v.name}.mp4", v.plan.subject.name, split, *v.plan.attributes, v.plan.action, KINDS[v.plan.kind].name,
         v.timeline.num_frames)
        for split, videos in splits.items()
        for v in videos
    )  # fmt: skip
    write_csv(folder / "private_labels.csv", header, rows)
