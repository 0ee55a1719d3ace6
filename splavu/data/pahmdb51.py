"""PA-HMDB51: five private attributes of every frame, and of the clips that are made of them.

Note: a frame without a label is unknown (NaN), not negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splavu.data.keys import file_key
from splavu.data.labels import read_json
from splavu.errors import UserError

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
class FrameLabels:
    """What PA-HMDB51 says of each frame of one video. `F` frames."""

    action: str
    values: Mapping[str, NDArray[np.bool_]]
    """Attribute -> [F, values]: which values hold, two where the subjects differ, none where the frame has no label."""

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
        """In the order of `labels.VISPR_ATTRIBUTES`, to evaluate an attacker that was trained on VISPR.

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
        raise UserError(
            folder, "holds no annotation file <action>.json", "see docs/data.md for the layout of PA-HMDB51"
        )
    videos: dict[str, FrameLabels] = {}
    source: dict[str, Path] = {}
    for path in paths:
        for file_name, entry in read_json(path).items():
            key = file_key(file_name)
            if not key:
                raise UserError(path, f"'{file_name}' names no video", "mend the file")
            if key in videos:
                raise UserError(path, f"duplicate key '{key}', also in {source[key].name}", "keep one of the two")
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
