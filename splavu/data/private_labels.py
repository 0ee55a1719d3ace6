"""Who is seen, and what of them: readers of side tables, of gender and of PA-HMDB51's attributes of every frame.

What a reader would get wrong: a frame without a label is unknown (NaN), not negative. And "gender" is what annotators
perceived; nobody in these files was asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splavu.data.labels import (
    VISPR_ATTRIBUTES,
    by_key,
    class_index,
    read_json,
    read_private_labels,
    read_rows,
    without_extension,
)
from splavu.errors import UserError, nearest

GENDERS = ("female", "male")

MAX_FRAMES = 10_000_000
"""Of a video, days long; a range beyond is a slip of the pen, and would fill the memory."""

PAHMDB51_VALUES: Mapping[str, tuple[str, ...]] = {
    "skin_color": ("unidentifiable", "white", "brown", "black"),
    "face": ("invisible", "partially visible", "completely visible"),
    "gender": ("unidentifiable", "male", "female"),
    "nudity": ("none", "partial", "semi"),
    "relationship": ("unidentifiable", "identifiable"),
}
"""Attribute -> what the values 0, 1, ... in its ranges mean."""


@dataclass(frozen=True)
class PrivateLabels:
    """What an attacker wants to know of the videos of a data set, and of whom each is."""

    attributes: tuple[str, ...]
    """Names of the A columns."""
    values: Mapping[str, NDArray[np.float32]]
    """Key -> [A] of 0 and 1."""
    people: Mapping[str, str]
    """Key -> the person (or the film, where people have no names): what a split may not cut through."""


@dataclass(frozen=True)
class Person:
    """Somebody as a fairness evaluation groups them."""

    subject: str
    gender: str
    """As annotators perceived it: 'female' or 'male'."""


def gender_labels(people: Mapping[str, Person]) -> PrivateLabels:  # key -> person
    """Gender as the one private attribute, 1 for 'female'."""
    values = {key: np.array([person.gender == "female"], dtype=np.float32) for key, person in people.items()}
    return PrivateLabels(("gender",), values, {key: person.subject for key, person in people.items()})


def read_side_table(path: str | Path) -> PrivateLabels:
    """`private_labels.csv`: filename, subject, then one column an attribute of VISPR's seven, by file name.

    Raises:
        UserError: A column is missing, a value is neither 0 nor 1, or a file is named twice.
    """
    values, people = read_private_labels(path)
    return PrivateLabels(VISPR_ATTRIBUTES, values, people)


def read_ntu_genders(path: str | Path) -> dict[str, str]:
    """`{"male": ["P003", ...], "female": [...]}` (ntu_subject_gender_labels.json) -> {subject: gender}."""
    listed = read_json(path)
    for gender in GENDERS:
        if not isinstance(listed.get(gender), list):
            raise UserError(path, f"has no list '{gender}'", "it takes a list 'male' and a list 'female' of subjects")
    if unknown := sorted(set(listed) - set(GENDERS)):
        raise UserError(path, f"'{unknown[0]}' is no gender of this file", nearest(unknown[0], GENDERS))
    genders: dict[str, str] = {}
    for gender in GENDERS:
        for subject in listed[gender]:
            if not isinstance(subject, str) or not re.fullmatch(r"P[0-9]{3}", subject):
                raise UserError(path, f"{subject!r} is no subject of the form Pppp, such as P003", "mend the list")
            if subject in genders:
                raise UserError(path, f"'{subject}' stands there twice", "give each subject one gender")
            genders[subject] = gender
    return genders


def read_gender_csv(path: str | Path) -> dict[str, str]:
    """Columns `filename,gender` (ntu_val_labels.csv) -> {file name without extension: gender}."""
    rows = by_key(read_rows(path, ("filename", "gender")), path)
    return {key: _gender(row["gender"], path, key) for key, row in rows.items()}


@dataclass(frozen=True)
class SmarthomeVideo:
    """One row of tsh_labels.csv."""

    subject: str
    gender: str
    split: str
    """'train' or 'test', here and there 'val': the split is the file's, none is made."""
    label: int
    """0-based, unlike in the file."""


