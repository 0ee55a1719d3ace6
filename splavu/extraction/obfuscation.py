"""Table 1's pixel-level baselines: frames made coarse, or people blurred or blackened, before the encoder sees them.

    frames [n, H, W, 3] uint8 -> frames [n, H, W, 3] uint8

They change decoded frames at their own size, and everything after that (resizing, cropping, tiling) stays as it is for
raw frames. `none` is the absence of a transform: nothing is wrapped or copied. What was hidden stands in the store's
provenance, so one store never holds features of two kinds; file names stay as they are, because a study reads them by
name, and the stores go to a folder of their own (`default_features`), to which SPLAVU_FEATURES may point.

A reader would trust `blur` and `blacken` too much: they hide what a detector finds. `person_boxes` says how much that
is, and takes boxes from a detector of one's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from splavu.errors import UserError, nearest
from splavu.extraction.person_boxes import BoxFile, HogDetector, PersonBoxes
from splavu.extraction.settings import DOWNSAMPLING, OBFUSCATIONS, PERSONS
from splavu.extraction.videos import VideoReader
from splavu.runtime import extras

BLUR_SIGMA = 1 / 12
"""Standard deviation of the blur, in longer sides of the box. A head is an eighth of a standing person and so about a
twelfth of a box with its margins: nothing of a face is left, while outline and pose still show."""


@dataclass(frozen=True)
class Obfuscation:
    """One of `OBFUSCATIONS` but `none`, ready to be applied; small, and fit to be sent to a worker process."""

    name: str
    persons: PersonBoxes | None = None
    """Where the people are, for `blur` and `blacken`."""

    def __call__(self, frames: np.ndarray, key: str, first: int = 0) -> np.ndarray:  # [n, H, W, 3] -> [n, H, W, 3]
        """Hide in consecutive frames, of which the first is number `first` of the video or image `key`.

        The input stays as it is. Where boxes come from a detector, `first` should be a multiple of
        `person_boxes.GROUP`: frames share boxes by groups.
        """
        if self.persons is None:
            return downsampled(frames, DOWNSAMPLING[self.name])
        hide = blurred if self.name == "blur" else blackened
        boxes = self.persons.boxes(frames, key, first)
        return np.stack([hide(frame, found) for frame, found in zip(frames, boxes, strict=True)])

    def only(self, key: str) -> Obfuscation:
        """What hides the same in `key`, and needs to know no other: to be sent to a process that decodes it."""
        return dataclasses.replace(self, persons=self.persons.only(key)) if isinstance(self.persons, BoxFile) else self

    @property
    def description(self) -> str:
        """For a store's provenance: everything that moves a pixel."""
        if self.persons is None:
            return f"{self.name}: by area and back, bilinear, at the frame's size"
        strength = f" (sigma {BLUR_SIGMA:.4f} of a box's longer side)" if self.name == "blur" else ""
        return f"{self.name} persons{strength}, boxes: {self.persons.description}"


def default_features(root: Path, hide: Obfuscation | None) -> Path:
    """Where stores go by default: those of raw frames to `root`, others to a folder in it."""
    return root if hide is None else root / hide.name


def obfuscation(name: str, *, person_boxes: str | Path | None = None) -> Obfuscation | None:
    """The transform called `name`, or None for `none`.

    Args:
        name: One of `OBFUSCATIONS`.
        person_boxes: A file of boxes (`person_boxes.BoxFile`); by default people are looked for in the frames.

    Raises:
        UserError: No transform has this name, the file of boxes is bad, or it is given where no one is hidden.
    """
    if name not in OBFUSCATIONS:
        raise UserError(f"obfuscation '{name}'", "no such transform", nearest(name, OBFUSCATIONS))
    if name in PERSONS:
        return Obfuscation(name, BoxFile.read(person_boxes) if person_boxes else HogDetector())
    if person_boxes is not None:
        raise UserError("--person-boxes", f"has no meaning for '{name}'", f"use --obfuscate {' or '.join(PERSONS)}")
    return None if name == "none" else Obfuscation(name)


class ObfuscatedReader(VideoReader):
    """A video as its reader gives it, hidden. Closing it closes that reader."""

    def __init__(self, video: VideoReader, hide: Obfuscation, key: str) -> None:
        super().__init__(video.path)
        self._video, self._hide, self._key = video, hide, key
        self.fps = video.fps

    @property
    def expected_frames(self) -> int:  # the reader may learn better while it decodes
        return self._video.expected_frames

    @property
    def times(self) -> np.ndarray:  # -> [n]
        return self._video.times

    @property
    def duration(self) -> float:
        return self._video.duration

    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        first = 0
        for frames in self._video.frames(batch_size=64):  # whole groups of frames that share boxes
            is_wanted = [wanted is None or index in wanted for index in range(first, first + len(frames))]
            hidden = self._hide(frames, self._key, first) if any(is_wanted) else frames
            yield from (frame if sought else None for frame, sought in zip(hidden, is_wanted, strict=True))
            first += len(frames)

    def close(self) -> None:
        self._video.close()


def obfuscated(video: VideoReader, hide: Obfuscation | None, key: str) -> VideoReader:
    """`video` itself if nothing is to be hidden, else a reader of its hidden frames."""
    return video if hide is None else ObfuscatedReader(video, hide, key)


def obfuscated_image(image: np.ndarray, hide: Obfuscation | None, key: str) -> np.ndarray:  # [H, W, 3] -> [H, W, 3]
    """`image` itself if nothing is to be hidden, else as a video of one frame."""
    return image if hide is None else hide(image[None], key)[0]


def downsampled(frames: np.ndarray, factor: int) -> np.ndarray:  # [n, H, W, 3] -> [n, H, W, 3] uint8
    """Detail lost for good, size kept: mean of each `factor` x `factor` square, then bilinear interpolation.

    Sides that `factor` doesn't divide are rounded down, at least to 1 pixel; the squares are then a little larger.
    """
    height, width = frames.shape[1:3]
    small = (max(1, height // factor), max(1, width // factor))
    levels = torch.from_numpy(frames).movedim(-1, 1).float()  # [n, 3, H, W]
    coarse = F.interpolate(F.interpolate(levels, size=small, mode="area"), size=(height, width), mode="bilinear")
    return coarse.round_().clamp_(0, 255).byte().movedim(1, -1).contiguous().numpy()


def blackened(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:  # [H, W, 3], [m, 4] -> [H, W, 3]
    """0 in every box (left, top, right, bottom: pixels, the last two excluded)."""
    hidden = frame.copy()
    for left, top, right, bottom in boxes:
        hidden[top:bottom, left:right] = 0
    return hidden


def blurred(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:  # [H, W, 3], [m, 4] -> [H, W, 3]
    """A Gaussian blur in every box, the stronger the larger it is; where boxes overlap, the stronger one counts."""
    cv2 = extras.require("cv2", extra="video", why="boxes are blurred with it")
    hidden = frame.copy()
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    for size, (left, top, right, bottom) in sorted(zip(sizes.tolist(), boxes.tolist(), strict=True)):
        # A wide Gaussian is drawn from a smaller picture: a photograph of 12 megapixels would take many seconds.
        sigma = BLUR_SIGMA * size
        step = max(1, int(sigma // 4))
        height, width = bottom - top, right - left
        small = (-(-width // step), -(-height // step))
        inside = cv2.resize(frame[top:bottom, left:right], small, interpolation=cv2.INTER_AREA)
        inside = cv2.GaussianBlur(inside, (0, 0), sigma / step, borderType=cv2.BORDER_REPLICATE)
        hidden[top:bottom, left:right] = cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR)
    return hidden
