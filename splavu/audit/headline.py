"""The one number: the share of the strongest attackers' success above chance that the release removes.

Note: the unit of the number (a clip, all clips of a video, or of a person) is a choice, and choosing it by test scores
would be optimistic. It is chosen on validation subjects: the unit that leaks most. There the best of many attackers
scores above chance by luck alone, and more so the fewer units there are; that bias is estimated by permuting labels,
and subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.attacks.campaign import Attack
from splavu.audit.evaluator import AttackScore, Evaluator
from splavu.audit.evidence import Headline, UnitResult
from splavu.metrics.estimates import Estimate

NUM_SWAPS = 100
"""Of the validation subjects' labels."""


@dataclass(frozen=True)
class ValidationExcess:
    """How far the best attackers stand above what the best of as many reach by luck, on validation subjects."""

    excess: float
    """Mean over attributes, in average precision."""
    luck: float
    """Standard deviation of the same over swaps of labels."""


def validation_excess(attack: Attack) -> ValidationExcess:
    """Of the largest validation AP over attackers; swaps move whole subjects, all attackers on the same ones."""
    tuned = attack.tuned
    swaps = metrics.permuted_rows(tuned.clusters, tuned.videos, num_permutations=NUM_SWAPS, seed=2)
    best = np.full((NUM_SWAPS, tuned.labels.shape[1]), np.nan)
    for m in range(tuned.scores.shape[1]):
        scores = tuned.scores[:, m]
        once = scores[:1] if (scores == scores[0]).all() else scores
        null = np.mean([metrics.permuted_average_precisions(tuned.labels, s, swaps) for s in once], axis=0)
        best = np.fmax(best, null)
    precision = attack.validation.mean(axis=0)  # [M, A]
    largest = np.where(np.isnan(precision).all(axis=0), np.nan, np.nan_to_num(precision, nan=-1.0).max(axis=0))
    null = metrics.mean_known(np.where(np.isnan(largest), np.nan, best))
    return ValidationExcess(float(metrics.mean_known(largest) - null.mean()), float(null.std()))


def worst_unit(raw: Mapping[str, Attack], released: Mapping[str, Attack]) -> str:
    """The unit whose validation subjects lose the largest share of what raw features would give away.

    A unit where raw features stand less than twice their luck above it has nothing to lose. A later unit (larger sets,
    fewer of them) must lose more than an earlier one by its own luck at least.
    """
    worst, largest = next(iter(released)), -np.inf
    for unit, attack in released.items():
        whole, left = validation_excess(raw[unit]), validation_excess(attack)
        if whole.excess > 2 * whole.luck and (left.excess - left.luck) / whole.excess > largest:
            worst, largest = unit, left.excess / whole.excess
    return worst


def headline(
    raw: Mapping[str, Attack],
    released: Mapping[str, Attack],
    found: Mapping[str, UnitResult],
    semi_informed: UnitResult,
    evaluator: Evaluator,
) -> Headline:
    """Of the worst unit, and beside it every unit and the semi-informed attacker.

    Args:
        raw: By unit; empty without raw features, there is no reduction then.
        released: By unit, all rungs.
        found: The same, judged.
        semi_informed: Newly trained attackers on released clips, judged.
        evaluator: As for the others.
    """
    if not raw:
        nothing = Estimate(*[float("nan")] * 3)
        unit = "clip"
        excess = AttackScore.of(released[unit], evaluator).excess
        sentence = (
            f"no raw features were given, so the leakage removed is unknown: on released {unit}s attackers reach "
            f"{100 * excess:.1f} points of AP above chance ({found[unit].verdict})"
        )
        return Headline(sentence, None, nothing, float("nan"), excess, nothing, {}, found[unit].verdict)
    unit = worst_unit(raw, released)
    by_unit = {name: _reduction(one.leakage) for name, one in found.items()}
    reduction, semi = by_unit[unit], _reduction(semi_informed.leakage)
    sentence = (
        f"leakage above chance removed, under the strongest attackers: {_percent(reduction)}, by {unit} "
        f"({found[unit].verdict}); under newly trained attackers of single clips: {_percent(semi)}"
    )
    return Headline(
        sentence=sentence,
        unit=unit,
        reduction=reduction,
        raw_excess=AttackScore.of(raw[unit], evaluator).excess,
        released_excess=AttackScore.of(released[unit], evaluator).excess,
        semi_informed=semi,
        by_unit=by_unit,
        verdict=found[unit].verdict,
    )


def _reduction(leakage: Estimate) -> Estimate:
    return Estimate(1 - leakage.value, 1 - leakage.high, 1 - leakage.low, 1 - leakage.chance)


def _percent(estimate: Estimate) -> str:
    value, low, high = (
        "-" if np.isnan(share) else str(round(100 * share)) for share in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} % [{low}, {high}]"
