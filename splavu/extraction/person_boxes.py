"""Where people are in a frame: found by OpenCV's pedestrian detector, or read from a file of boxes.

The detector needs no download: histograms of oriented gradients and a linear SVM (Dalal and Triggs 2005). It finds
people who stand or walk, are seen whole, and take up some two fifths of the frame's height or more; it misses many who
sit, lie, bend or are cut off, and it marks some furniture. That makes a baseline that runs anywhere and protects
little.

The synthetic world is easy for it: of people who mostly stand in frames of 160 x 120, it covers 98 % of the joints and
98 % of the heads, 1.3 % of the people less than half, with boxes that take up 57 % of a frame where tight ones would
need 36 %; 9 ms a frame on one core (`benchmarks/person_boxes.py`). Without `PADDING` it covers a tenth. Real footage is
not: of twelve frames spread over each real clip of the tests, the main person is in a box in all of the tennis lesson,
and in 7 of the broadcast of a high jump, whose close-ups of a face it misses.

For real footage, run a detector of your own and pass its boxes: `BoxFile` says in which form.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from splavu.errors import UserError
from splavu.runtime import extras

GROUP = 8
"""Consecutive frames that share boxes, those found in any of them. A detector that flickers shows a person in one frame
of a clip, and one frame is enough to recognise a person."""
EVERY = 4
"""Frames from one that is searched to the next; in an eighth of a second no person leaves a box's margin."""
SHORT_SIDE = 240
"""Pixels of a frame's short side when it is searched; more finds smaller people and costs the square of it."""
MOST_ENLARGED = 4.0
"""Bounds the memory for frames that are a few pixels high."""
PADDING = 0.25
"""Share of each side that is added around a frame, by repeating its edge. The detector's window leaves a sixth of its
height free above and below a person: without padding, who fills the frame is never found."""


class PersonBoxes(Protocol):
    """Knows where people are. Safe to use from several threads, and small enough to be sent to a worker process."""

    @property
    def description(self) -> str:
        """For a store's provenance."""

    def boxes(self, frames: np.ndarray, key: str, first: int) -> list[np.ndarray]:
        """The people of n consecutive frames.

        Args:
            frames: [n, H, W, 3] uint8 RGB.
            key: The video or image they are from.
            first: Number of the first of them.

        Returns:
            For each frame [m, 4] integers: left, top, right, bottom, within the frame; the last two are excluded.
        """


@dataclass(frozen=True)
class HogDetector:
    """OpenCV's HOG and SVM pedestrian detector, with its default weights and a scale step of 1.05.

    Its boxes have the margin of its training windows, a sixth of the height above and below a person, which is what
    covers outstretched arms; none is added. The same frames give the same boxes, for any number of threads.
    """

    @property
    def description(self) -> str:
        cv2 = extras.require("cv2", extra="video", why="people are found with it")
        return (
            f"opencv {cv2.__version__} HOG, default people detector, short side {SHORT_SIDE}, padding {PADDING}, "
            f"every {EVERY} of {GROUP} frames, united"
        )

    def boxes(self, frames: np.ndarray, key: str, first: int) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for start in range(0, len(frames), GROUP):
            group = frames[start : start + GROUP]
            united = np.concatenate([_found_in(frame) for frame in group[::EVERY]])
            found += [np.unique(united, axis=0)] * len(group)
        return found


def _found_in(frame: np.ndarray) -> np.ndarray:  # [H, W, 3] -> [m, 4]
    import cv2

    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
    rows, columns = (round(PADDING * side) for side in frame.shape[:2])
    padded = cv2.copyMakeBorder(frame, rows, rows, columns, columns, cv2.BORDER_REPLICATE)
    scale = min(MOST_ENLARGED, SHORT_SIDE / min(frame.shape[:2]))
    sought = cv2.resize(
        padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    width, height = detector.winSize
    if sought.shape[0] < height or sought.shape[1] < width:  # OpenCV reads beyond such a picture
        return np.empty((0, 4), int)
    rectangles, _ = detector.detectMultiScale(sought, winStride=(8, 8), scale=1.05)
    if not len(rectangles):
        return np.empty((0, 4), int)
    corner, size = np.split(np.asarray(rectangles, float) / scale, 2, axis=1)
    return _within(np.hstack([corner, corner + size]) - (columns, rows, columns, rows), frame)


def _within(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:  # [m, 4] float -> [m, 4] int
    """Whole pixels, rounded outwards and cut at the frame's edges; boxes that lie outside are left out."""
    height, width = frame.shape[:2]
    outwards = np.hstack([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])])
    cut = np.clip(outwards, 0, (width, height, width, height)).astype(int)
    return cut[(cut[:, :2] < cut[:, 2:]).all(axis=1)]


