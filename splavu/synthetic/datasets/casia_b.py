"""People who walk past cameras in the layout of Casia-B: normally, with a bag, and in a long coat.

As in Casia-B one walk is filmed from all views at once, so the files of a walk differ in nothing but the camera. A
subject wears the same clothes in all walks, with a coat over them in `cl`; otherwise a walker is recognised by gait and
body shape. Cameras and backdrops are the same for all subjects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from splavu.data.splits import CASIA_B_REPETITIONS
from splavu.runtime.files import write_bytes
from splavu.synthetic.drawing.render import ATTRIBUTES, FPS, Person, render
from splavu.synthetic.drawing.scenes import KINDS, Light, sample_scene
from splavu.synthetic.layouts import encode_avi, write_csv
from splavu.synthetic.people.motions import FLEX, LEFT, MOTIONS, RIGHT, Pose, perform
from splavu.synthetic.people.subjects import Bag, Outfit, Subject, sample_outfit
from splavu.synthetic.plans import Stage, generator, sample_subjects

NAME = "casia_b"
VIEWS: tuple[int, ...] = (0, 18, 36, 54, 72, 90, 108, 126, 144, 162, 180)
"""Degrees between the way somebody walks and the way to the camera: 0 walks towards it, 90 to the right."""
WALKS = sum(CASIA_B_REPETITIONS.values())
"""Of each subject, filmed from every view."""
FIRST_SUBJECT: Mapping[str, int] = {"train": 1, "test": 75}
"""Casia-B's convention: 001-074 train, 075-124 test."""
BACKDROP = "room"
COATS: tuple[tuple[float, float, float], ...] = (
    (92, 84, 70), (58, 60, 66), (134, 112, 84), (44, 56, 88), (96, 44, 46), (70, 84, 62), (150, 146, 138),
)  # fmt: skip
"""Colours of the coats: each subject wears one of them, independently of the other clothes."""
BAGS: tuple[tuple[float, float, float], ...] = ((36, 34, 36), (112, 70, 40), (48, 66, 120), (150, 40, 48), (60, 96, 70))


@dataclass(frozen=True)
class Walk:
    """One video: one walk of somebody, as one camera sees it."""

    subject: Subject
    """Named as in Casia-B, 001 and up."""
    kind: str
    """`nm`, `bg` or `cl`."""
    repetition: int
    """Counts from 1."""
    view: int
    """One of `VIEWS`."""
    outfit: Outfit
    num_frames: int

    @property
    def name(self) -> str:
        return f"{self.subject.name}-{self.kind}-{self.repetition:02d}-{self.view:03d}"

    @property
    def attributes(self) -> tuple[int, ...]:
        """Seven zeros and ones in the order of `render.ATTRIBUTES`."""
        complete = self.view < 45
        return int(self.subject.dark_skin), int(self.subject.female), int(complete), int(45 < self.view < 115), 0, 0, 0


def sample_videos(
    seed: int, subjects: Mapping[str, int], *, views: Sequence[int] = VIEWS, lengths: tuple[int, int] = (34, 50)
) -> dict[str, list[Walk]]:
    """Ten walks of each subject, from every view: nm-01 to nm-06, bg-01 and bg-02, cl-01 and cl-02.

    Args:
        seed: The world's seed.
        subjects: How many people `train` and `test` have.
        views: Some of `VIEWS`.
        lengths: Fewest and most frames of a walk; all cameras film it for as long.
    """
    videos: dict[str, list[Walk]] = {}
    for split, count in subjects.items():
        videos[split] = []
        for index, person in enumerate(sample_subjects(seed, f"{NAME}/{split}", count)):
            subject = replace(person, name=f"{FIRST_SUBJECT[split] + index:03d}")
            rng = generator(seed, NAME, "clothes", subject.name)
            outfits = _outfits(rng, subject)
            for kind, repetitions in CASIA_B_REPETITIONS.items():
                for repetition in range(1, repetitions + 1):
                    num_frames = int(rng.integers(lengths[0], lengths[1] + 1))
                    videos[split] += [
                        Walk(subject, kind, repetition, view, outfits[kind], num_frames) for view in views
                    ]
    return videos


