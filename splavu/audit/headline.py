"""The one number: the share of the strongest attackers' success above chance that the release removes.

Note: what a clip, all clips of a video and all clips of a person give away are three numbers, over different
attributes: a person has few of them always the same way. They are compared over the attributes that all units share,
and the one number is that of the unit at which least is removed. Choosing it by test scores would be optimistic for a
single interval; these intervals hold for all units at once, on the same draws of subjects and seeds
(`metrics.simultaneous_intervals`), so that of the least is the interval from the least lower end to the least upper
end. A mean over attributes hides the one that is hardly protected, so that one stands beside it, chosen and bounded in
the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.audit.evaluator import ALPHA, AttackScore, decision
from splavu.audit.evidence import Headline, LeastProtected, UnitResult
from splavu.metrics import inference
from splavu.metrics.estimates import NAN, Estimate, estimated

UNDEFINED = Estimate(NAN, NAN, NAN, NAN)


@dataclass(frozen=True)
class Leakages:
    """Leakage of several units, or attributes of units, each on the same draws."""

    values: Mapping[str, float]
    draws: Mapping[str, np.ndarray]
    """[R] each."""

    @classmethod
    def of_evidence(cls, evidence: Mapping[str, Any]) -> tuple[Leakages, Leakages]:
        """Of the units, and of the attributes that raw features reveal, out of an audit's evidence as JSON holds it."""
        head = evidence["headline"]
        values = {unit: 1 - one["value"] for unit, one in head["by_unit"].items() if one["value"] is not None}
        for unit, found in evidence["strongest"].items():
            values |= {f"{unit}/{one['name']}": one["leakage"]["value"] for one in found["attributes"]}
        draws = {name: read_draws(text) for name, text in head["draws"].items() if values.get(name) is not None}
        units, attributes = ({n: d for n, d in draws.items() if ("/" in n) is has} for has in (False, True))
        return tuple(cls({name: values[name] for name in of}, of) for of in (units, attributes))

    @classmethod
    def pooled(cls, audits: Sequence[Leakages]) -> Leakages:
        """Means over audits of the same test subjects, on their common draws of subjects, each with a draw of audits.

        Audits draw subjects in the same way (`campaign.draws`), so their draws belong together one by one, and the
        mean's interval is over subjects and audits. Only what all audits have is kept.
        """
        names = [name for name in audits[0].values if all(name in one.values for one in audits)]
        weights = metrics.seed_weights(len(audits), len(next(iter(audits[0].draws.values()), ())))
        return cls(
            {name: float(np.mean([one.values[name] for one in audits])) for name in names},
            {name: np.einsum("rs,sr->r", weights, [one.draws[name] for one in audits]) for name in names},
        )

    def estimates(self) -> dict[str, Estimate]:
        """With intervals that hold at once; NaN where raw features are above chance in too few draws."""
        if not self.values:
            return {}
        ends = metrics.simultaneous_intervals(np.stack([self.draws[name] for name in self.values], axis=1))
        return {
            name: UNDEFINED if np.isnan(low) else Estimate(value, float(low), float(high), 0.0)
            for (name, value), low, high in zip(self.values.items(), *ends, strict=True)
        }

    def most(self) -> tuple[str | None, Estimate]:
        """Where most is left, with an interval that holds for the largest of all, wherever it is."""
        return largest(self.estimates())


def largest(estimates: Mapping[str, Estimate]) -> tuple[str | None, Estimate]:
    """The largest of estimates whose intervals hold at once, with the interval of the largest; None if all are NaN."""
    known = {name: one for name, one in estimates.items() if not np.isnan(one.value)}
    if not known:
        return None, UNDEFINED
    name = max(known, key=lambda name: known[name].value)
    low, high = (max(getattr(one, end) for one in known.values()) for end in ("low", "high"))
    return name, Estimate(known[name].value, low, high, 0.0)


def shared_attributes(scores: Mapping[str, AttackScore]) -> np.ndarray:  # -> [a] of indices
    """The attributes that can be judged at every unit."""
    return np.flatnonzero(np.all([~np.isnan(score.precision) for score in scores.values()], axis=0))


def unit_leakages(
    released: Mapping[str, AttackScore], raw: Mapping[str, AttackScore], kept: np.ndarray | None = None
) -> Leakages:
    """Leakage of the mean over the attributes `kept`, by default over those that all units share."""
    if kept is None:
        kept = shared_attributes(released)
    shares = {unit: one.only(kept).share_of(raw[unit].only(kept), mean=True) for unit, one in released.items()}
    return Leakages({unit: float(value) for unit, (value, _) in shares.items()}, {u: d for u, (_, d) in shares.items()})


def attribute_leakages(
    released: Mapping[str, AttackScore], raw: Mapping[str, AttackScore], attributes: Sequence[str]
) -> Leakages:
    """'unit/attribute' -> leakage, where raw features reveal the attribute (p adjusted for a unit's attributes)."""
    values, drawn = {}, {}
    for unit, own in released.items():
        value, draws = own.share_of(raw[unit])
        revealed = inference.holm(raw[unit].p) <= ALPHA  # False for NaN
        for a in np.flatnonzero(revealed & ~np.isnan(value)):
            values[f"{unit}/{attributes[a]}"], drawn[f"{unit}/{attributes[a]}"] = float(value[a]), draws[:, a]
    return Leakages(values, drawn)


