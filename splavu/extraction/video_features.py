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

NO_OVERLAP = 16


class VideoFeatures(NamedTuple):
    """A video as a detector wants it."""

    features: np.ndarray  # [T, D], or [T, N, D] of N crops, float32
    fps: float
    duration: float
    """Seconds."""


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
        UserError: The video is missing or damaged, doesn't say its frame rate, or an argument is out of range.
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
        if video.fps <= 0:
            raise UserError(path, "doesn't say how many frames a second it has", "convert it to .mp4")
        return VideoFeatures(stacked(result), video.fps, len(video) / video.fps)


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
