"""Features of one long video: a row per clip of 16 frames, a clip every `stride` frames.

Each frame is decoded and resized once, also where clips overlap, and only a few seconds of a video are in memory at any
time.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from splavu.data.encoders import EncoderSpec
from splavu.data.keys import file_key
from splavu.errors import UserError
from splavu.extraction.clips import cut_clips
from splavu.extraction.decoding import Job, Pieces
from splavu.extraction.encoders import FrozenEncoder
from splavu.extraction.extract import Result, extract
from splavu.extraction.obfuscation import Obfuscation, obfuscated
from splavu.extraction.preprocessing import CROPS, crop_views
from splavu.extraction.videos import VideoReader, open_video
from splavu.extraction.videos.streams import inspect
from splavu.runtime import extras

NO_OVERLAP = 16
NOTICEABLE = 0.1
"""Seconds."""


class VideoFeatures(NamedTuple):
    """A video as a detector wants it."""

    features: np.ndarray  # [T, D], or [T, N, D] of N crops, float32
    fps: float
    """On average; 0 where the file doesn't say."""
    duration: float
    """Seconds."""
    times: np.ndarray  # [n] float64
    """When each frame is shown, in seconds. Row t begins at `times[stride * t]`, which for a video of variable rate is
    not `stride * t / fps`."""

    def seconds(self, frames: np.ndarray) -> np.ndarray:  # [...] -> [...]
        """When the places on a scale of frames are shown, where 2.5 is the middle of frame 2."""
        return np.interp(frames, np.arange(len(self.times) + 1), [*self.times, self.duration])


def video_features(
    path: str | Path,
    encoder: FrozenEncoder,
    *,
    stride: int = NO_OVERLAP,
    crops: int = 1,
    backend: str | None = None,
    batch_size: int = 32,
    precision: str = "fp32",
    hide: Obfuscation | None = None,
) -> VideoFeatures:
    """Features of one video, computed where the encoder is. Row t covers the frames from `stride * t` on.

    Args:
        path: The video file.
        encoder: From `splavu.extraction.encoders.load_encoder`; its table row says how frames are prepared.
        stride: Frames from one clip's start to the next, 1 to the length of a clip.
        crops: Views of each clip: 1, 5 or 10.
        backend: A name in `videos.BACKENDS`; None is the default.
        batch_size: Clips in one pass through the encoder.
        precision: 'fp32' or 'bf16'.
        hide: What is done to the frames before anything else, from `obfuscation.obfuscation`; a file of boxes must name
            the video by its file name without extension.

    Raises:
        UserError: The video is missing or damaged, nothing says when its frames are shown, or an argument is out of
            range.
    """
    check_clips(stride, crops, encoder.spec.num_frames)
    with obfuscated(open_video(path, backend), hide, file_key(Path(path).name)) as video:
        job = Job(str(path), lambda: video_pieces(video, encoder.spec, stride=stride, crops=crops))
        (result,) = extract(
            [job],
            encoder,
            preprocessing=encoder.spec.preprocessing,
            device=next(encoder.parameters()).device,
            batch_size=batch_size,
            num_workers=1,
            precision=precision,
        )
        if result.error is not None:
            raise result.error
        return VideoFeatures(stacked(result), video.fps, video.duration, video.times)


def time_error(path: Path) -> float:
    """By how many seconds at most a frame of a video is shown before or after its number divided by the average rate.

    0 for a constant rate from the beginning of the file on, for what is below `NOTICEABLE` or two frames, and without
    PyAV. Where annotations give a rate, row t is taken for the clip at `stride * t / fps` seconds, which errs as much.
    """
    if not extras.is_installed("av"):
        return 0.0
    times = inspect(path).times
    if len(times) < 2 or times[-1] <= times[0]:
        return 0.0
    step = (times[-1] - times[0]) / (len(times) - 1)
    error = float(np.abs(times - step * np.arange(len(times))).max())
    return error if error > max(NOTICEABLE, 2 * step) else 0.0


def check_clips(stride: int, crops: int, num_frames: int) -> None:
    """Refuse a stride that would skip frames, and numbers of crops that don't exist."""
    if not 1 <= stride <= num_frames:
        raise UserError("stride", f"is {stride}, expected 1 to {num_frames} (a clip's length), or frames would be lost")
    if crops not in CROPS:
        raise UserError("crops", f"is {crops}, expected one of {', '.join(map(str, CROPS))}")


def video_pieces(video: VideoReader, spec: EncoderSpec, *, stride: int, crops: int) -> Pieces:
    """The clips of an open video, one output per crop."""
    num_frames, preprocessing = spec.num_frames, spec.preprocessing
    views = (
        crop_views(torch.from_numpy(frames), preprocessing, crops) for frames in video.frames(batch_size=4 * num_frames)
    )  # [n, N, crop, crop, 3]
    for clips in cut_clips(views, num_frames, stride=stride):  # [k, T, N, crop, crop, 3]
        for crop in range(crops):
            yield str(crop), clips[:, :, crop]


def file_pieces(
    path: Path, *, key: str, spec: EncoderSpec, stride: int, crops: int, backend: str, hide: Obfuscation | None = None
) -> Pieces:
    """`video_pieces` of a file, in a form that can be sent to a process."""
    with obfuscated(open_video(path, backend), hide, key) as video:
        yield from video_pieces(video, spec, stride=stride, crops=crops)


def stacked(result: Result) -> np.ndarray:  # N outputs of [T, D] -> [T, D] or [T, N, D]
    """The outputs of `video_pieces` as one array."""
    rows = [result.features[str(crop)] for crop in range(len(result.features))]
    return rows[0] if len(rows) == 1 else np.stack(rows, axis=1)
