"""Numbers that an audit's verdicts rest on: rates of ranking, bits that an attacker can use, and tests on resamples.

Note: "not significantly above chance" is no finding of privacy, because with few subjects nothing is significant.
Privacy is claimed by `equivalence` alone: the interval must lie within a margin named beforehand. All tests resample
whole subjects (`metrics.cluster_resamples`); with fewer than about 20 subjects such intervals are too narrow, whatever
the number of draws.

Shapes: `N` rows, `A` attributes, `C` classes, `R` resamples, `E` distinct scores. Labels are 0 or 1, NaN where unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from splavu.metrics import ranking, resampling
from splavu.metrics.row_labels import RowLabels

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where the blocks of an online code end (Voita and Titov 2020)."""

FALSE_ALARMS = 10
"""False alarms that must be expected before a rate of true ones is given."""

FEWEST_BITS = 20.0
"""A probability counts as 2**-20 at least, so that one overconfident row cannot outweigh a data set."""


# Tests.


def holm(p_values: np.ndarray) -> np.ndarray:  # any shape -> the same
    """p-values of one family of tests, adjusted for its size; NaN stays NaN and does not count.

    Rejecting where the result is at most alpha errs anywhere in the family with probability alpha at most, however the
    tests depend on each other.

    Source: Holm 1979, the step-down form of Bonferroni.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values.flat[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted.flat[order] = np.minimum(np.maximum.accumulate(factors * p_values.flat[order]), 1.0)
    return adjusted


def bootstrap_p_value(
    draws: np.ndarray, *, null: float = 0.0, alternative: Literal["greater", "less", "two-sided"] = "greater"
) -> float:  # [R]
    """p-value that inverts the percentile interval: the share of draws on the null's side, the sample counted in.

    For two systems give the differences of their draws on the same `metrics.Resamples`; for a chance that moves with
    the sample (prevalence) give the draws less the chance of each. Draws without a value count for the null. At least
    1 / (R + 1).
    """
    draws = np.asarray(draws, dtype=np.float64)
    against_greater = (1 + np.sum(~(draws > null))) / (1 + len(draws))
    against_less = (1 + np.sum(~(draws < null))) / (1 + len(draws))
    return float(
        {
            "greater": against_greater,
            "less": against_less,
            "two-sided": min(1.0, 2 * min(against_greater, against_less)),
        }[alternative]
    )


@dataclass(frozen=True)
class Equivalence:
    """Whether a statistic is as good as chance, up to a margin."""

    equivalent: bool
    p: float
    """Of the worse of the two one-sided tests; `holm` takes it."""
    low: float
    """Of the interval that must lie within chance -+ margin: 90 % for a level of 95 %, its two sides being tests."""
    high: float
    chance: float
    margin: float
    reach: float
    """The least margin that would have passed: how closely these subjects can tell."""


def equivalence(draws: np.ndarray, *, chance: float, margin: float, level: float = 0.95) -> Equivalence:  # [R]
    """Two one-sided tests of |statistic - chance| >= margin, by resamples of the statistic.

    Equivalent if both tests reject at 1 - level and, what is the same up to one draw, the 2 * level - 1 interval lies
    within the margin. Draws without a value count against equivalence. Where chance is estimated from the same rows,
    give the draws of the difference, and chance 0.

    Source: Schuirmann 1987.
    """
    draws = np.asarray(draws, dtype=np.float64)
    low, high = resampling.percentile_interval(draws, level=2 * level - 1)
    p = max(
        bootstrap_p_value(draws, null=chance - margin, alternative="greater"),
        bootstrap_p_value(draws, null=chance + margin, alternative="less"),
    )
    inside = chance - margin < low and high < chance + margin  # False for NaN
    return Equivalence(
        equivalent=bool(inside and p <= 1 - level + 1e-12),
        p=p,
        low=float(low),
        high=float(high),
        chance=float(chance),
        margin=float(margin),
        reach=float(max(chance - low, high - chance)),
    )


# Rankings.


def aucs(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:  # [N, A], [N, A] -> [A]
    """`metrics.auc` of each attribute."""
    return np.array([ranking.auc(t, s) for t, s in zip(np.transpose(labels), np.transpose(scores), strict=True)])


def resampled_aucs(
    labels: np.ndarray, scores: np.ndarray, resamples: resampling.Resamples
) -> np.ndarray:  # [N, A], [N, A] -> [R, A]
    """Area under the ROC curve of each attribute on each resample; NaN where a resample has one class only."""
    result = np.full((len(resamples.counts), np.shape(labels)[1]), np.nan)
    for column, (label, score) in enumerate(zip(np.transpose(labels), np.transpose(scores), strict=True)):
        order, positive, ends = _ranked(label, score)
        kept = resampling.gaining_ends(positive, ends)
        before = np.append(-1, ends)[np.searchsorted(ends, kept)]  # the last place of a better score
        tied = kept - before > np.add.reduceat(positive, before + 1, dtype=int) if len(kept) else kept
        lower = np.where(tied, before, kept)  # negatives that tie with a positive count half
        places = np.union1d(kept, lower[lower >= 0])
        at_kept, at_lower = np.searchsorted(places, kept), np.searchsorted(places, lower)
        for block, (hits, alarms) in resamples.running(order, [positive, ~positive], places):
            hits, negative = hits[:, at_kept], alarms[:, -1:]
            accused = (alarms[:, at_kept] + np.where(lower >= 0, alarms[:, at_lower], 0.0)) / 2
            wins = (np.diff(hits, axis=1, prepend=0.0) * (negative - accused)).sum(axis=1)
            pairs = hits[:, -1] * negative[:, 0] if len(kept) else np.zeros(len(hits))
            result[block, column] = np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)
    return result


def tpr_at_fpr(
    labels: np.ndarray, scores: np.ndarray, fpr: float, *, false_alarms: int = FALSE_ALARMS
) -> float | None:  # [N], [N]
    """Share of positives above the threshold that at most `fpr` of the negatives exceed.

    Rows that share a score are accused together or not at all, and the rate is not interpolated: what is given can be
    reached, never more.

    None without a positive, or where `fpr` x negatives is below `false_alarms`: the threshold then hangs on so few
    rows that the rate it really has is off by more than a third of itself (1 / sqrt(10), binomial), and for a single
    one TPR is a lottery. Negatives of one person are alike and count for less than they are many; the interval of
    `resampled_tprs` shows by how much.
    """
    labels = np.asarray(labels, dtype=np.float64)
    if not np.any(labels > 0) or fpr * np.sum(labels == 0) < false_alarms - 1e-9:
        return None
    hits, alarms = _curves(labels, scores)
    return float(_rates_at(hits, alarms, fpr)[0])


def resampled_tprs(
    labels: np.ndarray, scores: np.ndarray, resamples: resampling.Resamples, *, fpr: float
) -> np.ndarray:  # [N], [N] -> [R]
    """The same on each resample, which sets its own threshold; NaN where a resample has one class only."""
    result = np.full(len(resamples.counts), np.nan)
    order, positive, ends = _ranked(labels, scores)
    ends = resampling.gaining_ends(positive, ends)
    for block, (hits, alarms) in resamples.running(order, [positive, ~positive], ends):
        result[block] = _rates_at(hits, alarms, fpr)
    return result


def equal_error_rate(labels: np.ndarray, scores: np.ndarray) -> float:  # [N], [N]
    """Error rate where as many positives are missed as negatives accused; NaN where one of them is missing."""
    hits, alarms = _curves(labels, scores)
    return float(equal_error_rates(hits, alarms)[0])


def equal_error_rates(hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:  # [..., E], [..., E] -> [...]
    """Where the two error rates meet, on the straight line between the thresholds that enclose it.

    Args:
        hits: Positives (or their weight) at or above each threshold, from the strictest one.
        alarms: Negatives at or above it.
    """
    missed, accused = 1 - _shares(hits), _shares(alarms)
    missed, accused = (
        np.concatenate([np.full_like(rate[..., :1], start), rate], axis=-1)
        for rate, start in ((missed, 1.0), (accused, 0.0))
    )
    after = np.argmax(accused >= missed, axis=-1, keepdims=True)  # at least 1: the strictest threshold misses all
    gap = missed - accused
    before = np.maximum(after - 1, 0)
    above, below = np.take_along_axis(gap, before, -1), np.take_along_axis(gap, after, -1)
    along = above / np.where(above - below > 0, above - below, 1.0)
    low, high = np.take_along_axis(accused, before, -1), np.take_along_axis(accused, after, -1)
    rate = (low + along * (high - low))[..., 0]
    return np.where(np.isnan(gap).any(axis=-1), np.nan, rate)


def best_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:  # [N, A], [N, A] -> [A]
    """The threshold of each attribute with the best balanced accuracy, for validation rows; NaN with one class only.

    It lies halfway between two scores; of equally good ones the strictest is taken. A row is called positive above it.
    """
    thresholds = np.full(np.shape(labels)[1], np.nan)
    for column, (label, score) in enumerate(zip(np.transpose(labels), np.transpose(scores), strict=True)):
        known = ~np.isnan(np.asarray(label, dtype=np.float64))
        distinct = np.unique(np.asarray(score, dtype=np.float64)[known])[::-1]
        hits, alarms = _curves(label, score)
        gain = _shares(hits)[0] - _shares(alarms)[0]
        if not np.isnan(gain).any():
            place = int(np.argmax(gain))
            # The laxest threshold gains nothing, so one that gains has a score below it.
            thresholds[column] = distinct[place : place + 2].mean() if gain[place] > 0 else distinct[0] + 1.0
    return thresholds


def balanced_accuracies(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:  # [N, A], [N, A], [A] -> [A]
    """Mean of the shares of positives and of negatives told right; chance is 0.5 whatever the prevalence.

    Args:
        thresholds: From other rows than these (`best_thresholds`).
    """
    rights = _right_by_class(labels, scores, thresholds)
    return np.mean([ranking.prevalences(right) for right in rights], axis=0)


def resampled_balanced_accuracies(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, resamples: resampling.Resamples
) -> np.ndarray:  # [N, A], [N, A], [A] -> [R, A]
    """The same on each resample of the clusters."""
    rights = _right_by_class(labels, scores, thresholds)
    return np.mean([resampling.resampled_prevalences(right, resamples) for right in rights], axis=0)


# Bits.


@dataclass(frozen=True)
class UsableBits:
    """V-information: by how many bits a row shortens the description of its label, for this attacker."""

    bits: np.ndarray
    """Mean over rows, 0 where the attacker does worse than the prior (who may always ignore the features)."""
    raw: np.ndarray
    """The mean as it came out; below 0 the attacker is overconfident: calibrate it (`platt_scaling`)."""
    prior_bits: np.ndarray
    """Cross-entropy of the prior: what there is to learn."""
    per_row: np.ndarray
    """The shape of the labels, NaN where unknown: for intervals (`metrics.resampled_prevalences` averages it)."""


def usable_bits(labels: np.ndarray, probabilities: np.ndarray, prior: np.ndarray | float) -> UsableBits:
    """Cross-entropy of the prior less that of the attacker, in bits a row.

    A lower bound of what such attackers could use: `probabilities` should come from rows that were not trained on, and
    be calibrated on validation rows, or an attacker with a good ranking looks useless.

    Args:
        labels: [N] or [N, A] of 0, 1 and NaN; or [N] of classes from 0.
        probabilities: Of a 1, in the labels' shape; or of each class, [N, C].
        prior: Share of ones, a number or [A]; or of each class, [C]. From training labels: an attacker without
            features has seen no others.

    Source: Xu et al. 2020, "A theory of usable information under computational constraints"; by row:
    Ethayarajh et al. 2022, "Understanding dataset difficulty with V-usable information".
    """
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    prior = np.asarray(prior, dtype=np.float64)
    known = ~np.isnan(labels)
    if probabilities.ndim == labels.ndim:
        of_label, of_prior = (np.where(labels > 0, p, 1 - p) for p in (probabilities, prior))
    else:
        target = np.where(known, labels, 0).astype(np.intp)
        of_label, of_prior = np.take_along_axis(probabilities, target[:, None], 1)[:, 0], prior[target]
    attacker, ignorant = (np.where(known, _cost(p), np.nan) for p in (of_label, of_prior))
    mean_attacker, mean_prior = (ranking.mean_known(cost.T) for cost in (attacker, ignorant))
    raw = mean_prior - mean_attacker
    return UsableBits(np.maximum(raw, 0.0), raw, mean_prior, ignorant - attacker)


@dataclass(frozen=True)
class Platt:
    """Scores made probabilities, attribute by attribute."""

    slope: np.ndarray
    """[A]"""
    intercept: np.ndarray
    """[A]"""

    def __call__(self, scores: np.ndarray) -> np.ndarray:  # [N, A] -> [N, A]
        return _sigmoid(np.asarray(scores, dtype=np.float64) * self.slope + self.intercept)


def platt_scaling(labels: np.ndarray, scores: np.ndarray, *, num_steps: int = 50) -> Platt:  # [N, A], [N, A]
    """Logistic regression on the score alone, for validation rows; an attribute without rows gives 0.5.

    The labels are drawn in as if one more row of each class had been seen, so that scores that separate the classes
    stay finite.

    Source: Platt 1999, with the Newton steps of Lin, Lin and Weng 2007.
    """
    slopes, intercepts = np.zeros(np.shape(labels)[1]), np.zeros(np.shape(labels)[1])
    for column, (label, score) in enumerate(zip(np.transpose(labels), np.transpose(scores), strict=True)):
        known = ~np.isnan(np.asarray(label, dtype=np.float64))
        positive, score = np.asarray(label)[known] > 0, np.asarray(score, dtype=np.float64)[known]
        if not len(score):
            continue
        num_positive = int(positive.sum())
        soft = np.where(positive, (num_positive + 1) / (num_positive + 2), 1 / (len(score) - num_positive + 2))
        centre, spread = score.mean(), score.std() or 1.0
        slope, intercept = _logistic_line((score - centre) / spread, soft, num_steps)
        slopes[column], intercepts[column] = slope / spread, intercept - slope * centre / spread
    return Platt(slopes, intercepts)


@dataclass(frozen=True)
class CodeLength:
    """How long the labels' description is for someone who has the features; all in bits."""

    bits: float
    uniform_bits: float
    """Every label as likely as every other."""
    prior_bits: float
    """As often as it came in the blocks before: the fair comparison where one class is frequent."""
    num_rows: int
    ends: tuple[int, ...]
    """Rows known after each block."""
    block_bits: tuple[float, ...]

    @property
    def compression(self) -> float:
        """Uniform code over this one; 1 when features say nothing about labels that are even."""
        return self.uniform_bits / self.bits

    @property
    def compression_over_prior(self) -> float:
        """Prior code over this one; 1 when features say nothing."""
        return self.prior_bits / self.bits


