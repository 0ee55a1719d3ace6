"""PA-HMDB51 of the synthetic world: what videos of `hmdb51` show of people, frame by frame, in the published format.

Labels only, of the videos that `hmdb51` doesn't train on. They say what is visible, not what is true: `skin_color` is 0
in frames that don't show it, for every skin colour. The published files' irregularities are kept.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from splavu.runtime.files import write_bytes
from splavu.synthetic.drawing.render import ATTRIBUTES, FPS, Person, face_visibility, skeleton_at, visible_attributes
from splavu.synthetic.layouts import video_name
from splavu.synthetic.plans import Plan, Stage, generator, stage

NAME = "pa_hmdb51"
SPLITS = ("val", "test")
"""Of `hmdb51`; the published labels too are for testing only."""
BROWN = 106.0
"""A dark skin of at least this much red is brown (2), one of less is black (3): the middle of the range."""
LATE, UNREVIEWED, NOTELESS = (37, 3), (13, 5), (50, 7)
"""Which videos have no label in their first frames, `review` false, or no `note`: (one in how many, starting at)."""

Value = int | list[int]
Range = list[Any]
"""First frame, last frame, value."""


@dataclass(frozen=True)
class Take:
    """One video of the set `hmdb51`."""

    plan: Plan
    seed: int
    split: str

    def stage(self) -> Stage:
        """Who is filmed, as `layouts.film` arranges it."""
        return stage(self.plan, generator(self.seed, f"hmdb51/{self.split}", "video", self.plan.index))

    def frame_values(self) -> dict[str, list[Value]]:
        """Attribute -> its value in each frame."""
        shot = self.stage()
        return frame_values(shot.people, shot.seconds_offset + np.arange(self.plan.num_frames) / FPS)


def frame_values(people: Sequence[Person], seconds: np.ndarray) -> dict[str, list[Value]]:  # T values each
    """What an annotator would note of each moment; a list where the companion differs.

    Face and nudity are the main person's. Nudity is 2 for a bare torso or a swimming top, 1 for short sleeves, shorts
    or a skirt. Skin colour is visible in a face or in bare arms, legs or torso; gender in the head, a bare torso, a
    skirt, or a chest that is turned to the camera.
    """
    visible = dict(zip(ATTRIBUTES, visible_attributes(people, seconds).T, strict=True))
    main = next(person for person in people if person.role == "main")
    close = [main, *(person for person in people if person.role == "companion")]
    outfit = main.outfit
    dressed_lightly = outfit.sleeves < 0.75 or outfit.shorts or outfit.skirt
    return {
        "face": (2 * visible["complete_face"] + visible["partial_face"]).tolist(),
        "gender": _together([_gender(person, seconds) for person in close]),
        "skin_color": _together([_skin_color(person, seconds) for person in close]),
        "nudity": [2 if outfit.bare else int(dressed_lightly)] * len(seconds),
        "relationship": visible["personal_relationship"].tolist(),
    }


def _gender(person: Person, seconds: np.ndarray) -> np.ndarray:  # [T] -> [T]
    outfit = person.outfit
    visible = np.cos(skeleton_at(person, seconds).facing) > np.cos(np.radians(45))
    if outfit.cover != "helmet" or outfit.bare or outfit.skirt:
        visible[:] = True
    return visible * (2 if person.subject.female else 1)


def _skin_color(person: Person, seconds: np.ndarray) -> np.ndarray:  # [T] -> [T]
    outfit, subject = person.outfit, person.subject
    visible = np.logical_or(*face_visibility(person, seconds))
    if outfit.bare or outfit.shorts or outfit.sleeves < 0.75:
        visible[:] = True
    return visible * ((2 if subject.skin[0] >= BROWN else 3) if subject.dark_skin else 1)


def _together(of_people: Sequence[np.ndarray]) -> list[Value]:  # of [T] -> T values
    """Frame by frame the value that holds, a list if several do, 0 if none is visible."""
    values = []
    for frame in zip(*(of_person.tolist() for of_person in of_people), strict=True):
        held = sorted(set(frame) - {0}) or [0]
        values.append(held if len(held) > 1 else held[0])
    return values


def ranges(values: Sequence[Value]) -> list[Range]:
    """Runs of equal values: first frame, last frame (which counts in), value."""
    found, start = [], 0
    for value, run in groupby(values):
        stop = start + len(list(run))
        found.append([start, stop - 1, value])
        start = stop
    return found


def write_labels(folder: Path, splits: Mapping[str, Sequence[Take]]) -> None:
    """`PrivacyAttributes/<action>.json`, each an object of video name -> ranges of the five attributes.

    As in the published files, a few videos have no label for their first frames, a few aren't reviewed or have no note,
    and in one video a frame stands in two ranges of the face.
    """
    files: dict[str, dict[str, Any]] = defaultdict(dict)
    takes = (take for split in SPLITS for take in splits[split])
    for position, take in enumerate(takes):
        entry: dict[str, Any] = {name: ranges(values) for name, values in take.frame_values().items()}
        if position == 0:
            first, last, value = entry["face"][0]
            middle = (first + last) // 2
            entry["face"][:1] = [[first, middle, value], [middle, last, value]]
        if _is_one_of(position, LATE):
            entry = {name: _from_frame(2 + position % 12, found) for name, found in entry.items()}
        entry["review"] = not _is_one_of(position, UNREVIEWED)
        if not _is_one_of(position, NOTELESS):
            entry["note"] = ""
        files[take.plan.action][video_name(take.plan)] = entry
    for action, videos in files.items():
        content = json.dumps(dict(sorted(videos.items())), indent=4) + "\n"
        write_bytes(folder / "PrivacyAttributes" / f"{action}.json", content.encode())


def _is_one_of(position: int, every: tuple[int, int]) -> bool:
    return position % every[0] == every[1]


def _from_frame(first: int, found: Sequence[Range]) -> list[Range]:
    """The ranges without the frames before `first`."""
    return [[max(first, start), end, value] for start, end, value in found if end >= first]
