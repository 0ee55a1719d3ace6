"""Scores of predictions, and how sure we may be of them: pure functions of arrays, nothing here reads a file.

What a reader would get wrong: the rows of a privacy or action test set are not independent. Clips of one person look
alike, so intervals and null distributions here move whole clusters (subjects, persons, videos), never single rows; an
interval over rows would be several times too narrow.

Shapes: `N` rows, `A` attributes, `C` classes, `R` resamples, `G` clusters. Labels are 0 or 1, NaN where unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 2_000_000  # numbers of one [R, N] block; larger blocks fall out of the processor's cache and gain nothing


def average_precision(targets: np.ndarray, scores: np.ndarray) -> float:  # [N], [N] -> []
    """Area under the precision-recall steps; rows with equal scores count as one step, as in scikit-learn.

    NaN where the known labels are all positive or all negative: a ranking then says nothing.
    """
    targets, scores = np.asarray(targets, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    order, ends = _ranking(targets, scores)
    hits = targets[order][None]
    return float(_step_area(hits, np.ones_like(hits), ends)[0])


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


def f1(targets: np.ndarray, predictions: np.ndarray) -> float:  # [N], [N] of 0/1 -> []
    """Harmonic mean of precision and recall of the positive class; 0 where nothing is right, NaN without a positive."""
    known = ~np.isnan(np.asarray(targets, dtype=np.float64))
    actual, predicted = np.asarray(targets)[known] > 0, np.asarray(predictions)[known] > 0
    if not (actual.any() or predicted.any()):
        return float("nan")
    return float(2 * (actual & predicted).sum() / (actual.sum() + predicted.sum()))


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


# Cluster bootstrap: every statistic below that takes the same `Resamples` is computed on the same draws of clusters, so
# differences and ratios of two of them are paired.


@dataclass(frozen=True)
class Resamples:
    """Draws of clusters with replacement, kept as how often each cluster was drawn."""

    counts: np.ndarray
    """[R, G] multiplicities; each row sums to G."""
    cluster_of_row: np.ndarray
    """[N] index into the G clusters."""

    def blocks(self, rows: np.ndarray):  # [n] -> slices of R, each with [r, n]
        """Weights of the given rows, a block of resamples at a time."""
        step = max(1, CHUNK // max(1, len(rows)))
        for start in range(0, len(self.counts), step):
            block = slice(start, start + step)
            yield block, self.counts[block][:, self.cluster_of_row[rows]].astype(np.float64)


def cluster_resamples(clusters: Sequence, *, num_resamples: int = 1000, seed: int = 0) -> Resamples:
    """Draw as many clusters as there are, with replacement, `num_resamples` times."""
    names, cluster_of_row = np.unique(np.asarray(clusters), return_inverse=True)
    size = len(names)
    generator = np.random.default_rng(seed)
    return Resamples(generator.multinomial(size, np.full(size, 1 / size), size=num_resamples), cluster_of_row)


def resampled_average_precisions(
    targets: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> np.ndarray:  # [N, A], [N, A] -> [R, A]
    """Average precision of each attribute on each resample; NaN where a resample has one class only.

    Cost: one sort an attribute, then cumulative sums of R x N weights (about 0.03 s a million).
    """
    result = np.full((len(resamples.counts), np.shape(targets)[1]), np.nan)
    for column, (target, score) in enumerate(zip(np.transpose(targets), np.transpose(scores), strict=True)):
        target = np.asarray(target, dtype=np.float64)
        order, ends = _ranking(target, np.asarray(score, dtype=np.float64))
        for block, weights in resamples.blocks(order):
            result[block, column] = _step_area(weights * target[order], weights, ends)
    return result


def resampled_prevalences(targets: np.ndarray, resamples: Resamples) -> np.ndarray:  # [N, A] -> [R, A]
    """Share of positives of each attribute on each resample."""
    targets = np.asarray(targets, dtype=np.float64)
    num_clusters = resamples.counts.shape[1]
    columns = []
    for target in targets.T:
        known = np.flatnonzero(~np.isnan(target))
        cluster = resamples.cluster_of_row[known]
        positive = resamples.counts @ np.bincount(cluster, weights=target[known], minlength=num_clusters)
        total = resamples.counts @ np.bincount(cluster, minlength=num_clusters).astype(np.float64)
        columns.append(np.where(total > 0, positive / np.maximum(total, 1), np.nan))
    return np.stack(columns, axis=1)


def percentile_interval(statistics: np.ndarray, *, level: float = 0.95) -> np.ndarray:  # [R, ...] -> [2, ...]
    """Lower and upper percentile over the resamples.

    NaN where more than 1 - level of the resamples have no value: the ends then hang on what is missing.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    missing = np.isnan(statistics).mean(axis=0)
    filled = np.where(missing >= 1, 0.0, statistics)  # a column without any value would make nanquantile warn
    ends = np.nanquantile(filled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(missing > 1 - level, np.nan, ends)


# Cluster permutation: what a ranking scores when whole clusters swap their labels. Needed beside the bootstrap because
# average precision on few clusters lies above prevalence even for a random ranking.


def permuted_rows(
    clusters: Sequence, videos: Sequence | None = None, *, num_permutations: int, seed: int = 0
) -> np.ndarray:  # [N], [N] -> [R, N]
    """Random permutations of the clusters, as `lent_rows` gives them."""
    return lent_rows(clusters, videos, random_lenders(clusters, num_permutations=num_permutations, seed=seed))


def random_lenders(clusters: Sequence, *, num_permutations: int, seed: int = 0) -> np.ndarray:  # [N] -> [R, G]
    """For each cluster, in sort order, the one that lends its labels to it; every cluster lends once."""
    every = np.arange(len(np.unique(np.asarray(clusters))))
    return np.random.default_rng(seed).permuted(np.tile(every, (num_permutations, 1)), axis=1)


def lent_rows(
    clusters: Sequence, videos: Sequence | None, lenders: np.ndarray
) -> np.ndarray:  # [N], [N], [R, G] -> [R, N]
    """Row `result[r, i]` lends its label to row `i`: clusters swap labels whole, and so do the videos within them.

    A cluster that lends to a larger one starts again from its first video, a video from its first row; the order of a
    cluster's videos and of a video's rows is theirs in the arrays' sort order.
    """
    clusters = np.unique(np.asarray(clusters), return_inverse=True)[1]
    videos = np.arange(len(clusters)) if videos is None else np.unique(np.asarray(videos), return_inverse=True)[1]
    order = np.lexsort((videos, clusters))
    cluster, video = clusters[order], videos[order]
    opens = np.ones(len(order), dtype=bool)
    opens[1:] = (cluster[1:] != cluster[:-1]) | (video[1:] != video[:-1])
    part = np.cumsum(opens) - 1  # a part is one video within one cluster
    part_start = np.flatnonzero(opens)
    part_size = np.diff(part_start, append=len(order))
    parts_of = np.bincount(cluster[part_start])
    first_part = np.cumsum(parts_of) - parts_of
    rank_in_cluster = part - first_part[cluster]
    rank_in_part = np.arange(len(order)) - part_start[part]

    lender = lenders[:, cluster]  # [R, N]
    lent_part = first_part[lender] + rank_in_cluster % parts_of[lender]
    rows = np.empty_like(lent_part)
    rows[:, order] = order[part_start[lent_part] + rank_in_part % part_size[lent_part]]
    return rows


def permuted_average_precisions(
    targets: np.ndarray, scores: np.ndarray, permuted: np.ndarray
) -> np.ndarray:  # [N, A], [N, A], [R, N] -> [R, A]
    """Average precision of the same scores against labels that clusters have swapped: the null distribution."""
    targets = np.asarray(targets, dtype=np.float64)
    result = np.full((len(permuted), targets.shape[1]), np.nan)
    step = max(1, CHUNK // max(1, targets.shape[0]))
    for column, score in enumerate(np.asarray(scores, dtype=np.float64).T):
        order, ends = _ranking(np.zeros_like(score), score)
        for start in range(0, len(permuted), step):
            hits = targets[permuted[start : start + step][:, order], column]
            known = ~np.isnan(hits)
            area = _step_area(np.where(known, hits, 0.0), known.astype(np.float64), ends)
            result[start : start + step, column] = area
    return result


def _ranking(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N], [N] -> [n], [E]
    """Rows with a known label from the highest score down, and the last place of each run of equal scores."""
    known = np.flatnonzero(~np.isnan(targets))
    order = known[np.argsort(-scores[known], kind="stable")]
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(order) else np.empty(0, dtype=np.intp)
    return order, ends


def _step_area(hits: np.ndarray, totals: np.ndarray, ends: np.ndarray) -> np.ndarray:  # [R, n], [R, n], [E] -> [R]
    """Sum of (recall gained) x precision over the distinct thresholds, for rows already ranked and weighted."""
    if not len(ends):
        return np.full(len(hits), np.nan)
    hits, totals = np.cumsum(hits, axis=1), np.cumsum(totals, axis=1)
    if len(ends) < hits.shape[1]:
        hits, totals = hits[:, ends], totals[:, ends]
    precision = np.divide(hits, totals, out=np.zeros_like(hits), where=totals > 0)
    positive, everything = hits[:, -1], totals[:, -1]
    gained = np.diff(hits, axis=1, prepend=0.0)
    area = np.einsum("re,re->r", gained, precision)
    one_class = (positive <= 0) | (positive >= everything)
    return np.where(one_class, np.nan, area / np.where(positive > 0, positive, 1.0))