def headline(
    raw: Mapping[str, AttackScore],
    released: Mapping[str, AttackScore],
    semi_informed: tuple[AttackScore, AttackScore | None],
    found: Mapping[str, UnitResult],
    attributes: Sequence[str],
    personal: np.ndarray,
) -> Headline:
    """Of the unit at which least is removed, and beside it every unit, the semi-informed attacker and the attribute
    that is protected least.

    Args:
        raw: By unit; empty without raw features, there is no reduction then.
        released: By unit, all threat models.
        semi_informed: Newly trained attackers on released clips, and on raw ones.
        found: The same as `released`, judged.
        attributes: Names of the A columns.
        personal: [A] whether a person has the attribute always the same way.
    """
    kept = shared_attributes(released)
    names = tuple(attributes[a] for a in kept)
    coverage = _coverage(len(kept), len(attributes), released, personal)
    excess = {unit: score.only(kept).excess for unit, score in released.items()}
    verdict = _verdict(found)
    common = {"attributes": names, "num_attributes": len(attributes), "verdict": verdict}
    if not raw:
        unit = max(excess, key=lambda unit: np.nan_to_num(excess[unit], nan=-1.0))
        sentence = (
            f"no raw features were given, so the leakage removed is unknown: on released {unit}s, where most is found, "
            f"attackers reach {100 * excess[unit]:.1f} points of AP above chance, {coverage} ({verdict})"
        )
        return Headline(
            sentence=sentence, unit=unit, reduction=UNDEFINED, raw_excess=NAN, released_excess=excess[unit],
            semi_informed=UNDEFINED, by_unit={}, own_attributes={}, least_protected=None, draws={}, **common,
        )  # fmt: skip
    leakages = unit_leakages(released, raw, kept)
    unit, most = leakages.most()
    by_attribute = attribute_leakages(released, raw, attributes)
    least = least_protected(by_attribute)
    value, drawn = semi_informed[0].only(kept).share_of(semi_informed[1].only(kept), mean=True)
    reduction, semi = removed(most), removed(estimated(value, drawn, chance=0.0))
    at = f"by {unit}, where least is removed" if len(released) > 1 else f"by {unit}"
    sentence = (
        f"leakage above chance removed, under the strongest attackers: {percent(reduction)} {at}, "
        if unit
        else "the leakage removed is unknown: attackers are not above chance on raw features, "
    )
    sentence += f"{coverage} ({verdict})"
    if least is not None:
        sentence += f"; protected least: {least.name}, of which {percent(least.leakage)} is left by {least.unit}"
    if unit:
        sentence += f"; under newly trained attackers of single clips: {percent(semi)} removed"
    every = {**leakages.draws, **by_attribute.draws}
    return Headline(
        sentence=sentence,
        unit=unit,
        reduction=reduction,
        raw_excess=raw[unit].only(kept).excess if unit else NAN,
        released_excess=excess[unit] if unit else NAN,
        semi_informed=semi,
        by_unit={name: removed(one) for name, one in leakages.estimates().items()},
        own_attributes={name: removed(one.leakage) for name, one in found.items()},
        least_protected=least,
        draws={name: written(draws) for name, draws in every.items()},
        **common,
    )


def removed(leakage: Estimate) -> Estimate:
    """1 - leakage."""
    return Estimate(1 - leakage.value, 1 - leakage.high, 1 - leakage.low, 1 - leakage.chance)


def percent(estimate: Estimate) -> str:
    """'47 % [30, 62]'."""
    value, low, high = (
        "-" if np.isnan(share) else str(round(100 * share)) for share in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} % [{low}, {high}]"


def written(draws: np.ndarray) -> str:  # [R]
    """Draws of a leakage in thousandths, '-' where undefined; `read_draws` reads them."""
    return " ".join("-" if np.isnan(draw) else str(round(1000 * draw)) for draw in draws.tolist())


def read_draws(text: str) -> np.ndarray:  # -> [R]
    return np.array([NAN if word == "-" else int(word) / 1000 for word in text.split()])


def least_protected(leakages: Leakages) -> LeastProtected | None:
    """The attribute and unit of which most is left, of `attribute_leakages`."""
    name, most = leakages.most()
    if name is None:
        return None
    unit, attribute = name.split("/", 1)
    return LeastProtected(attribute, unit, most, len(leakages.values))


def _coverage(shared: int, total: int, units: Mapping[str, AttackScore], personal: np.ndarray) -> str:
    """Which attributes the number is about."""
    if shared == total:
        return f"over all {total} attributes" if total > 1 else "over the one attribute"
    if not shared:
        return f"for none of {total} attributes can be judged by {', '.join(units)} alike"
    if "person" in units and shared == int(personal.sum()):
        return f"over {shared} of {total} attributes, those that a person has always the same way"
    return f"over {shared} of {total} attributes, those that can be judged by {', '.join(units)} alike"


def _verdict(found: Mapping[str, UnitResult]) -> str:
    """Over all attributes of all units: one that leaks is enough, and all must be at chance."""
    every = [one for result in found.values() for one in result.attributes]
    p = np.nanmin(inference.holm(np.array([one.p for one in every])))
    return decision(p, all(one.equivalence.equivalent for one in every))
