"""Mean average precision of detected segments, by class and temporal IoU threshold, as THUMOS14 is scored.

Plain arrays in, plain arrays out. A video that was never given to the detector still counts: its segments are missed.

What a reader would get wrong: a prediction whose best match is taken may still claim its second best. Going through
the predictions by descending score therefore equals a stable matching of predictions (who prefer a higher tIoU) and
true segments (who prefer a higher score), and is computed as one: all predictions ask at once, the refused ask again.

Letters: N segments, C classes, H thresholds. Arithmetic is float64.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tridet.errors import InputError

_log = logging.getLogger(__name__)

THUMOS_TIOUS = tuple(np.linspace(0.3, 0.7, 5).tolist())  # its second entry is 0.4 less one bit, as published


@dataclass(frozen=True)
class Segments:
    """Labelled segments of many videos, true ones or detections; rows of one video may stand apart.

    Raises:
        InputError: Lengths differ, a segment isn't (start, end) in that order, or a number is not finite.
    """

    video: np.ndarray
    """Name of the video, [N], text or integers."""
    segments: np.ndarray
    """Start and end in seconds, [N, 2]; the true ones of a video in the order of their file."""
    label: np.ndarray
    """Class as an integer, [N]."""
    score: np.ndarray | None = None
    """Confidence of a detection, [N]; the true ones have none."""

    def __post_init__(self) -> None:
        segments = np.asarray(self.segments, dtype=np.float64).reshape(-1, 2)
        object.__setattr__(self, "video", np.asarray(self.video))
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "label", np.asarray(self.label).astype(np.int64))
        columns = [self.video, self.label]
        if self.score is not None:
            object.__setattr__(self, "score", np.asarray(self.score, dtype=np.float64))
            columns.append(self.score)
        if any(column.shape != (len(segments),) for column in columns):
            shapes = ", ".join(str(column.shape) for column in columns)
            raise InputError(
                "segments", f"{len(segments)} segments with columns of shape {shapes}", "give one row each"
            )
        if not all(np.isfinite(part).all() for part in (segments, self.score) if part is not None):
            raise InputError("segments", "a boundary or score is not finite", "remove it before scoring")
        if (segments[:, 1] < segments[:, 0]).any():
            raise InputError("segments", "a segment ends before it starts", "give (start, end) in that order")

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, rows: np.ndarray) -> Segments:
        score = None if self.score is None else self.score[rows]
        return Segments(self.video[rows], self.segments[rows], self.label[rows], score)


@dataclass(frozen=True)
class AveragePrecision:
    """What `mean_average_precision` found; fractions, not percent."""

    ap: np.ndarray
    """Average precision, [H, C]."""
    classes: np.ndarray
    """Class of each column, [C], ascending."""
    tious: np.ndarray
    """Threshold of each row, [H]."""
    num_ignored: int
    """Predictions of classes that the truth doesn't have; they count for nothing."""

    @property
    def per_tiou(self) -> np.ndarray:  # [H]
        """Mean over the classes."""
        return self.ap.mean(axis=1)

    @property
    def average(self) -> float:
        """Mean over classes and thresholds: the figure that papers call average mAP."""
        return float(self.ap.mean())


