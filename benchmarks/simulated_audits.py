"""Whether the audit's intervals and p-values hold: simulated audits of worlds whose truth is known.

`python benchmarks/simulated_audits.py`. Each audit draws subjects to train, to tune and to test on, releases their
features, trains the audit's attackers and lets the audit judge them. The truth is what the very attackers that it chose
reach on many more subjects, whom nothing has seen. Features are so short, and families so few, that an audit takes
seconds; what is tested, the statistics from scores on, is the audit's own.

A world has two attributes of a person and one of a video, each along an axis of its own. How strongly raw features
reveal them, how much of each axis the release keeps, and how much noise it adds to each clip are drawn again: so the
unit at which least is removed, and the attribute that is protected least, differ from world to world.

headline        the interval of the headline holds the true reduction at the unit at which truly least is removed
all units       the simultaneous intervals hold for all units
one unit        the percentile interval of a single unit, for comparison; mean over units
worst           the interval of the attribute that is protected least holds the largest true leakage of those compared
p <= 0.05       the same audit where subjects of each split have exchanged their labels, so that features say nothing of
                them: share of attributes and units, and share of audits in which any is, adjusted for all

Note: it is not enough to shuffle the labels that attackers are trained on. Of 30 subjects shuffled labels are alike the
true ones by chance, attackers learn that, and it holds on test subjects, too. Therefore the audit's gate on shuffled
labels allows for a gain (`gates.SWAP_GAIN`).
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm

from splavu import metrics
from splavu.attackers import ATTACKERS, AttackerSpec, KernelAttacker, LogisticAttacker
from splavu.attacks.campaign import Attack, Campaign
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.attributes.threat_models import ThreatModelAttacks, run_threat_models
from splavu.audit.evaluator import ALPHA, AttackScore, Evaluator
from splavu.audit.headline import attribute_leakages, headline, unit_leakages
from splavu.audit.inputs import AuditInputs
from splavu.metrics import inference
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli

ATTRIBUTES = ("gender", "skin", "mask")
WIDTH, VIDEOS, CLIPS = 8, 3, 2
FAMILIES = {
    "line": AttackerSpec(
        partial(LogisticAttacker, penalties=(1e-1, 1e-3), scalings=("standardise",), max_iterations=15),
        stochastic=False,
    ),
    "curve": AttackerSpec(
        partial(KernelAttacker, num_features=48, bandwidths=(1.0, 2.0), penalties=(1e-2,), scalings=("standardise",)),
        stochastic=True,
    ),
}
"""The audit's, but smaller: seconds an audit."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class World:
    """How features come about."""

    strength: np.ndarray
    """[A] along the axis of each attribute, in deviations of a clip."""
    kept: np.ndarray
    """[A] what a release keeps of it."""
    noise: float
    """That a release adds to each clip."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> World:
        return cls(rng.uniform(2.5, 4.5, len(ATTRIBUTES)), rng.uniform(0, 0.6, len(ATTRIBUTES)), rng.uniform(0, 2))

    def subjects(self, count: int, prefix: str, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Raw and released clips of `count` subjects."""
        person = (rng.random((count, 2)) < (0.5, 0.4)).repeat(VIDEOS * CLIPS, axis=0)
        video = (rng.random((count * VIDEOS, 1)) < 0.5).repeat(CLIPS, axis=0)
        labels = np.concatenate([person, video], axis=1).astype(np.float32)
        raw = rng.normal(size=(len(labels), WIDTH)) + rng.normal(size=(count, WIDTH)).repeat(VIDEOS * CLIPS, axis=0)
        raw[:, : len(ATTRIBUTES)] += self.strength * labels
        released = raw.copy()
        released[:, : len(ATTRIBUTES)] -= (1 - self.kept) * self.strength * labels
        released += self.noise * rng.normal(size=raw.shape)
        names = np.array([f"{prefix}{g:05d}" for g in range(count)])
        videos = np.array([f"{name}-{v}" for name in names for v in range(VIDEOS)]).repeat(CLIPS)
        return tuple(
            Rows(features.astype(np.float32), labels, names.repeat(VIDEOS * CLIPS), videos)
            for features in (raw, released)
        )