def read_smarthome(path: str | Path, *, num_classes: int = 31) -> dict[str, SmarthomeVideo]:
    """Toyota Smarthome's `filename,subject,gender,split,label` -> {file name without extension: row}.

    Raises:
        UserError: Besides damaged rows, a subject of two genders or in two splits.
    """
    videos: dict[str, SmarthomeVideo] = {}
    of_subject: dict[str, SmarthomeVideo] = {}
    for key, row in by_key(read_rows(path, ("filename", "subject", "gender", "split", "label")), path).items():
        if row["split"] not in ("train", "val", "test"):
            raise UserError(path, f"'{key}' is in split '{row['split']}'", "known: train, val, test")
        label = class_index(row["label"], path, key, base=1, num_classes=num_classes)
        video = SmarthomeVideo(row["subject"], _gender(row["gender"], path, key), row["split"], label)
        first = of_subject.setdefault(video.subject, video)
        for field in ("gender", "split"):
            if getattr(first, field) != getattr(video, field):
                values = f"{field} {getattr(first, field)} and {getattr(video, field)}"
                raise UserError(path, f"subject '{video.subject}' has {values}", "give each subject one")
        videos[key] = video
    return videos


@dataclass(frozen=True)
class FrameLabels:
    """What PA-HMDB51 says of each frame of one video. `F` frames."""

    action: str
    values: Mapping[str, NDArray[np.bool_]]
    """Attribute -> [F, values]: which values hold, two where people differ, none where the frame has no label."""

    @property
    def num_frames(self) -> int:
        return len(self.values["face"])

    @property
    def multi_hot(self) -> NDArray[np.bool_]:  # [F, 15]
        """All values of all attributes side by side, in the order of `PAHMDB51_VALUES`."""
        return np.concatenate([self.values[name] for name in PAHMDB51_VALUES], axis=1)

    def binary(self) -> NDArray[np.float32]:  # [F, 5]
        """Skin colour, face, gender, nudity, relationship: 1 unless the value is 0 (annotations/README.md)."""
        return np.stack([self._holds(name, 1) for name in PAHMDB51_VALUES], axis=1)

    def as_vispr(self, *, lenient_nudity: bool = False) -> NDArray[np.float32]:  # [F, 7]
        """In the order of `labels.VISPR_ATTRIBUTES`, to judge an attacker that learnt from VISPR.

        Social relationship has no counterpart: 0 in every frame, so average precision leaves it out. Semi-nudity is
        value 2; `lenient_nudity` takes partial nudity too.
        """
        columns = (
            self._holds("skin_color", 1),
            self._holds("gender", 1),
            self._holds("face", 2),
            self._holds("face", 1, 2),
            self._holds("nudity", 1 if lenient_nudity else 2),
            self._holds("relationship", 1),
            np.zeros(self.num_frames, dtype=np.float32),
        )
        return np.stack(columns, axis=1)

    def _holds(self, name: str, first: int, end: int | None = None) -> NDArray[np.float32]:  # [F]
        """Whether one of the values from `first` until before `end` holds; NaN where the frame has no label."""
        values = self.values[name]
        return np.where(values.any(axis=1), values[:, first:end].any(axis=1), np.float32(np.nan)).astype(np.float32)