def _outfits(rng: np.random.Generator, subject: Subject) -> dict[str, Outfit]:
    """What a subject wears in each kind of walk: one set of clothes, one bag, one coat."""
    own = sample_outfit(rng, subject, bare=False)
    bag = Bag(
        BAGS[int(rng.integers(len(BAGS)))], in_hand=bool(rng.integers(2)), side=int(rng.choice([LEFT, RIGHT]))
    )  # fmt: skip
    coat = COATS[int(rng.integers(len(COATS)))]
    return {
        "nm": own,
        "bg": replace(own, bag=bag),
        "cl": replace(own, top=coat, sleeves=1.0, stripes=False, coat=True),
    }


def set_stage(walk: Walk, seed: int) -> Stage:
    """The walk before its camera; only camera, backdrop and light know the view."""
    camera = sample_scene(generator(seed, NAME, "camera", walk.view), _backdrop())
    rng = generator(seed, NAME, "walk", walk.subject.name, walk.kind, walk.repetition)
    level = float(rng.uniform(0.94, 1.06))
    light = Light(tuple(level * gain for gain in camera.light.gain), camera.light.gamma, camera.light.noise)
    phase, tempo = float(rng.uniform(0, 2 * math.pi)), float(rng.normal(1.0, 0.02))
    azimuth = math.radians(walk.view + rng.uniform(-3.0, 3.0))
    gait = replace(walk.subject.gait, cadence=walk.subject.gait.cadence * tempo)
    middle = walk.num_frames / (2 * FPS)
    column, row = float(rng.normal(0.5, 0.01)), float(rng.normal(0.945, 0.004))
    # Frame widths a second; a body height is about 0.6 of the frame's width.
    speed = 0.6 * MOTIONS["walk"].stride / MOTIONS["walk"].period * gait.cadence * gait.amplitude

    def pose(seconds: np.ndarray) -> Pose:
        walking = perform("walk", seconds, gait=gait, phase=phase)
        bag = walk.outfit.bag
        if bag is not None and bag.in_hand:
            walking.shoulder[:, bag.side, FLEX] *= 0.35
            walking.elbow[:, bag.side, FLEX] = 0.08
        return walking

    def place(seconds: np.ndarray) -> np.ndarray:
        gone = speed * (seconds - middle)
        return np.stack((column + math.sin(azimuth) * gone, row + 0.12 * math.cos(azimuth) * gone), axis=1)

    person = Person(walk.subject, walk.outfit, pose, place, azimuth, height=float(rng.normal(0.78, 0.008)))
    return Stage(scene=replace(camera, light=light, shake=0.0), people=(person,), seconds_offset=0.0)


def _backdrop() -> int:
    return next(index for index, kind in enumerate(KINDS) if kind.name == BACKDROP)


def film(walk: Walk, seed: int) -> np.ndarray:  # -> [T, H, W, 3] uint8
    shot = set_stage(walk, seed)
    return render(shot.scene, shot.people, np.arange(walk.num_frames) / FPS).frames


def write_video(walk: Walk, seed: int, folder: Path) -> None:
    path = folder / "videos" / f"{walk.name}.avi"
    if not path.exists():
        write_bytes(path, encode_avi(film(walk, seed)))


def write_labels(folder: Path, splits: Mapping[str, Sequence[Walk]]) -> None:
    """`private_labels.csv`: Casia-B itself has no table, its names say everything but the attributes."""
    header = ("filename", "subject", "split", *ATTRIBUTES, "walk", "view", "num_frames")
    rows = (
        (f"{walk.name}.avi", walk.subject.name, split, *walk.attributes, walk.kind, walk.view, walk.num_frames)
        for split, walks in splits.items()
        for walk in walks
    )
    write_csv(folder / "private_labels.csv", header, rows)