@dataclass(frozen=True)
class Held:
    """Of one audit."""

    headline: bool
    units: bool
    one_unit: float
    worst: bool
    width: float
    """Of the headline's interval."""
    p: np.ndarray
    """Of attributes and units under shuffled labels."""
    leaks: bool
    """Whether any of them is below 0.05 once adjusted for all."""


def simulate(seed: int, sizes: tuple[int, int, int], population: int, num_resamples: int) -> Held:
    """One audit, the truth, and the same audit with shuffled labels."""
    rng = np.random.default_rng(seed)
    world = World.drawn(rng)
    train, validation, test = (
        world.subjects(count, prefix, rng)
        for count, prefix in zip((*sizes[:2], sizes[2] + population), "abc", strict=True)
    )
    raw, released = (AttackData(*parts) for parts in zip(train, validation, test, strict=True))
    inputs = AuditInputs(ATTRIBUTES, released, raw, (), ())
    evaluator = Evaluator(
        questions=inputs.questions, prior=metrics.prevalences(released.train.labels), num_resamples=num_resamples,
        num_swaps=num_resamples, margin=0.05,
    )  # fmt: skip
    attacked = attack(inputs)
    of_sample, of_everyone = (taken(attacked, f"c{sizes[2]:05d}", before=before) for before in (True, False))
    on_raw, on_released = (
        {unit: AttackScore.of(one, evaluator) for unit, one in attacks.items()} for attacks in of_sample
    )
    found = {
        unit: evaluator.evaluate_scored(one, on_released[unit], on_raw[unit]) for unit, one in of_sample[1].items()
    }
    semi = on_released["clip"], on_raw["clip"]
    found_headline = headline(on_raw, on_released, semi, found, ATTRIBUTES, inputs.personal)
    by_unit, by_attribute = unit_leakages(on_released, on_raw), attribute_leakages(on_released, on_raw, ATTRIBUTES)
    true_units, true_attributes = true_leakages(*of_everyone, list(by_unit.values), list(by_attribute.values))
    intervals = by_unit.estimates()
    alone = [metrics.percentile_interval(by_unit.draws[unit]) for unit in intervals]
    worst = found_headline.least_protected
    shuffled = shuffled_scores(inputs, sizes[2], evaluator, seed)
    p = np.concatenate([score.p for score in shuffled.values()])
    return Held(
        headline=found_headline.reduction.low <= 1 - max(true_units.values()) <= found_headline.reduction.high,
        units=all(intervals[unit].low <= true <= intervals[unit].high for unit, true in true_units.items()),
        one_unit=float(
            np.mean([low <= true <= high for (low, high), true in zip(alone, true_units.values(), strict=True)])
        ),
        worst=worst is not None and worst.leakage.low <= max(true_attributes.values()) <= worst.leakage.high,
        width=found_headline.reduction.high - found_headline.reduction.low,
        p=p[~np.isnan(p)],
        leaks=bool(np.nanmin(inference.holm(p)) <= ALPHA),
    )


def attack(inputs: AuditInputs) -> ThreatModelAttacks:
    """By the audit's threat models; the release is inverted by regression alone."""
    invert = {}
    if inputs.raw is not None:
        train = inputs.released.train.features
        inverse = np.linalg.lstsq(np.c_[train, np.ones(len(train))], inputs.raw.train.features, rcond=None)[0]
        invert = {"mlp": lambda features: np.c_[features, np.ones(len(features))] @ inverse}
    with tqdm(disable=True) as progress:
        campaign = Campaign(tuple(FAMILIES), SEEDS, 20_000, "row", "cpu", progress)
        return run_threat_models(inputs, campaign, inverters=invert, set_attackers=())


