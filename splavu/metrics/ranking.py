"""Scores of predictions: pure functions of arrays.

Shapes: `N` rows, `A` attributes, `C` classes, `R` resamples. Labels are 0 or 1, NaN where unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def average_precision(targets: np.ndarray, scores: np.ndarray) -> float:  # [N], [N] -> []
    """Area under the precision-recall steps; rows with equal scores count as one step, as in scikit-learn.

    NaN where the known labels are all positive or all negative: a ranking then says nothing.
    """
    targets, scores = np.asarray(targets, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    order, ends = ranked_rows(targets, scores)
    return float(step_area(np.cumsum(targets[order])[None, ends], 1.0 + ends[None])[0])


def average_precisions(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:  # [N, A], [N, A] -> [A]
    """`average_precision` of each column."""
    return np.array([average_precision(t, s) for t, s in zip(np.transpose(targets), np.transpose(scores), strict=True)])


@dataclass(frozen=True)
class MeanAP:
    """cMAP and what it was averaged from."""

    mean: float
    """Mean over the attributes that could be scored, 0 to 1; NaN where none could."""
    per_attribute: np.ndarray
    """[A], NaN for the attributes left out."""
    left_out: tuple[int, ...]
    """Attributes without a positive or without a negative test row."""


def cmap(targets: np.ndarray, scores: np.ndarray) -> MeanAP:  # [N, A], [N, A]
    """Mean average precision over attributes, which names the attributes it had to leave out."""
    values = average_precisions(targets, scores)
    return MeanAP(float(mean_known(values)), values, tuple(np.flatnonzero(np.isnan(values)).tolist()))


def mean_known(values: np.ndarray) -> np.ndarray:  # [..., A] -> [...]
    """Mean over the last axis without its NaN, NaN (and no warning) where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def prevalences(targets: np.ndarray) -> np.ndarray:  # [N, A] -> [A]
    """Share of positives among the known labels: the average precision of a ranking that knows nothing."""
    return mean_known(np.asarray(targets, dtype=np.float64).T)


def normalised_leakage(anonymized: np.ndarray, raw: np.ndarray, chance: np.ndarray) -> np.ndarray:  # any equal shapes
    """(anonymized - chance) / (raw - chance): 0 when nothing is left to learn, 1 when nothing was removed.

    NaN where raw features are not above chance: there was nothing to hide. Not clipped: noise may give values below 0
    or above 1, and hiding that would bias every mean.
    """
    anonymized, raw, chance = (np.asarray(value, dtype=np.float64) for value in (anonymized, raw, chance))
    room = raw - chance
    return np.where(room > 0, (anonymized - chance) / np.where(room > 0, room, 1.0), np.nan)


def top1(targets: np.ndarray, scores: np.ndarray) -> float:  # [N], [N, C] -> []
    """Share of rows whose highest score is their class; NaN without rows."""
    hits = np.argmax(np.asarray(scores), axis=1) == np.asarray(targets)
    return float(hits.mean()) if len(hits) else float("nan")


def video_scores(clip_scores: np.ndarray, video_ids: Sequence[str]) -> dict[str, np.ndarray]:  # [B, C] -> V x [C]
    """Average the class probabilities of each video's clips, videos in order of first appearance.

    Args:
        clip_scores: Softmax output, rows sum to 1.
        video_ids: One name per row; the clips of a video may stand apart.

    Raises:
        ValueError: The lengths differ. An empty batch is no error and gives {}.

    Source: evaluation protocol of Fioresi et al. 2026 (five evenly spaced clips per video).
    """
    clip_scores = np.asarray(clip_scores)
    if len(clip_scores) != len(video_ids):
        raise ValueError(f"{len(clip_scores)} rows of scores for {len(video_ids)} video names")
    rows_of: dict[str, list[int]] = {}
    for row, video in enumerate(video_ids):
        rows_of.setdefault(video, []).append(row)
    return {video: clip_scores[rows].mean(axis=0) for video, rows in rows_of.items()}


def auc(targets: np.ndarray, scores: np.ndarray) -> float:  # [N], [N] -> []
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half.

    NaN without a positive or without a negative.
    """
    targets, scores = np.asarray(targets, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    known = ~np.isnan(targets)
    positive, scores = targets[known] > 0, scores[known]
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return float("nan")
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(size) - (size - 1) / 2  # ranks start at 1; a tie shares the mean of its ranks
    wins = mid_rank[group][positive].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


def ranked_rows(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N], [N] -> [n], [E]
    """Rows with a known label from the highest score down, and the last place of each run of equal scores."""
    known = np.flatnonzero(~np.isnan(targets))
    order = known[np.argsort(-scores[known], kind="stable")]
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(order) else np.empty(0, dtype=np.intp)
    return order, ends


def step_area(hits: np.ndarray, totals: np.ndarray) -> np.ndarray:  # [R, E], [R or 1, E] -> [R]
    """Sum of (recall gained) x precision over thresholds, from the strictest one: weights of the positives, and of all
    rows, at or above each. NaN where the last, which lets in everything, shows one class only, or there is none."""
    if not hits.shape[1]:
        return np.full(len(hits), np.nan)
    precision = np.divide(hits, totals, out=np.zeros(hits.shape), where=totals > 0)
    positive, everything = hits[:, -1].astype(np.float64), totals[:, -1]
    precision[:, 1:] *= np.diff(hits, axis=1)
    precision[:, 0] *= hits[:, 0]
    one_class = (positive <= 0) | (positive >= everything)
    return np.where(one_class, np.nan, precision.sum(axis=1) / np.where(positive > 0, positive, 1.0))
