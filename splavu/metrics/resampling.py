"""How sure we may be of a score: bootstrap and permutation of whole clusters.

Note: the rows of a privacy or action test set are not independent. Clips of one subject look alike, so intervals and
null distributions here move whole clusters (subjects, videos), never single rows; an interval over rows would be
several times too narrow.

Shapes: `N` rows, `A` attributes, `R` resamples, `G` clusters. Labels are 0 or 1, NaN where unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from splavu.metrics.ranking import ranked_rows, step_area
from splavu.metrics.row_labels import RowLabels

CHUNK = 2_000_000  # numbers of one [R, N] block; larger blocks fall out of the processor's cache and gain nothing


# Cluster bootstrap: every statistic below that takes the same `Resamples` is computed on the same draws of clusters, so
# differences and ratios of two of them are paired.
MOST_CLUSTERS = 1000
"""Up to which sums over ranked rows are products with the clusters' own sums; more are looked up row by row."""


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

    def running(
        self, rows: np.ndarray, values: Sequence[np.ndarray], ends: np.ndarray
    ) -> Iterator[tuple[slice, list[np.ndarray]]]:  # [n], V x [n], [e] -> slices of R, each with V x [r, e]
        """Weighted sums of each of `values` over the rows up to each place of `ends`, a block of resamples at a time.

        Args:
            rows: In the order of the sums.
            values: Multiples of 1/2, so that the sums are exact.
            ends: Ascending places in `rows`.
        """
        num_clusters = self.counts.shape[1]
        exact = _exact(len(rows))
        step = max(1, CHUNK // max(1, len(ends)))
        by_cluster = num_clusters <= MOST_CLUSTERS
        if by_cluster:
            place = np.searchsorted(ends, np.arange(len(rows)))  # the first end that counts the row in
            cell = self.cluster_of_row[rows] * (len(ends) + 1) + place
            size = num_clusters * (len(ends) + 1)
            tables = [np.bincount(cell, value, minlength=size).reshape(num_clusters, -1)[:, :-1] for value in values]
            tables = [np.cumsum(table, axis=1).astype(exact) for table in tables]  # [G, e]
        for start in range(0, len(self.counts), step):
            block = slice(start, start + step)
            counts = self.counts[block].astype(exact)
            if by_cluster:
                yield block, [(counts @ table).astype(np.float64) for table in tables]
            else:
                weights = counts[:, self.cluster_of_row[rows]]
                yield (
                    block,
                    [np.cumsum(weights * value.astype(exact), axis=1)[:, ends].astype(np.float64) for value in values],
                )


def _exact(num_rows: int) -> type[np.floating]:
    """The smallest type whose sums of as many weights, or halves of them, are exact."""
    return np.float32 if num_rows < 2**20 else np.float64


def cluster_resamples(clusters: RowLabels, *, num_resamples: int = 1000, seed: int = 0) -> Resamples:
    """Draw as many clusters as there are, with replacement, `num_resamples` times."""
    names, cluster_of_row = np.unique(np.asarray(clusters), return_inverse=True)
    size = len(names)
    generator = np.random.default_rng(seed)
    return Resamples(generator.multinomial(size, np.full(size, 1 / size), size=num_resamples), cluster_of_row)


def seed_weights(num_seeds: int, num_resamples: int) -> np.ndarray:  # -> [R, S]
    """Draws of seeds, or of audits, as weights of their mean; each row sums to 1.

    Of S seeds with replacement. A mean over draws varies less than it should, by a factor of (S - 1) / S in variance,
    so the deviations from 1 / S are stretched by the root of S / (S - 1); a weight may then be a little below 0.

    Source: Davison and Hinkley 1997, "Bootstrap methods and their application", section 2.3, on the bias of the
    variance with few observations.
    """
    even = np.full(num_seeds, 1 / num_seeds)
    drawn = np.random.default_rng(1).multinomial(num_seeds, even, size=num_resamples) / num_seeds
    return even + (drawn - even) * np.sqrt(num_seeds / max(1, num_seeds - 1))


def resampled_average_precisions(
    targets: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> np.ndarray:  # [N, A], [N, A] -> [R, A]
    """Average precision of each attribute on each resample; NaN where a resample has one class only.

    Cost: one sort an attribute, then a product of R draws with the clusters' counts at or above each positive row.
    """
    result = np.full((len(resamples.counts), np.shape(targets)[1]), np.nan)
    for column, (target, score) in enumerate(zip(np.transpose(targets), np.transpose(scores), strict=True)):
        target = np.asarray(target, dtype=np.float64)
        order, ends = ranked_rows(target, np.asarray(score, dtype=np.float64))
        ends = gaining_ends(target[order], ends)
        for block, (hits, totals) in resamples.running(order, [target[order], np.ones(len(order))], ends):
            result[block, column] = step_area(hits, totals)
    return result


def gaining_ends(hits: np.ndarray, ends: np.ndarray) -> np.ndarray:  # [n], [E] -> [e]
    """Of the last places of runs of equal scores, those whose run has a positive row, and the very last place.

    Recall grows at no other one, so areas and rates need their values at these alone.
    """
    starts = np.append(0, ends[:-1] + 1) if len(ends) else ends
    gains = np.add.reduceat(hits, starts, dtype=np.float64) > 0 if len(ends) else np.empty(0, dtype=bool)
    gains[-1:] = True
    return ends[gains]


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


def simultaneous_intervals(draws: np.ndarray, *, level: float = 0.95) -> np.ndarray:  # [R, K] -> [2, K]
    """Percentile intervals of K statistics on the same resamples, which hold all at once for a share `level` of draws.

    All are cut at the same number of draws from either end, the largest for which a share `level` of the draws lies
    within all K of them. So they are as wide as the statistics' dependence asks for: of K copies of one statistic they
    are `percentile_interval`, of independent ones they come near Bonferroni's. A minimum over the K has the interval
    from the least lower end to the least upper end, and a maximum likewise: it holds wherever all K hold.

    NaN where more than 1 - level of the draws have no value; a draw without a value in another column does not count.

    Source: Beran 1988, "Balanced simultaneous confidence sets"; by ranks of the draws, Mandel and Betensky 2008,
    "Simultaneous confidence intervals based on the percentile bootstrap approach".
    """
    draws = np.asarray(draws, dtype=np.float64)
    ends = np.full((2, draws.shape[1]), np.nan)
    known = np.isnan(draws).mean(axis=0) <= 1 - level
    whole = draws[:, known][~np.isnan(draws[:, known]).any(axis=1)]  # [r, k]
    if not whole.size:
        return ends
    ordered = np.sort(whole, axis=0)
    depths = [  # how many draws may be cut from either end before this one is outside
        np.minimum(np.searchsorted(o, w, "right"), len(o) - np.searchsorted(o, w, "left")) - 1
        for o, w in zip(ordered.T, whole.T, strict=True)
    ]
    inside = np.sort(np.min(depths, axis=0))[::-1]
    cut = inside[int(np.ceil(level * len(inside) - 1e-9)) - 1]
    ends[:, known] = ordered[[cut, len(ordered) - 1 - cut]]
    return ends


# Cluster permutation: what a ranking scores when whole clusters swap their labels. Needed beside the bootstrap because
# average precision on few clusters lies above prevalence even for a random ranking.


def permuted_rows(
    clusters: RowLabels,
    videos: RowLabels | None = None,
    *,
    num_permutations: int,
    seed: int = 0,
) -> np.ndarray:  # [N], [N] -> [R, N]
    """Random permutations of the clusters, as `permute_cluster_labels` gives them."""
    return permute_cluster_labels(
        clusters, videos, cluster_permutations(clusters, num_permutations=num_permutations, seed=seed)
    )


def cluster_permutations(clusters: RowLabels, *, num_permutations: int, seed: int = 0) -> np.ndarray:  # [N] -> [R, G]
    """For each cluster, in sort order, the one that lends its labels to it; every cluster lends once."""
    every = np.arange(len(np.unique(np.asarray(clusters))))
    return np.random.default_rng(seed).permuted(np.tile(every, (num_permutations, 1)), axis=1)


def permute_cluster_labels(
    clusters: RowLabels, videos: RowLabels | None, lenders: np.ndarray
) -> np.ndarray:  # [N], [N], [R, G] -> [R, N]
    """Row `result[r, i]` lends its label to row `i`: clusters swap labels whole, and so do the videos within them.

    A cluster that lends to a larger one starts again from its first video, a video from its first row; the order of a
    cluster's videos and of a video's rows is theirs in the arrays' sort order.
    """
    cluster = np.unique(np.asarray(clusters), return_inverse=True)[1]
    video = np.arange(len(cluster)) if videos is None else np.unique(np.asarray(videos), return_inverse=True)[1]
    order = np.lexsort((video, cluster))
    cluster, video = cluster[order], video[order]
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
    targets = np.asarray(targets, dtype=np.float32)
    result = np.full((len(permuted), targets.shape[1]), np.nan)
    step = max(1, CHUNK // max(1, targets.shape[0]))
    for column, score in enumerate(np.asarray(scores, dtype=np.float64).T):
        order, ends = ranked_rows(np.zeros_like(score), score)
        label = targets[:, column].copy()
        complete = not np.isnan(label).any()
        for start in range(0, len(permuted), step):
            hits = label[permuted[start : start + step][:, order]]
            known = np.ones((1, len(order))) if complete else ~np.isnan(hits)
            hits = np.cumsum(hits if complete else np.where(known, hits, 0), axis=1, dtype=_exact(len(order)))[:, ends]
            result[start : start + step, column] = step_area(hits, np.cumsum(known, axis=1, dtype=np.float64)[:, ends])
    return result
