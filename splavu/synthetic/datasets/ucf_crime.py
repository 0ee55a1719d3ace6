"""Long videos in the layout of UCF-Crime: calm scenes of several people, some with a fight, a fall or a flight.

A training video has a class and no times; a test video has a label for each frame. Names
say what is shown: `Falling`, `Fighting` (as in UCF-Crime), `Fleeing`, and `Normal_Videos`. The fixed camera, the number
of people near the front and the talks between them are the same in normal and abnormal videos. `personal_relationship`
doesn't occur: no two people stay in touch for a whole video.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from splavu.runtime.files import write_bytes
from splavu.synthetic.drawing.recording import chunks, write_mp4
from splavu.synthetic.drawing.render import ATTRIBUTES, FPS
from splavu.synthetic.drawing.scenes import KINDS
from splavu.synthetic.layouts import write_csv
from splavu.synthetic.people.surveillance import Crossing, Footage, set_stage
from splavu.synthetic.people.timelines import Span, Timeline, sample_background
from splavu.synthetic.plans import Plan, Split, generator, sample_splits

NAME = "ucf_crime"
ANOMALIES = ("Falling", "Fighting", "Fleeing")
SECONDS = {"Falling": (4.0, 8.0), "Fighting": (4.0, 9.0), "talk": (2.5, 5.0)}
"""Shortest and longest time of what happens; a flight's follows from its speed."""
BACKGROUND = {
    "stand": 3.0, "stroll": 2.0, "fidget": 1.0, "look_about": 1.0, "read_phone": 1.0, "rub_hands": 1.0, "scratch": 1.0,
    "stoop": 0.5, "stretch": 0.5, "swing_leg": 0.5,
}  # fmt: skip
"""How often each idle behaviour is chosen."""
GESTURES = ("bow", "clap", "rub_hands", "scratch", "wave")
"""What people do with their hands in a talk."""
SECOND_EVENT = 0.3
"""Share of abnormal videos in which it happens twice."""
PASSER_BY = 0.35
"""Share of videos through which somebody walks calmly."""
CLIP = 32
"""Lengths are multiples of this, so that clips of 16 frames and snippets of 32 leave no remainder."""


def sample_videos(
    seed: int,
    splits: Mapping[str, Split],
    *,
    seconds: tuple[float, float],
    abnormal: float,
    scene_bias: float = 0.0,
) -> dict[str, list[Footage]]:
    """The videos of `train` and `test`.

    Args:
        seed: The world's seed.
        splits: People and videos of each.
        seconds: Shortest and longest video; short ones are more frequent.
        abnormal: Share of abnormal videos in each split.
        scene_bias: Probability that the backdrop is the one that belongs to what the plan would do in a trimmed set.
    """
    planned = sample_splits(seed, NAME, splits, scene_bias=scene_bias)
    numbers = dict.fromkeys((*ANOMALIES, None), 0)
    videos: dict[str, list[Footage]] = {}
    for split, plans in planned.items():
        order = generator(seed, NAME, split, "anomalies").permutation(len(plans))
        videos[split] = []
        for plan in plans:
            place = int(order[plan.index])
            anomaly = ANOMALIES[place % len(ANOMALIES)] if place < round(abnormal * len(plans)) else None
            numbers[anomaly] += 1
            normal = "Normal_Videos" if split == "train" else "Normal_Videos_"
            name = f"{anomaly or normal}{numbers[anomaly]:03d}_x264"
            rng = generator(seed, NAME, split, "script", plan.index)
            frames = CLIP * round(FPS * (seconds[0] + (seconds[1] - seconds[0]) * rng.random() ** 2) / CLIP)
            videos[split].append(_script(rng, name, replace(plan, companion=False, num_frames=frames), anomaly))
    return videos


@dataclass(frozen=True)
class _Event:
    kind: str
    """`talk` or one of `ANOMALIES`."""
    num_frames: int
    flight: Crossing | None = None