@dataclass(frozen=True)
class BoxFile:
    """Boxes of a detector of one's own, from a CSV file with the header `key,frame,left,top,right,bottom`.

    A line is a person in a frame. `key` is that of the store (a video's name without extension, an image's with it),
    `frame` counts from 0 (0 for an image), and the sides are pixels of the decoded frame, fractions allowed; what lies
    outside the frame is cut off. A frame without a line shows no person. So a video that shows no person needs a line
    with only its key, `key,,,,,`, because one that the file doesn't name is an error: it would be stored unhidden.

    All boxes are kept in memory, 40 bytes each once read.
    """

    description: str
    by_key: Mapping[str, np.ndarray]
    """[m, 5] float64 by rising frame: frame, left, top, right, bottom."""
    path: Path

    HEADER = ("key", "frame", "left", "top", "right", "bottom")

    @classmethod
    def read(cls, path: str | Path) -> BoxFile:
        """Read and check `path`.

        Raises:
            UserError: There is no such file, or a line of it is not as described.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(path, "no such file of boxes", f"a CSV file with the header {','.join(cls.HEADER)}")
        data = path.read_bytes()
        try:
            lines = csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True)
            header = tuple(next(lines, ()))
            if header != cls.HEADER:
                raise UserError(path, f"begins with '{','.join(header)[:60]}'", f"expected {','.join(cls.HEADER)}")
            rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
            for line in lines:
                if line:
                    rows[line[0]] += _box(line, f"{path} line {lines.line_num}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(path, f"no CSV file in UTF-8 ({error})", "write it again") from error
        by_key = {key: np.array(sorted(boxes), float).reshape(-1, 5) for key, boxes in rows.items()}
        return cls(f"file, sha256 {hashlib.sha256(data).hexdigest()[:16]}", by_key, path)

    def only(self, key: str) -> BoxFile:
        """The boxes of one video."""
        return BoxFile(self.description, {key: self.by_key[key]} if key in self.by_key else {}, self.path)

    def boxes(self, frames: np.ndarray, key: str, first: int) -> list[np.ndarray]:
        if key not in self.by_key:
            remedy = f"add them, or the line '{key},,,,,' if it shows no person"
            raise UserError(self.path, f"names no boxes for '{key}'", remedy)
        of_video = self.by_key[key]
        edges = np.searchsorted(of_video[:, 0], np.arange(first, first + len(frames) + 1))
        parts = (of_video[start:stop, 1:] for start, stop in itertools.pairwise(edges))
        return [_within(part, frame) for part, frame in zip(parts, frames, strict=True)]


def _box(line: list[str], where: str) -> list[tuple[float, ...]]:
    """The box of one line, as (frame, left, top, right, bottom); none for a line with only a key."""
    if len(line) != len(BoxFile.HEADER):
        raise UserError(where, f"has {len(line)} columns", f"expected {','.join(BoxFile.HEADER)}")
    if not any(line[1:]):
        return []
    try:
        frame, sides = int(line[1]), tuple(float(value) for value in line[2:])
    except ValueError as error:
        raise UserError(where, f"not a number ({error})", "frame is an integer, the sides are pixels") from error
    left, top, right, bottom = sides
    if frame < 0 or not all(map(math.isfinite, sides)) or left >= right or top >= bottom:
        raise UserError(where, f"is no box: {','.join(line[1:])}", "frame >= 0, left < right and top < bottom")
    return [(float(frame), *sides)]