def taken(attacked: ThreatModelAttacks, first: str, *, before: bool) -> tuple[dict[str, Attack], dict[str, Attack]]:
    """Attacks on raw and released units of the subjects before `first` in the alphabet, or of the others."""

    def of(one: Attack) -> Attack:
        rows = np.flatnonzero((one.clusters < first) == before)
        return dataclasses.replace(
            one, labels=one.labels[rows], clusters=one.clusters[rows], videos=one.videos[rows],
            scores=one.scores[:, :, rows], chosen=one.weights,
        )  # fmt: skip

    every = [(attacked.reference(None, unit), attacked.released(unit)) for unit in attacked.units]
    return tuple({unit: of(pair[k]) for unit, pair in zip(attacked.units, every, strict=True)} for k in (0, 1))


def true_leakages(
    raw: dict[str, Attack], released: dict[str, Attack], units: Sequence[str], pairs: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Leakage of units over shared attributes, and of 'unit/attribute', where chance is prevalence."""
    excess = [
        {unit: one.precision - metrics.prevalences(one.labels) for unit, one in attacks.items()}
        for attacks in (raw, released)
    ]
    shared = np.all([~np.isnan(values) for values in excess[1].values()], axis=0)
    whole, left = excess
    of_units = {unit: float(left[unit][shared].mean() / whole[unit][shared].mean()) for unit in units}
    of_pairs = {}
    for pair in pairs:
        unit, attribute = pair.split("/")
        a = ATTRIBUTES.index(attribute)
        of_pairs[pair] = float(left[unit][a] / whole[unit][a])
    return of_units, of_pairs


def shuffled_scores(inputs: AuditInputs, num_test: int, evaluator: Evaluator, seed: int) -> dict[str, AttackScore]:
    """The same audit where the subjects of each split have exchanged their labels."""
    rng, data = np.random.default_rng([seed, 1]), {}
    for name, rows in inputs.released.splits.items():
        rows = rows.take(np.flatnonzero(rows.clusters < f"c{num_test:05d}"))  # all but the population
        swap = metrics.permuted_rows(rows.clusters, rows.videos, num_permutations=1, seed=int(rng.integers(2**31)))[0]
        data[name] = dataclasses.replace(rows, labels=rows.labels[swap])
    attacked = attack(AuditInputs(ATTRIBUTES, AttackData(**data), None, (), ()))
    return {unit: AttackScore.of(attacked.released(unit), evaluator) for unit in attacked.units}


def report(held: Sequence[Held]) -> str:
    """A table: what, measured, and what must hold."""

    def share(values: Sequence[float]) -> str:
        mean = np.mean(values)
        return f"{100 * mean:.1f} % (+- {100 * np.sqrt(mean * (1 - mean) / len(held)):.1f})"

    rows = [
        ["headline holds the least true reduction", share([one.headline for one in held]), "at least 92 %"],
        ["all units hold at once", share([one.units for one in held]), "at least 92 %"],
        ["a unit's own percentile interval holds", share([one.one_unit for one in held]), "95 %"],
        ["worst attribute holds the largest true leakage", share([one.worst for one in held]), "at least 92 %"],
        ["width of the headline's interval, points", f"{100 * np.mean([one.width for one in held]):.0f}", ""],
        ["shuffled labels: p <= 0.05", share([np.mean(one.p <= ALPHA) for one in held]), "at most 8.5 %"],
        ["shuffled labels: audits with a leak", share([one.leaks for one in held]), "at most 8.5 %"],
    ]
    return markdown_table(["", f"of {len(held)} audits", "expected"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=200, help="audits (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first one (default 0)")
    parser.add_argument(
        "--subjects", type=int, nargs=3, default=(30, 16, 34), metavar=("TRAIN", "VAL", "TEST"),
        help="of an audit (default: 30 16 34)",
    )  # fmt: skip
    parser.add_argument("--population", type=int, default=1000, help="subjects that make the truth (default 1000)")
    parser.add_argument("--num-resamples", type=int, default=500, help="as the audit's (default 500)")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    seeds = tqdm(range(args.seed, args.seed + args.num), disable=None)
    torch.set_num_threads(1)
    with patch.dict(ATTACKERS._rows, FAMILIES):
        held = [simulate(seed, tuple(args.subjects), args.population, args.num_resamples) for seed in seeds]
    print(report(held))
    print(f"\nsubjects {args.subjects}, seeds from {args.seed}, {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    cli.run(main)