def mean_average_precision(
    ground_truth: Segments, predictions: Segments, *, tious: Sequence[float] = THUMOS_TIOUS
) -> AveragePrecision:
    """Score detections against true segments.

    Repeated true segments count once, and those of zero length not at all: nothing overlaps them. A class that has no
    others is left out, like one that the truth doesn't know. No detections at all give zeros. Of equal scores the
    earlier prediction goes first; of equal overlaps, so does the earlier true segment.

    Args:
        tious: Overlaps from which on a prediction is right, in (0, 1]; equality suffices.

    Raises:
        InputError: There is no true segment, the predictions have no scores, or a threshold is out of range.

    Source: the THUMOS14 and ActivityNet protocol; all-points interpolation of precision.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    if thresholds.size == 0 or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise InputError("tIoU thresholds", f"{list(tious)} are not in (0, 1]", "0.3 to 0.7 by 0.1 is usual")
    if predictions.score is None:
        raise InputError("predictions", "they have no scores", "give `score`, one number a row")
    truth = ground_truth[~repeated(ground_truth)]
    truth = truth[truth.segments[:, 1] > truth.segments[:, 0]]
    if len(truth) == 0:
        raise InputError("ground truth", "no segment has a positive length", "check the subset and the annotation file")
    number = {name: n for n, name in enumerate(truth.video.tolist())}
    true_video = np.array([number[name] for name in truth.video.tolist()])
    video = np.array([number.get(name, -1) for name in predictions.video.tolist()], dtype=np.int64)
    if not (video >= 0).any():
        _log.warning("no prediction is in a video of the ground truth: every average precision is 0")
    by_score = np.argsort(-predictions.score, kind="stable")
    classes = np.unique(truth.label)
    ap = np.zeros((len(thresholds), len(classes)))
    num_counted = 0
    for column, label in enumerate(classes):
        rows = by_score[predictions.label[by_score] == label]
        true_rows = np.flatnonzero(truth.label == label)
        pairs = _pairs(video[rows], true_video[true_rows])
        tiou = _tiou(predictions.segments[rows[pairs[0]]], truth.segments[true_rows[pairs[1]]])
        in_reach = tiou >= thresholds.min()
        tiou, pairs = tiou[in_reach], pairs[:, in_reach]
        by_wish = np.lexsort((-tiou, pairs[0]))  # best first for each prediction
        tiou, pairs = tiou[by_wish], pairs[:, by_wish]
        for row, threshold in enumerate(thresholds):
            matched = _matched(*pairs[:, tiou >= threshold], num_true=len(true_rows))
            ap[row, column] = _interpolated_ap(matched, num_predictions=len(rows), num_true=len(true_rows))
        num_counted += len(rows)
    return AveragePrecision(ap, classes, thresholds, len(predictions) - num_counted)


def repeated(truth: Segments, *, tolerance: float = 1e-3) -> np.ndarray:  # [N] -> [N]
    """Mark what an earlier, unmarked segment of the same video and class already says, to `tolerance` seconds."""
    videos, labels = (np.unique(column, return_inverse=True)[1] for column in (truth.video, truth.label))
    group = videos * (labels.max(initial=0) + 1) + labels
    pairs = _pairs(group, group)
    gap = np.abs(truth.segments[pairs[0]] - truth.segments[pairs[1]]).max(axis=1)
    marked = np.zeros(len(truth), dtype=bool)
    for later, earlier in pairs[:, (pairs[1] < pairs[0]) & (gap <= tolerance)].T:  # ascending: `earlier` is decided
        marked[later] |= not marked[earlier]
    return marked


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # [N], [M] -> [2, pairs]
    """Positions (i, j) where first[i] == second[j], ascending in i, then j."""
    order = np.argsort(second, kind="stable")
    start, stop = (np.searchsorted(second[order], first, side=side) for side in ("left", "right"))
    counts = stop - start
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return np.stack([np.repeat(np.arange(len(first)), counts), order[np.repeat(start, counts) + within]])


def _tiou(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # [N, 2], [N, 2] -> [N]
    """Overlap over union, row by row; one of the two must have a length."""
    overlap = np.minimum(first[:, 1], second[:, 1]) - np.maximum(first[:, 0], second[:, 0])
    overlap = np.maximum(overlap, 0)
    return overlap / (first[:, 1] - first[:, 0] + second[:, 1] - second[:, 0] - overlap)


def _matched(asking: np.ndarray, asked: np.ndarray, *, num_true: int) -> np.ndarray:  # [pairs], [pairs] -> [matches]
    """Ranks of the predictions that get a true segment, in the pairs' order of wishes, grouped by prediction.

    Deferred acceptance (Gale and Shapley, 1962): each true segment holds the best rank that asked so far.
    """
    nobody = asking.max(initial=-1) + 1
    holder = np.full(num_true, nobody)
    wish = np.flatnonzero(np.diff(asking, prepend=-1))  # each prediction's current pair ...
    end = np.append(wish[1:], len(asking))  # ... and the first pair beyond its own
    while wish.size:
        np.minimum.at(holder, asked[wish], asking[wish])
        refused = holder[asked[wish]] != asking[wish]
        if not refused.any():
            break
        wish = wish + refused
        hoping = wish < end
        wish, end = wish[hoping], end[hoping]
    return holder[holder < nobody]


def _interpolated_ap(matched: np.ndarray, *, num_predictions: int, num_true: int) -> float:
    """Area under precision over recall, where precision at a recall is the best at that recall or beyond."""
    right = np.zeros(num_predictions, dtype=bool)
    right[matched] = True
    precision = right.cumsum() / np.arange(1, num_predictions + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return best_beyond[right].sum() / num_true