def read_pahmdb51(folder: str | Path, *, num_frames: Mapping[str, int] | None = None) -> dict[str, FrameLabels]:
    """PA-HMDB51's folder PrivacyAttributes, a JSON file an action -> {video name without .avi: labels}.

    Ranges count frames from 0 and include their end. Value 0 in a list of values says nothing beside the others. Where
    two ranges hold a frame the later one counts (it happens once; the data set's own viewer shows the earlier one).

    Args:
        folder: Read whole; an empty one is an error.
        num_frames: Frames of the videos as decoded, by the same names, to refuse ranges beyond them.

    Raises:
        UserError: A file, video, attribute, value or range that is none, and a video in two files.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UserError(folder, "holds no annotation file <action>.json", "see the README for the layout of PA-HMDB51")
    videos: dict[str, FrameLabels] = {}
    source: dict[str, Path] = {}
    for path in paths:
        for file_name, entry in read_json(path).items():
            key = without_extension(file_name)
            if not key:
                raise UserError(path, f"'{file_name}' names no video", "mend the file")
            if key in videos:
                raise UserError(path, f"'{key}' stands in {source[key].name} too", "keep one of the two")
            length = None if num_frames is None else num_frames.get(key)
            videos[key], source[key] = FrameLabels(path.stem, _frame_values(entry, path, key, length)), path
    return videos


def clip_labels(
    frames: NDArray[np.floating], num_clips: int, *, name: str, clip_length: int = 16
) -> NDArray[np.float32]:  # [F, A] -> [K, A]
    """An attribute is in a clip if it is in one of its frames; NaN where no frame of the clip has a label.

    Args:
        frames: As `FrameLabels.binary` or `.as_vispr` give them.
        num_clips: Rows that the feature store has for the video: clips that follow one another.
        name: Of the video, for the error.
        clip_length: Frames a clip; a video with fewer is one clip.

    Raises:
        UserError: The last clip reaches beyond the labelled frames.
    """
    if num_clips > max(1, len(frames) // clip_length):
        problem = f"has {num_clips} clips of {clip_length} frames, but its labels cover {len(frames)} frames"
        raise UserError(name, problem, "extract the features again from the annotated video")
    clips = np.full((num_clips, frames.shape[1]), np.nan, dtype=np.float32)
    for clip in range(num_clips):
        np.fmax.reduce(frames[clip * clip_length : (clip + 1) * clip_length], axis=0, out=clips[clip])
    return clips


def _gender(value: str, path: object, key: str) -> str:
    gender = {"f": "female", "m": "male"}.get(value.strip().lower(), value.strip().lower())
    if gender not in GENDERS:
        raise UserError(path, f"'{key}' has gender '{value}'", f"known: {', '.join(GENDERS)}")
    return gender


def _frame_values(
    entry: object, path: Path, key: str, num_frames: int | None
) -> dict[str, NDArray[np.bool_]]:  # attribute -> [F, values]
    """The five attributes of one video, written out frame by frame."""
    ranges = {name: _ranges(entry, name, path, key) for name in PAHMDB51_VALUES}
    last = {name: max(end for _, end, _ in found) for name, found in ranges.items()}
    if len(set(last.values())) > 1:
        ends = ", ".join(f"{name} {end}" for name, end in last.items())
        raise UserError(path, f"'{key}' has ranges outside the video: attributes end at frames {ends}", "mend the ends")
    length = last["face"] + 1
    if num_frames is not None and length > num_frames:
        raise UserError(path, f"'{key}' has a range to frame {length - 1}, but the video has {num_frames} frames")
    values = {name: np.zeros((length, len(meanings)), dtype=bool) for name, meanings in PAHMDB51_VALUES.items()}
    for name, found in ranges.items():
        for start, end, held in found:
            values[name][start : end + 1] = np.isin(np.arange(len(PAHMDB51_VALUES[name])), held)
    return values


def _ranges(entry: object, name: str, path: Path, key: str) -> list[tuple[int, int, list[int]]]:
    """The checked ranges (first frame, last frame, values) of one attribute."""
    listed = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(listed, list) or not listed:
        raise UserError(path, f"'{key}' has no ranges of '{name}'", f"each video takes {', '.join(PAHMDB51_VALUES)}")
    found = []
    for item in listed:
        if not isinstance(item, list) or len(item) != 3:
            raise UserError(path, f"'{key}' has the {name} range {item}", "expected [first frame, last frame, value]")
        start, end, value = item
        if type(start) is not int or type(end) is not int or not 0 <= start <= end < MAX_FRAMES:
            raise UserError(
                path, f"'{key}' has the {name} range {item}", "frames count from 0 and the last is included"
            )
        held = value if isinstance(value, list) else [value]
        known = range(len(PAHMDB51_VALUES[name]))
        if not held or any(type(v) is not int or v not in known for v in held):
            raise UserError(path, f"'{key}' has the unknown {name} value {value}", f"known: 0 to {known[-1]}")
        found.append((start, end, [v for v in held if v] or [0]))
    return found
