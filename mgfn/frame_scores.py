"""From snippet scores to frame-level figures: ROC-AUC, PR-AUC, average precision, each overall and for each class.

PR-AUC is the literature's: the trapezoid below the precision-recall curve. On scores that come in blocks of equal
frames it differs from average precision by up to a few points, so both are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgfn.errors import InputError


@dataclass(frozen=True)
class ScoredVideo:
    """A test video with a score and a label for each frame."""

    name: str
    classes: tuple[str, ...]
    """Kinds of anomaly, by the name; empty for a normal video and where names don't say."""
    is_abnormal: bool
    scores: NDArray[np.float32]
    """[number of frames]."""
    truth: NDArray[np.int8]
    """[number of frames], 1 inside an anomaly."""


@dataclass(frozen=True)
class Figures:
    """Frame-level figures of some videos, in 0..1; None where only one kind of frame occurs."""

    roc_auc: float | None
    pr_auc: float | None
    """Trapezoid below the precision-recall curve, as published; for comparison, not for trust."""
    average_precision: float | None
    num_videos: int
    """Abnormal ones among them; of a class, its own."""
    num_frames: int
    num_abnormal_frames: int


HEADLINES = {
    "UCF": ("roc_auc", "frame-level AUC"),
    "XD": ("pr_auc", "frame-level PR-AUC"),
    "ST": ("roc_auc", "frame-level AUC"),
}
"""The figure that the literature gives first for a data set, and what it's called."""


def repeated(snippet_scores: NDArray, frames_per_snippet: int) -> NDArray:  # [T] -> [T * frames]
    """Each snippet's score for each of its frames."""
    return np.repeat(snippet_scores, frames_per_snippet)


def stretch_sources(num_values: int, length: int) -> NDArray[np.int64]:  # -> [length]
    """For each place of a stretched sequence the value it takes.

    With r = length / num_values, value i goes to places round(i r) up to, not including, round((i + 1) r), where halves
    are rounded up.

    Source: the resampling of TeD-SPAD's evaluation.
    """
    ratio = length / num_values
    edges = (np.arange(num_values + 1) * ratio + 0.5).astype(np.int64)
    return np.repeat(np.arange(num_values), np.diff(edges))


def figures(scores: NDArray, truth: NDArray, *, num_videos: int) -> Figures:  # [frames], [frames]
    """ROC-AUC, PR-AUC and average precision of frame scores."""
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

    count = int(truth.sum())
    if not 0 < count < len(truth):
        return Figures(None, None, None, num_videos, len(truth), count)
    precision, recall, _ = precision_recall_curve(truth, scores)
    return Figures(
        roc_auc=float(roc_auc_score(truth, scores)),
        pr_auc=float(auc(recall, precision)),
        average_precision=float(average_precision_score(truth, scores)),
        num_videos=num_videos,
        num_frames=len(truth),
        num_abnormal_frames=count,
    )


def report(videos: Sequence[ScoredVideo]) -> dict[str, Figures]:
    """Figures of all videos, of the abnormal ones alone, and of each class against all normal videos.

    Returns:
        `overall`, `abnormal videos` and a row for each class; a video of several classes counts in each.

    Raises:
        InputError: All frames are normal, or all are abnormal.
    """
    groups = {"overall": list(videos), "abnormal videos": [video for video in videos if video.is_abnormal]}
    normal = [video for video in videos if not video.is_abnormal]
    for name in sorted({name for video in videos for name in video.classes}):
        groups[name] = [video for video in videos if name in video.classes] + normal
    rows = {}
    for name, members in groups.items():
        num_videos = sum(video.is_abnormal for video in members)
        parts = [np.concatenate([getattr(video, what) for video in members] or [[]]) for what in ("scores", "truth")]
        rows[name] = figures(*parts, num_videos=num_videos)
    if rows["overall"].roc_auc is None:
        kind = "abnormal" if rows["overall"].num_abnormal_frames else "normal"
        raise InputError(
            "ground truth", f"every frame of the test videos is {kind}", "frame-level AUC needs both kinds"
        )
    return rows


def table(rows: dict[str, Figures]) -> str:
    """The report as text, figures in per cent."""
    head = f"{'':<16}{'videos':>7}{'frames':>10}{'abnormal':>10}{'ROC-AUC':>9}{'PR-AUC':>8}{'AP':>7}"
    lines = [head]
    for name, row in rows.items():
        values = (row.roc_auc, row.pr_auc, row.average_precision)
        shown = [f"{100 * value:.1f}" if value is not None else "-" for value in values]
        counts = f"{row.num_videos:>7}{row.num_frames:>10}{row.num_abnormal_frames:>10}"
        lines.append(f"{name:<16}{counts}{shown[0]:>9}{shown[1]:>8}{shown[2]:>7}")
    return "\n".join(lines)


def video_auc(scores: NDArray, is_abnormal: NDArray) -> float:  # [V], [V] -> in 0..1
    """ROC-AUC of video scores against video labels: all that weak labels can say of a validation part."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_abnormal, scores))