def online_code_length(
    fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]],
    features: np.ndarray,
    labels: np.ndarray,
    fractions: Sequence[float] = FRACTIONS,
    *,
    num_classes: int | None = None,
    clusters: RowLabels | None = None,
    seed: int = 0,
) -> CodeLength:  # [N, D], [N]
    """Length of the online (prequential) code: each block is described by a probe that learned the blocks before.

    The first block costs log2 C a label. A probe that has seen n labels is mixed with n : C parts of the uniform
    distribution, so no label costs infinitely much; one that would have seen a single class is not fitted, the
    frequencies so far stand in.

    Args:
        fit: Takes features [n, D] and classes [n] and gives a function features [m, D] -> probabilities [m, C]. It
            must give all C classes, those it has not seen too.
        features: In any order.
        labels: Classes from 0; NaN is left out.
        fractions: Shares of the rows (of the clusters) where blocks end; ascending, the last one 1.
        num_classes: C; None takes the largest label.
        clusters: Person of each row: people then come one after the other in a drawn order and no one is on both sides
            of a block's end. Without it, rows come in a drawn order: a label that is the same for all rows of a person
            is then cheap for a probe that recognises the person.
        seed: Of the order.

    Source: Voita and Titov 2020, "Information-theoretic probing with minimum description length".
    """
    labels = np.asarray(labels, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(labels))
    groups = known if clusters is None else np.unique(np.asarray(clusters)[known], return_inverse=True)[1]
    features, target = np.asarray(features)[known], labels[known].astype(np.intp)
    if not len(target):
        raise ValueError("there is no label to describe")
    num_classes = int(target.max()) + 1 if num_classes is None else num_classes
    _, group = np.unique(groups, return_inverse=True)
    place = np.random.default_rng(seed).permutation(group.max() + 1)[group]
    order = np.argsort(place, kind="stable")
    features, target = features[order], target[order]
    rows_until = np.cumsum(np.bincount(place))  # of the first k clusters
    known_clusters = np.ceil(np.asarray(fractions) * len(rows_until) - 1e-9).astype(np.intp)
    ends = np.unique(rows_until[np.maximum(known_clusters, 1) - 1])

    uniform = float(np.log2(num_classes))
    block_bits, prior_bits = [ends[0] * uniform], ends[0] * uniform
    for start, end in itertools.pairwise(ends):
        seen, new = target[:start], target[start:end]
        frequency = (np.bincount(seen, minlength=num_classes) + 1) / (start + num_classes)
        ignorant = -np.log2(frequency[new]).sum()
        prior_bits += ignorant
        if len(np.unique(seen)) < 2:
            block_bits.append(ignorant)
            continue
        given = np.asarray(fit(features[:start], seen)(features[start:end]), dtype=np.float64)
        mixed = (start * given[np.arange(len(new)), new] + 1) / (start + num_classes)
        block_bits.append(-np.log2(mixed).sum())
    return CodeLength(
        bits=float(np.sum(block_bits)),
        uniform_bits=len(target) * uniform,
        prior_bits=float(prior_bits),
        num_rows=len(target),
        ends=tuple(ends.tolist()),
        block_bits=tuple(float(bits) for bits in block_bits),
    )


