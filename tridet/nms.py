"""Non-maximum suppression of segments, in plain arrays: soft or hard, for all classes at once, and boundary voting.

There is no extension to compile. Each step selects the best candidate of every class and lowers the scores of
all others in a few operations on a [C, N] table, so the number of steps is that of one class. The table is on the host
for any device of the input: a step is too small to fill a GPU, and its latency would count thousands of times.

Note: the best candidate of a class is kept even when its score is below `min_score`, and the Gaussian rule has no
overlap threshold. The published numbers were made this way.

Letters: N candidates, M of them kept, C classes. Segments are (start, end) in any one unit; arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tridet.errors import InputError

SoftMethod = Literal["gaussian", "linear", "vanilla"]
Decay = Callable[[np.ndarray, np.ndarray], None]  # lowers scores in place, given the IoU with what was just selected

_STEPS_BETWEEN_COMPACTIONS = 16  # one costs about as much as a step
_WORTH_COMPACTING = 0.7  # of the cells would be left
_REFINED_AT_ONCE = 64  # segments that a step of voting takes, neighbours in time
_LOWEST = float(np.finfo(np.float32).min)


def soft_nms(
    segments: Tensor,
    scores: Tensor,
    *,
    sigma: float = 0.5,
    min_score: float = 0.001,
    method: SoftMethod = "gaussian",
    iou_threshold: float = 0.1,
    max_segments: int = 0,
) -> tuple[Tensor, Tensor]:  # [N, 2], [N] -> [M], [M]
    """Select by descending score; each selection lowers the scores of those that overlap it.

    The factor is exp(-IoU^2 / sigma) (`gaussian`, which ignores `iou_threshold`) or, where the IoU reaches
    `iou_threshold`, 1 - IoU (`linear`) or 0 (`vanilla`). A candidate that falls below `min_score` is out; the first
    selection never is, so a call with candidates keeps at least one. Of equal scores the lower index goes first.
    With `max_segments` > 0 the selection ends there.

    Returns:
        Indices of the kept candidates (int64) in the order of selection, and their lowered scores (float32), which
        descend.

    Raises:
        InputError: Shapes disagree, a value is not finite, a segment ends before it starts, an option is out of range.

    Source: Bodla et al., Soft-NMS, ICCV 2017, with the first-selection rule of the TriDet release.
    """
    candidates = _on_host(segments, scores)
    decay = _soft_decay(method, sigma=sigma, iou_threshold=iou_threshold)
    one_class = np.zeros(len(scores), dtype=np.int64)
    kept, lowered = _select(*candidates, one_class, decay=decay, min_score=min_score, max_segments=max_segments)
    return torch.from_numpy(kept).to(scores.device), torch.from_numpy(lowered).to(scores.device)


def hard_nms(
    segments: Tensor, scores: Tensor, *, iou_threshold: float, min_score: float = 0.0, max_segments: int = 0
) -> Tensor:  # [N, 2], [N] -> [M]
    """Indices (int64), by descending score, of candidates that no kept better one overlaps by `iou_threshold` or more.

    With `min_score` > 0 only scores above it take part, so nothing may be left. Of equal scores the lower index goes
    first.

    Raises:
        InputError: As in `soft_nms`.
    """
    boundaries, confidence = _on_host(segments, scores)
    decay = partial(_hard_decay, iou_threshold=_checked_iou(iou_threshold))
    rows = _above(confidence, min_score)
    one_class = np.zeros_like(rows)
    kept, _ = _select(
        boundaries[rows], confidence[rows], one_class, decay=decay, min_score=_LOWEST, max_segments=max_segments
    )
    return torch.from_numpy(rows[kept]).to(scores.device)


def vote(
    kept_segments: Tensor, segments: Tensor, scores: Tensor, *, threshold: float
) -> Tensor:  # [M, 2], [N, 2], [N] -> [M, 2]
    """Move each kept segment to the score-weighted mean of the candidates that overlap it by IoU >= `threshold`.

    `segments` and `scores` are all candidates with the scores they had before suppression. A segment without votes
    (one of zero length overlaps nothing, not even itself) stays where it is. Gives float32.

    Raises:
        InputError: As in `soft_nms`.
    """
    (kept,) = _on_host(kept_segments)
    return torch.from_numpy(_voted(kept, *_on_host(segments, scores), threshold=threshold)).to(kept_segments.device)


def suppress(
    segments: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    method: Literal["soft", "hard", "none"] = "soft",
    iou_threshold: float = 0.1,
    min_score: float = 0.001,
    max_segments: int = 2000,
    sigma: float = 0.5,
    multiclass: bool = True,
    voting_threshold: float = 0.7,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, 2], [N], [N] -> [M, 2], [M], [M]
    """Reduce the candidates of one video to its detections, by descending score.

    Args:
        method: `soft` is Gaussian and ignores `iou_threshold`; `none` returns the candidates as they came, all of them.
        max_segments: Cap per class and again in total; 0 is none.
        multiclass: Classes don't see each other, and `voting_threshold` has no effect. Otherwise one class-agnostic
            run and then, if `voting_threshold` > 0, a vote of all candidates on the boundaries.

    Returns:
        Segments, scores (both float32) and labels on the device of the input. Of equal scores the lower label goes
        first.

    Raises:
        InputError: As in `soft_nms`, or an unknown `method`.
    """
    candidates = _on_host(segments, scores, labels)
    rows = np.arange(len(scores))
    if method == "none":
        return segments, scores, labels
    if method == "soft":
        decay = _soft_decay("gaussian", sigma=sigma, iou_threshold=iou_threshold)
    elif method == "hard":
        decay = partial(_hard_decay, iou_threshold=_checked_iou(iou_threshold))
        rows, min_score = _above(candidates[1], min_score), _LOWEST
    else:
        raise InputError("NMS method", f"{method!r} is unknown", "choose soft, hard or none")
    boundaries, confidence, classes = (part[rows] for part in candidates)
    classes_apart = classes if multiclass else np.zeros_like(classes)
    kept, confidence = _select(
        boundaries, confidence, classes_apart, decay=decay, min_score=min_score, max_segments=max_segments
    )
    order = np.argsort(-confidence, kind="stable")[: max_segments or None]
    kept = kept[order]
    boundaries = boundaries[kept]
    if not multiclass and voting_threshold > 0:
        boundaries = _voted(boundaries, *candidates[:2], threshold=voting_threshold)
    results = boundaries, confidence[order], classes[kept]
    return tuple(torch.from_numpy(part).to(scores.device) for part in results)


@dataclass
class _Table:
    """Candidates by class, padded on the right: scores of the padded, the selected and the suppressed can't win."""

    classes: np.ndarray  # [C]
    index: np.ndarray  # [C, n], position in the input
    starts: np.ndarray  # [C, n]
    ends: np.ndarray  # [C, n]
    lengths: np.ndarray  # [C, n]
    scores: np.ndarray  # [C, n]

    @classmethod
    def of(cls, segments: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> _Table:  # [N, 2], [N], [N]
        order = np.argsort(labels, kind="stable")
        classes, counts = np.unique(labels, return_counts=True)
        present = np.arange(counts.max()) < counts[:, None]
        index = np.zeros(present.shape, dtype=np.int64)
        index[present] = order
        starts, ends = segments[index, 0], segments[index, 1]
        lengths = ends - starts + np.float32(1e-6)
        ends[~present] = -np.inf
        return cls(classes, index, starts, ends, lengths, np.where(present, scores[index], -np.inf))

    def best(self) -> np.ndarray:  # [C]
        """Cell of the highest score of each class, counted through the rows; of equal ones the first."""
        return self.scores.argmax(axis=1) + np.arange(0, self.scores.size, self.scores.shape[1])

    def iou(self, cells: np.ndarray) -> np.ndarray:  # [C] -> [C, n]
        """Overlap of every candidate with one of its class; float32, in the order of operations of the release."""
        start, end, length = (part.take(cells)[:, None] for part in (self.starts, self.ends, self.lengths))
        overlap = np.minimum(self.ends, end)
        overlap -= np.maximum(self.starts, start)
        np.maximum(overlap, np.zeros_like(overlap[0]), out=overlap)  # a row: NumPy is slow with the number 0 here
        union = self.lengths + length
        union -= overlap
        return np.divide(overlap, union, out=overlap)

    def retire(self, cells: np.ndarray) -> None:
        """Take the selected out of the running. Such an end overlaps nothing, so no factor makes NaN of -inf."""
        self.scores.put(cells, -np.inf)
        self.ends.put(cells, -np.inf)

    def compact(self, min_score: float) -> _Table:
        """Drop the columns and classes without candidates in the running, if that saves a good part of the table."""
        running = self.scores >= min_score
        counts = running.sum(1)
        left, width = counts > 0, counts.max()
        if width * left.sum() > _WORTH_COMPACTING * running.size:
            return self
        columns = np.argsort(~running[left], axis=1, kind="stable")[:, :width]
        parts = (self.index, self.starts, self.ends, self.lengths, self.scores)
        return _Table(self.classes[left], *(np.take_along_axis(part[left], columns, axis=1) for part in parts))


def _select(
    segments: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    decay: Decay,
    min_score: float,
    max_segments: int,
) -> tuple[np.ndarray, np.ndarray]:  # [N, 2], [N], [N] -> [M], [M]
    """Greedy selection in all classes at once: kept indices and their scores, by class, then in order of selection.

    Scores only fall, so a class is finished when its best is below `min_score`: nothing has to be removed before.
    """
    if len(scores) == 0:
        return np.zeros(0, dtype=np.int64), scores
    table = _Table.of(segments, scores, labels)
    min_score = max(min_score, _LOWEST)
    selections = []
    for step in range(max_segments or len(scores)):
        best = table.best()
        best_scores = table.scores.take(best)
        if step and best_scores.max() < min_score:
            break
        selections.append((table.classes, table.index.take(best), best_scores))
        decay(table.scores, table.iou(best))
        table.retire(best)
        if step % _STEPS_BETWEEN_COMPACTIONS == 0:
            table = table.compact(min_score)
            if table.scores.size == 0:
                break
    classes, kept, lowered = (np.concatenate(part) for part in zip(*selections, strict=True))
    valid = lowered >= min_score
    valid[: len(selections[0][0])] = True  # the first of each class
    order = np.flatnonzero(valid)
    order = order[np.argsort(classes[order], kind="stable")]
    return kept[order], lowered[order]


def _voted(
    kept: np.ndarray, segments: np.ndarray, scores: np.ndarray, *, threshold: float
) -> np.ndarray:  # [M, 2], [N, 2], [N] -> [M, 2]
    """`vote` on the host: neighbours on the time axis are refined together, by the candidates near them."""
    threshold = _checked_iou(threshold)
    by_start = np.argsort(segments[:, 0], kind="stable")
    segments, scores = segments[by_start], scores[by_start]
    starts, ends = segments.T.copy()
    lengths = ends - starts
    # A voter starts before the segment ends, and is too short to start earlier than this.
    first = np.searchsorted(starts, kept[:, 0] - (kept[:, 1] - kept[:, 0]) / threshold, side="left")
    last = np.searchsorted(starts, kept[:, 1], side="right")
    refined, order = kept.copy(), np.argsort(kept[:, 0], kind="stable")
    for rows in (order[at : at + _REFINED_AT_ONCE] for at in range(0, len(order), _REFINED_AT_ONCE)):
        near = slice(first[rows].min(), last[rows].max())
        start, end = kept[rows, 0:1], kept[rows, 1:2]  # [m, 1]
        overlap = np.minimum(end, ends[near]) - np.maximum(start, starts[near])  # [m, n]
        np.maximum(overlap, np.zeros_like(overlap[0]), out=overlap)
        union = (end - start) + lengths[near] - overlap
        iou = np.divide(overlap, union, out=overlap, where=union > 0)
        weights = (iou >= threshold) * scores[near]
        total = weights.sum(axis=1, keepdims=True)
        won = total[:, 0] > 0
        refined[rows[won]] = (weights[won] / total[won]) @ segments[near]
    return refined


def _soft_decay(method: SoftMethod, *, sigma: float, iou_threshold: float) -> Decay:
    if method == "gaussian":
        if not sigma > 0:
            raise InputError("sigma", f"{sigma} is not positive", "0.5 is usual")
        return partial(_gaussian_decay, sigma=np.float32(sigma))
    if method not in ("linear", "vanilla"):
        raise InputError("soft-NMS method", f"{method!r} is unknown", "choose gaussian, linear or vanilla")
    decay = _linear_decay if method == "linear" else _vanilla_decay
    return partial(decay, iou_threshold=_checked_iou(iou_threshold))


def _gaussian_decay(scores: np.ndarray, iou: np.ndarray, *, sigma: np.float32) -> None:
    np.multiply(iou, iou, out=iou)
    np.divide(iou, -sigma, out=iou)
    scores *= np.exp(iou, out=iou)


def _linear_decay(scores: np.ndarray, iou: np.ndarray, *, iou_threshold: np.float32) -> None:
    scores *= np.where(iou >= iou_threshold, 1 - iou, np.float32(1))


def _vanilla_decay(scores: np.ndarray, iou: np.ndarray, *, iou_threshold: np.float32) -> None:
    scores *= iou < iou_threshold


def _hard_decay(scores: np.ndarray, iou: np.ndarray, *, iou_threshold: np.float32) -> None:
    scores[iou >= iou_threshold] = -np.inf


def _checked_iou(threshold: float) -> np.float32:
    if not 0 < threshold <= 1:
        raise InputError("IoU threshold", f"{threshold} is not in (0, 1]", "0.1 is usual in suppression, 0.7 in voting")
    return np.float32(threshold)


def _above(scores: np.ndarray, min_score: float) -> np.ndarray:  # [N] -> [M], indices
    return np.flatnonzero(scores > np.float32(min_score)) if min_score > 0 else np.arange(len(scores))


def _on_host(*parts: Tensor) -> list[np.ndarray]:
    """Segments and, if given, scores and labels as arrays, float32 where they are floats; checked."""
    arrays = [(part.detach().float() if part.is_floating_point() else part).cpu().numpy() for part in parts]
    segments, count = arrays[0], len(arrays[0])
    if segments.shape != (count, 2) or any(column.shape != (count,) for column in arrays[1:]):
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise InputError("candidates", f"shapes {shapes} disagree", "give segments [N, 2], scores [N], labels [N]")
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError("candidates", "a boundary or score is not finite", "look for NaN in the network's output")
    if (segments[:, 1] < segments[:, 0]).any():
        raise InputError("candidates", "a segment ends before it starts", "give (start, end) in that order")
    return arrays