def _script(rng: np.random.Generator, name: str, plan: Plan, anomaly: str | None) -> Footage:
    kinds = ["talk"] * int(rng.integers(1, 3))
    if anomaly:
        kinds += [anomaly] * (2 if rng.random() < SECOND_EVENT else 1)
    acts: tuple[list[Span], list[Span]] = ([], [])  # of the main person and the other
    encounters: list[Span] = []
    crossings: list[Crossing] = []
    anomalies: list[tuple[int, int]] = []
    planned = [_event(rng, kinds[i], plan.num_frames - 2 * FPS) for i in rng.permutation(len(kinds))]
    for start, event in _schedule(rng, plan.num_frames, planned):
        stop = start + event.num_frames
        if event.kind == "talk":
            encounters.append(Span("talk", start, stop, ramp=15))
            for spans in acts:
                if rng.random() < 0.6:
                    spans.append(_act(rng, str(rng.choice(GESTURES)), start + 10, stop - 10))
            continue
        anomalies.append((start, stop))
        if event.kind == "Fighting":
            encounters.append(Span("brawl", start, stop, ramp=10))
            for spans in acts:
                spans.append(_act(rng, "brawl", start, stop, ramp=10))
        elif event.kind == "Falling":
            motion = str(rng.choice(["fall_back", "fall_forward"]))
            acts[0].append(_act(rng, motion, start, stop, ramp=15, release=36))
        else:
            crossings.append(replace(event.flight, start=start))
    if rng.random() < PASSER_BY:
        stroller = _crossing(rng, "walk", int(rng.integers(1, 3)), (0.18, 0.28))
        latest = max(1, plan.num_frames - stroller.num_frames)
        crossings.append(replace(stroller, start=int(rng.integers(latest))))
    main, other = (
        Timeline(plan.num_frames, sample_background(rng, plan.num_frames, BACKGROUND), tuple(spans)) for spans in acts
    )
    return Footage(name, plan, anomaly, main, other, tuple(encounters), tuple(crossings), tuple(anomalies))


def _event(rng: np.random.Generator, kind: str, most: int) -> _Event:
    """An event of at most `most` frames."""
    while True:
        if kind == "Fleeing":
            flight = _crossing(rng, "run", int(rng.integers(2, 5)), (0.36, 0.5))
            event = _Event(kind, flight.num_frames, flight)
        else:
            event = _Event(kind, round(FPS * rng.uniform(*SECONDS[kind])))
        if event.num_frames <= most:
            return event


def _schedule(rng: np.random.Generator, num_frames: int, events: Sequence[_Event]) -> list[tuple[int, _Event]]:
    """Events with their first frames: at random times, in this order, a second apart.

    If they don't all fit, talks are left out first, then the last anomaly; the only one always fits.
    """
    events = list(events)
    while (slack := num_frames - sum(event.num_frames for event in events) - FPS * (len(events) + 1)) < 0:
        events.remove(next((event for event in events if event.kind == "talk"), events[-1]))
    gaps = FPS + np.floor(slack * rng.dirichlet(np.ones(len(events) + 1))).astype(int)
    starts = np.cumsum(gaps)[:-1] + np.cumsum([0] + [event.num_frames for event in events])[:-1]
    return list(zip(starts.tolist(), events, strict=True))


def _crossing(rng: np.random.Generator, motion: str, sweeps: int, speeds: tuple[float, float]) -> Crossing:
    return Crossing(motion, sweeps, float(rng.uniform(*speeds)), bool(rng.integers(2)))


def _act(
    rng: np.random.Generator, motion: str, start: int, stop: int, *, ramp: int = 12, release: int | None = None
) -> Span:
    phase, tempo = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.9, 1.1))
    return Span(motion, start, stop, phase, tempo, ramp, release)


def write_video(video: Footage, seed: int, folder: Path) -> None:
    path = folder / "videos" / f"{video.name}.mp4"
    if not path.exists():
        shot = set_stage(video, generator(seed, NAME, "video", video.name))
        write_mp4(path, chunks(shot, video.num_frames))


def write_labels(folder: Path, splits: Mapping[str, Sequence[Footage]]) -> None:
    """The lists, the truth of the test videos per frame and as UCF-Crime's text file, and `private_labels.csv`.

    `ucf-i3d.list` names abnormal videos first, `ucf-i3d-test.list` is alphabetical; `gt-ucf.npy` joins the frames of
    the test videos in that order, float64 0 and 1.
    """
    train = sorted(splits["train"], key=lambda video: (video.anomaly is None, video.name))
    test = sorted(splits["test"], key=lambda video: video.name)
    for name, videos in (("ucf-i3d.list", train), ("ucf-i3d-test.list", test)):
        write_bytes(folder / name, "".join(f"{NAME}/{video.name}.npy\n" for video in videos).encode())
    truth = io.BytesIO()
    np.save(truth, np.concatenate([video.is_abnormal() for video in test]).astype(np.float64))
    write_bytes(folder / "gt-ucf.npy", truth.getvalue())
    lines = []
    for video in test:
        # UCF-Crime counts the last frame in, and says -1 where there is no second event.
        spans = [frame for start, stop in video.events for frame in (start, stop - 1)]
        numbers = "  ".join(map(str, (spans + [-1] * 4)[:4]))
        lines.append(f"{video.name}.mp4  {video.anomaly or 'Normal'}  {numbers}  \n")
    write_bytes(folder / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt", "".join(lines).encode())
    header = ("filename", "subject", "split", *ATTRIBUTES, "label", "background", "num_frames")
    rows = (
        (f"{v.name}.mp4", v.plan.subject.name, split, *v.plan.attributes, v.anomaly or "Normal",
         KINDS[v.plan.kind].name, v.num_frames)
        for split, videos in splits.items()
        for v in videos
    )  # fmt: skip
    write_csv(folder / "private_labels.csv", header, rows)