def _ranked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [N], [N]
    """Rows of known labels [n] from the highest score down, which are positive [n], where scores' runs end [E]."""
    labels = np.asarray(labels, dtype=np.float64)
    order, ends = ranking.ranked_rows(labels, np.asarray(scores, dtype=np.float64))
    return order, labels[order] > 0, ends


def _curves(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N], [N] -> two of [1, E]
    """How many positives and negatives lie at or above each distinct score, from the highest one down."""
    _, positive, ends = _ranked(labels, scores)
    return np.cumsum(positive, dtype=np.float64)[None, ends], np.cumsum(~positive, dtype=np.float64)[None, ends]


def _shares(totals: np.ndarray) -> np.ndarray:  # [..., E] of running totals -> the same, 0 to 1; NaN without any
    whole = totals[..., -1:]
    return np.divide(totals, whole, out=np.full_like(totals, np.nan), where=whole > 0)


def _rates_at(hits: np.ndarray, alarms: np.ndarray, fpr: float) -> np.ndarray:  # [r, E], [r, E] -> [r]
    """True positive rate of the laxest threshold with at most `fpr` false alarms."""
    hits, alarms = _shares(hits), _shares(alarms)
    reached = np.where(alarms <= fpr + 1e-12, hits, 0.0).max(axis=1)
    return np.where(np.isnan(hits[:, -1]) | np.isnan(alarms[:, -1]), np.nan, reached)


