"""A picture a test video: anomaly score over time, ground truth shaded, key frames above if the video is at hand."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mgfn.errors import InputError, printable
from mgfn.frame_scores import ScoredVideo
from mgfn.runs import write_whole

logger = logging.getLogger(__name__)

NUM_KEY_FRAMES = 5
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def draw_all(
    scored: Sequence[ScoredVideo], folder: Path, frames_per_snippet: int, *, videos: str | Path | None = None
) -> Path:
    """Write `folder/NAME.png` for each video.

    Args:
        scored: The test videos.
        folder: Is made if need be.
        frames_per_snippet: Frames with one score; a key frame is the middle of its snippet.
        videos: Folder that holds, at any depth, `NAME.mp4` (or another usual suffix) or a folder `NAME` of images.

    Raises:
        InputError: There is no such folder of videos, or OpenCV is not installed.
    """
    if videos is not None and importlib.util.find_spec("cv2") is None:
        raise InputError("--videos", "needs OpenCV, which is not installed", "pip install opencv-python-headless")
    found = _videos_below(Path(videos)) if videos is not None else {}
    missing = [video.name for video in scored if video.name not in found] if videos is not None else []
    if missing:
        logger.warning(
            "%s: %d of %d videos are missing, the first is %s", videos, len(missing), len(scored), missing[0]
        )
    for video in tqdm(scored, desc="plots", leave=False, disable=not logger.isEnabledFor(logging.INFO)):
        indices = key_frames(video.scores, frames_per_snippet)
        images = _read_frames(found[video.name], indices) if video.name in found else {}
        _draw(video, images, folder / f"{video.name}.png")
    return folder


def key_frames(frame_scores: NDArray, frames_per_snippet: int) -> list[int]:
    """In each fifth of a video the middle of its highest-scored snippet, in order of time."""
    parts = np.array_split(frame_scores[::frames_per_snippet], NUM_KEY_FRAMES)
    starts = np.cumsum([0, *map(len, parts)])
    snippets = [start + int(part.argmax()) for start, part in zip(starts, parts, strict=False) if len(part)]
    return [min(i * frames_per_snippet + frames_per_snippet // 2, len(frame_scores) - 1) for i in snippets]


def _draw(video: ScoredVideo, images: Mapping[int, NDArray[np.uint8]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no window system is asked for, and no figure stays in memory.
    figure = Figure(figsize=(8, 3.6 if images else 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.add_gridspec(2 if images else 1, max(1, len(images)), height_ratios=(1, 1.4) if images else None)
    for column, (index, image) in enumerate(images.items()):
        axes = figure.add_subplot(rows[0, column])
        axes.imshow(image)
        axes.set_title(f"frame {index}", fontsize=8)
        axes.set_axis_off()
    axes = figure.add_subplot(rows[-1, :])
    edges = np.flatnonzero(np.diff(video.truth, prepend=0, append=0))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        axes.axvspan(start, end, color="tab:red", alpha=0.2, linewidth=0)
    axes.plot(video.scores, color="tab:blue", linewidth=1)
    for index in images:
        axes.axvline(index, color="0.6", linewidth=0.5, linestyle=":")
    axes.set(xlim=(0, len(video.scores)), ylim=(0, 1), xlabel="frame", ylabel="anomaly score")
    axes.set_title(printable(video.name), parse_math=False)
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=100))


def _videos_below(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(folder, "there is no such folder of videos", "correct --videos")
    return {
        path.name if path.is_dir() else path.stem: path
        for path in sorted(folder.rglob("*"))
        if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES
    }


def _read_frames(path: Path, indices: Sequence[int]) -> dict[int, NDArray[np.uint8]]:  # each [H, W, 3]
    """The frames that could be read; what is missing is left out and logged."""
    import cv2

    images = {}
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        images = {index: cv2.imread(str(files[index])) for index in indices if index < len(files)}
    else:
        capture = cv2.VideoCapture(str(path))
        for index in indices:
            capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            images[index] = capture.read()[1]
        capture.release()
    readable = {index: cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for index, image in images.items() if image is not None}
    if len(readable) < len(indices):
        logger.warning("%s: %d of %d key frames can't be read", path, len(indices) - len(readable), len(indices))
    return readable
