"""A picture of one video: frames along the top, then a band a class with the ground truth above the detections.

Matplotlib is imported when a picture is drawn; detection and its numbers don't need it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridet.checkpoints import written
from tridet.errors import InputError, printable

TRUTH, DETECTION = "#3d5a80", "#ee6c4d"


@dataclass(frozen=True)
class Intervals:
    """Segments of one video."""

    segments: NDArray  # [N, 2], seconds
    labels: NDArray  # [N], int
    scores: NDArray | None = None  # [N], in 0..1; None for ground truth


def check_drawing() -> None:
    """To be called before the work whose pictures are drawn in the end.

    Raises:
        InputError: Matplotlib isn't installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("matplotlib", "isn't installed, and pictures need it", "pip install matplotlib")


def draw_timeline(
    path: str | Path,
    *,
    title: str,
    duration: float,
    detections: Intervals,
    truth: Intervals | None = None,
    class_names: Sequence[str] | dict[int, str],
    frames: Sequence[tuple[float, NDArray]] = (),
    min_score: float = 0.2,
    max_classes: int = 6,
    note: str = "",
) -> Path:
    """Write a PNG of one video's time line.

    Args:
        path: PNG to write.
        title: Above the picture, such as the video's id.
        duration: Seconds; the right end of the time line.
        detections: What the detector says; the stronger the colour the higher the score.
        truth: What the annotation says, if there is one.
        class_names: Names by label.
        frames: (seconds, uint8 [H, W, 3]) pictures, spread along the time line.
        min_score: Detections below it are not drawn; if all are, the strongest five are.
        max_classes: Bands for so many classes; ground-truth classes first, then by the strongest detection.
        note: Small print below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _strong(detections, min_score)
    classes = _classes(shown, truth, max_classes)
    rows = max(len(classes), 1)
    heights = ([1.25] if frames else []) + [0.42 * rows + 0.35]
    figure = Figure(figsize=(10, sum(heights) + 0.75), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    if frames:
        _draw_frames(axes[0], frames)
    axes[0].set_title(printable(title), loc="left", fontsize=10, parse_math=False)
    _draw_bands(axes[-1], classes, class_names, shown, truth)
    axes[-1].set_xlim(0, duration)
    axes[-1].set_xlabel(f"seconds{'   (' + note + ')' if note else ''}", fontsize=8)
    return _saved(figure, Path(path))


def _strong(found: Intervals, min_score: float) -> Intervals:
    scores = np.ones(len(found.labels)) if found.scores is None else found.scores
    chosen = scores >= min_score
    if not chosen.any():
        chosen = np.isin(np.arange(len(scores)), np.argsort(-scores, kind="stable")[:5])
    return Intervals(found.segments[chosen], found.labels[chosen], scores[chosen])


def _classes(shown: Intervals, truth: Intervals | None, limit: int) -> list[int]:
    """The classes of the truth, then the detected ones by their strongest detection."""
    ordered = [] if truth is None else sorted(set(truth.labels.tolist()))
    strongest = shown.labels[np.argsort(-shown.scores, kind="stable")].tolist()
    return list(dict.fromkeys(ordered + strongest))[:limit]


def _draw_frames(axis: Any, frames: Sequence[tuple[float, NDArray]]) -> None:
    height = min(frame.shape[0] for _, frame in frames)
    strip = np.concatenate([_to_height(frame, height) for _, frame in frames], axis=1)  # [H, sum of W, 3]
    axis.imshow(strip, aspect="equal")
    axis.set_axis_off()
    left = 0
    for seconds, frame in frames:
        width = _to_height(frame, height).shape[1]
        axis.text(left + 3, height - 4, f"{seconds:.0f} s", color="white", fontsize=6.5, va="bottom")
        left += width


def _to_height(frame: NDArray, height: int) -> NDArray:
    """Nearest-neighbour rescaling; the pictures are thumbnails."""
    scale = frame.shape[0] / height
    rows = (np.arange(height) * scale).astype(int)
    columns = (np.arange(int(frame.shape[1] / scale)) * scale).astype(int)
    return frame[rows][:, columns]


def _draw_bands(axis: Any, classes: Sequence[int], names: Any, shown: Intervals, truth: Intervals | None) -> None:
    from matplotlib.patches import Patch

    for row, label in enumerate(classes):
        base = len(classes) - 1 - row
        if truth is not None:
            for start, end in truth.segments[truth.labels == label]:
                axis.barh(base + 0.24, end - start, left=start, height=0.36, color=TRUTH)
        own = shown.labels == label
        for (start, end), score in zip(shown.segments[own], shown.scores[own], strict=True):
            strength = float(np.clip(score, 0.15, 1.0))
            axis.barh(base - 0.2, end - start, left=start, height=0.36, color=DETECTION, alpha=strength)
    shown_names = [printable(str(names[label])) for label in reversed(classes)]
    axis.set_yticks(range(len(classes)), shown_names, fontsize=8, parse_math=False)
    axis.set_ylim(-0.5, max(len(classes), 1) - 0.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    meanings = {"detection": DETECTION} if truth is None else {"ground truth": TRUTH, "detection": DETECTION}
    patches = [Patch(color=colour, label=meaning) for meaning, colour in meanings.items()]
    axis.legend(handles=patches, fontsize=7, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    if not classes:
        axis.text(0.5, 0, "no detections", ha="center", transform=axis.get_yaxis_transform(), fontsize=8)


def _saved(figure: Any, path: Path) -> Path:
    with written(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})  # the same picture, the same bytes
    return path