def _right_by_class(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # [N, A], [N, A], [A] -> two of [N, A]
    """Whether each positive, and each negative, is told right; NaN for the rows of the other class."""
    labels = np.asarray(labels, dtype=np.float64)
    called = np.asarray(scores, dtype=np.float64) > thresholds
    judged = ~np.isnan(labels) & ~np.isnan(thresholds)
    return np.where(judged & (labels > 0), called, np.nan), np.where(judged & (labels <= 0), ~called, np.nan)


def _cost(probabilities: np.ndarray) -> np.ndarray:
    return -np.log2(np.maximum(probabilities, 2.0**-FEWEST_BITS))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(logits / 2))  # no overflow


def _logistic_line(inputs: np.ndarray, soft: np.ndarray, num_steps: int) -> tuple[float, float]:  # [n], [n]
    """Slope and intercept with the least cross-entropy to soft labels, by damped Newton steps."""
    design = np.stack([inputs, np.ones_like(inputs)], axis=1)

    def loss(weight: np.ndarray) -> float:
        logits = design @ weight
        return float(np.mean(np.logaddexp(0, logits) - soft * logits))

    weight = np.array([0.0, np.log(soft.mean() / (1 - soft.mean()))])
    for _ in range(num_steps):
        called = _sigmoid(design @ weight)
        gradient = design.T @ (called - soft) / len(soft)
        curvature = (design.T * (called * (1 - called))) @ design / len(soft) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and loss(weight - size * step) > loss(weight):
            size /= 2
        weight = weight - size * step
        if np.abs(gradient).max() < 1e-10:
            break
    return float(weight[0]), float(weight[1])
