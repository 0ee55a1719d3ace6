"""Mean average precision of detected segments, by class and temporal IoU threshold, as THUMOS14 is scored.

Plain arrays in, plain arrays out. A video that was never given to the detector still counts: its segments are missed.

Note: a prediction whose best match is taken may still claim its second best. Going through the predictions by
descending score therefore equals a stable matching of predictions (which prefer a higher tIoU) and true segments (which
prefer a higher score), and is computed as one: all predictions ask at once, those refused ask again.

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
    video, true_video = _numbered(predictions.video, truth.video)
    if not (video >= 0).any():
        _log.warning("no prediction is in a video of the ground truth: every average precision is 0")
    by_score = np.argsort(-predictions.score, kind="stable")
    label_by_score = predictions.label[by_score]
    classes = np.unique(truth.label)
    ap = np.zeros((len(thresholds), len(classes)))
    num_counted = 0
    for column, label in enumerate(classes):
        rows = by_score[label_by_score == label]
        true_rows = np.flatnonzero(truth.label == label)
        asking, asked = _pairs(video[rows], true_video[true_rows])
        tiou = _tiou(predictions.segments[rows], truth.segments[true_rows], asking, asked)
        near = np.flatnonzero(tiou >= thresholds.min())
        near = near[np.lexsort((-tiou[near], asking[near]))]  # each prediction's best first
        world, wish = (tiou[near] >= thresholds[:, None]).nonzero()  # thresholds don't meet: numbers of their own
        wish = near[wish]
        matches = _matched(world * len(rows) + asking[wish], world * len(true_rows) + asked[wish])
        right = np.zeros((len(thresholds), len(rows)), dtype=bool)
        right.flat[matches] = True
        ap[:, column] = _interpolated_ap(right, num_true=len(true_rows))
        num_counted += len(rows)
    return AveragePrecision(ap, classes, thresholds, len(predictions) - num_counted)


def repeated(truth: Segments, *, tolerance: float = 1e-3) -> np.ndarray:  # [N] -> [N]
    """Mark what an earlier, unmarked segment of the same video and class already says, to `tolerance` seconds."""
    videos, labels = (np.unique(column, return_inverse=True)[1] for column in (truth.video, truth.label))
    group = videos * (labels.max(initial=0) + 1) + labels
    later, earlier = _pairs(group, group)
    is_close = earlier < later
    for boundary in truth.segments.T:
        is_close &= np.abs(boundary[later] - boundary[earlier]) <= tolerance
    marked = np.zeros(len(truth), dtype=bool)
    for one, other in zip(later[is_close], earlier[is_close], strict=True):  # ascending: `other` is decided
        marked[one] |= not marked[other]
    return marked


def _numbered(video: np.ndarray, true_video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N], [M] -> [N], [M]
    """Numbers in place of names, -1 for those that `true_video` doesn't have."""
    number = {name: n for n, name in enumerate(true_video.tolist())}
    starts = np.append(0, np.flatnonzero(video[1:] != video[:-1]) + 1)[: len(video)]
    numbers = np.array([number.get(name, -1) for name in video[starts].tolist()], dtype=np.int64)
    lengths = np.diff(starts, append=len(video))  # detections come video by video: one look-up each
    return np.repeat(numbers, lengths), np.array([number[name] for name in true_video.tolist()])


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N], [M] -> [pairs], [pairs]
    """Positions i and j where first[i] == second[j], ascending in i, then j; small whole numbers, -1 equals nothing."""
    counts = np.bincount(second, minlength=first.max(initial=-1) + 2)  # the last one is 0, and that of -1
    start = counts.cumsum() - counts
    counts, start = counts[first], start[first]
    skipped = start - (counts.cumsum() - counts)
    found = np.argsort(second, kind="stable")[np.arange(counts.sum()) + np.repeat(skipped, counts)]
    return np.repeat(np.arange(len(first)), counts), found


def _tiou(first: np.ndarray, second: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Overlap over union of first[i] and second[j]; [N, 2], [M, 2], [pairs], [pairs] -> [pairs]. One has a length."""
    (start, end), (other_start, other_end) = first.T.copy(), second.T.copy()
    overlap = np.minimum(end[i], other_end[j])
    overlap -= np.maximum(start[i], other_start[j])
    np.maximum(overlap, 0, out=overlap)
    return overlap / ((end - start)[i] + (other_end - other_start)[j] - overlap)


def _matched(asking: np.ndarray, asked: np.ndarray) -> np.ndarray:  # [pairs], [pairs] -> [matches]
    """Predictions that get a true segment, given as their wishes: grouped by rank, the dearest first.

    Deferred acceptance (Gale and Shapley, 1962): each true segment holds the best rank that asked so far.
    """
    unmatched = asking.max(initial=-1) + 1
    holder = np.full(asked.max(initial=-1) + 1, unmatched)
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
    return holder[holder < unmatched]


def _interpolated_ap(right: np.ndarray, *, num_true: int) -> np.ndarray:  # [H, N] -> [H]
    """Area under precision over recall, where precision at a recall is the best at that recall or beyond."""
    precision = right.cumsum(axis=1) / np.arange(1, right.shape[1] + 1)
    best_beyond = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (best_beyond * right).sum(axis=1) / num_true
