"""Operating points of anonymizers: privacy and utility of each on validation subjects, to choose between them.

Note: these subjects are not the test subjects. Attackers are trained on some training subjects, tuned on others, and
evaluated on the validation subjects, which are there to choose an operating point. The chosen one looks a little better
here than it is; report its audit on test subjects.

Shapes: S seeds, R draws of subjects, A attributes, D feature width, C classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from splavu import metrics
from splavu.anonymizers.apply import ArrayMap
from splavu.attacks.campaign import Campaign
from splavu.attacks.rows import AttackData, Rows, hold_out
from splavu.audit.attributes.set_attacks import attack_sets
from splavu.audit.attributes.units import set_data
from splavu.audit.evaluator import AttackScore, Evaluator
from splavu.audit.evidence import LeastProtected
from splavu.audit.headline import Leakages, attribute_leakages, largest, least_protected, unit_leakages
from splavu.audit.identity.run import link
from splavu.audit.questions import Questions
from splavu.metrics import tradeoff
from splavu.metrics.estimates import Estimate, Interval, estimated
from splavu.tuning import linear_probes
from splavu.tuning.linear_probes import LongVideos, ProbeScore

UNITS = ("clip", "video")
"""What is attacked: single clips, and all clips of a video. A few validation subjects don't make sets of subjects."""
FEW = 0.5
"""Fewer distinct vectors than this share of the clips, and their entropy is a rate."""


@dataclass(frozen=True)
class Measurement:
    """What one seed's attackers and heads made of one operating point."""

    privacy: Mapping[str, AttackScore]
    """By unit."""
    rank1: float
    """Share of videos whose nearest other video is of the same person, by the strongest of several metrics."""
    rank1_chance: float
    rank1_drawn: np.ndarray
    """[R]"""
    uses: Mapping[str, ProbeScore]
    """By probe of `splavu.tuning.linear_probes`: actions, and of long videos those that were given."""
    distinct: int
    """Released vectors of the validation clips that differ."""
    entropy: float
    """Of them, in bits; NaN where (nearly) every clip has a vector of its own."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, for a file."""
        flat = {}
        for name, value in _fields(self).items():
            if isinstance(value, Mapping):
                for key, part in value.items():
                    flat |= {f"{name}/{key}/{of}": np.asarray(number) for of, number in _fields(part).items()}
            else:
                flat[name] = np.asarray(value)
        return flat

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Measurement:
        """The inverse of `arrays`."""
        value = {name: array.item() if array.ndim == 0 else array for name, array in arrays.items()}
        parts: dict[str, dict[str, dict[str, Any]]] = {"privacy": {}, "uses": {}}
        for name in [name for name in value if "/" in name]:
            kind, key, field = name.split("/")
            parts[kind].setdefault(key, {})[field] = value.pop(name)
        privacy = {unit: AttackScore(**fields) for unit, fields in parts["privacy"].items()}
        return cls(
            privacy=privacy, uses={name: ProbeScore(**fields) for name, fields in parts["uses"].items()}, **value
        )


@dataclass(frozen=True)
class Bench:
    """Raw features of subjects to learn from and of subjects to choose by; every operating point meets the same.

    Args:
        train: Clips of training subjects; attackers take a share of these subjects to be tuned on.
        judged: Clips of validation subjects.
        classes: Video -> action, of all of them.
        long_videos: 'moments' and 'anomalies' -> long videos of training subjects, for the probes of these names.
        attackers: Families of `splavu.attackers.ATTACKERS`, fresh for each point and seed.
        num_resamples: Draws of the validation subjects.
        num_swaps: Swaps of their labels, for chance.
    """

    train: Rows
    judged: Rows
    classes: Mapping[str, int]
    long_videos: Mapping[str, LongVideos]
    attackers: tuple[str, ...]
    num_resamples: int = 1000
    num_swaps: int = 200
    max_train_rows: int = 20_000
    attributes: tuple[str, ...] = ()
    """Names of the labels' columns; numbers where none are given."""

    def __post_init__(self) -> None:
        if not self.attributes:
            object.__setattr__(self, "attributes", tuple(map(str, range(self.judged.labels.shape[1]))))

    def measure(
        self, serve: ArrayMap, *, seed: int = 0, unseen: tuple[ArrayMap, Container[int]] | None = None
    ) -> Measurement:
        """Attack what `serve` releases, link it, and train heads on it.

        Args:
            serve: The anonymizer.
            seed: Deals people and seeds attackers.
            unseen: The anonymizer that wasn't shown some of the actions, and which: for a head that tells these apart.
        """
        raw = self.dealt(seed)
        released = raw.mapped(serve)
        with tqdm(disable=True) as progress:
            campaign = Campaign(self.attackers, (seed,), self.max_train_rows, "row", "cpu", progress)
            clip = campaign.run([released])
            attacks = {"clip": clip, "video": attack_sets(released, clip, "video", campaign, attackers=())}
        evaluator = Evaluator(
            questions=Questions.binary([str(a) for a in range(clip.labels.shape[1])]),
            prior=metrics.prevalences(released.train.labels),
            num_resamples=self.num_resamples,
            num_swaps=self.num_swaps,
            margin=0.05,
        )
        videos = set_data(released, "video")
        linked, _ = link(videos, videos, num_permutations=50)
        _, counts = np.unique(released.test.features, axis=0, return_counts=True)
        shares = counts / counts.sum()
        uses = {"actions": linear_probes.actions(released, self.classes, self.num_resamples)}
        if unseen is not None:
            other, left_out = unseen
            kept = {
                n: r.take(np.flatnonzero([self.classes[v] in left_out for v in r.videos]))
                for n, r in raw.splits.items()
            }
            uses["unseen"] = linear_probes.actions(AttackData(**kept).mapped(other), self.classes, self.num_resamples)
        for name, videos in self.long_videos.items():
            uses[name] = getattr(linear_probes, name)(videos, serve, self.num_resamples)
        return Measurement(
            privacy={unit: AttackScore.of(attack, evaluator) for unit, attack in attacks.items()},
            rank1=linked.rank1.value,
            rank1_chance=linked.rank1.chance,
            rank1_drawn=linked.draws["rank1"],
            uses=uses,
            distinct=len(counts),
            entropy=float(-(shares @ np.log2(shares))) if len(counts) < FEW * len(released.test) else float("nan"),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all features, labels and names."""
        digest = hashlib.sha256(json.dumps(sorted(self.classes.items())).encode())
        arrays = [getattr(rows, f.name) for rows in (self.train, self.judged) for f in dataclasses.fields(rows)]
        for _, videos in sorted(self.long_videos.items()):
            arrays += [*videos.features, *videos.labels]
        for array in arrays:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def dealt(self, seed: int) -> AttackData:
        """The training subjects in two, by seed; validation subjects are judged."""
        learn, tune = hold_out(self.train, seed=seed)
        return AttackData(learn, tune, self.judged)


@dataclass(frozen=True)
class Point:
    """One operating point over its seeds, beside raw features: shares of what they give away, points of what they keep.

    95 % intervals, from resamples of validation subjects (of long videos: of videos) and, if there are several, seeds.
    """

    name: str
    family: str
    """What it was made as, with other settings."""
    num_seeds: int
    leakage: Mapping[str, Estimate]
    """By unit: excess of the strongest attackers over chance, mean over the attributes that all units share, as a share
    of raw features'; intervals that hold for all units at once."""
    linkage: Estimate
    """Excess of rank-1 over chance as a share of raw features'."""
    uses: Mapping[str, Estimate]
    """By probe: its figure."""
    lost: Mapping[str, Estimate]
    """By probe: raw features' figure less this one's, on the same draws; negative where the point does better."""
    kept: float
    """Least over probes of (figure - chance) / (raw features' figure - chance), cut to 0 and 1."""
    distinct: float
    entropy: float
    budget: float | None
    """Bits a clip at most, by its architecture; None without a bound."""
    eligible: bool = True
    """Whether it may be chosen; baselines may not."""
    draws: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    """'leakage' of the worse unit, and 'kept': [R] each."""
    least_protected: LeastProtected | None = None
    """The attribute of which most is left, over all units; None where raw features reveal none."""

    @property
    def unit(self) -> str:
        """The unit at which most is left."""
        return max(self.leakage, key=lambda unit: self.leakage[unit].value)

    @property
    def worst(self) -> Estimate:
        """Its leakage, with an interval that holds for the largest of all units (`splavu.audit.headline`)."""
        return largest(self.leakage)[1]

    @property
    def is_measured(self) -> bool:
        """Whether its leakage at every unit and what each probe loses are known."""
        known = [*self.leakage.values(), *self.lost.values()]
        return bool(self.leakage) and not any(np.isnan(one.value) for one in known)

    @property
    def most_lost(self) -> Estimate:
        """Of the probe that loses most."""
        return max(self.lost.values(), key=lambda lost: lost.value)


def point(
    name: str,
    family: str,
    found: Sequence[Measurement],
    raw: Sequence[Measurement],
    *,
    budget: float | None = None,
    eligible: bool = True,
    attributes: Sequence[str] = (),
) -> Point:
    """The point of these seeds, each beside raw features of the same seed; `attributes` names the labels' columns."""
    pairs = list(zip(found, raw, strict=True))
    attributes = attributes or tuple(map(str, range(len(found[0].privacy[UNITS[0]].precision))))
    leakages = Leakages.pooled([unit_leakages(one.privacy, whole.privacy) for one, whole in pairs])
    by_attribute = Leakages.pooled([attribute_leakages(one.privacy, w.privacy, attributes) for one, w in pairs])
    linked = [
        metrics.normalised_leakage(*(np.append(m.rank1_drawn, m.rank1) for m in (one, whole)), whole.rank1_chance)
        for one, whole in pairs
    ]
    uses, lost, kept, kept_drawn = {}, {}, [], []
    for probe in found[0].uses:
        own, whole = ([m.uses[probe] for m in of] for of in (found, raw))
        value, best, chance = (
            float(np.mean(values))
            for values in ([u.value for u in own], [u.value for u in whole], [u.chance for u in whole])
        )
        drawn, best_drawn, chance_drawn = (
            _over_seeds(values)
            for values in ([u.drawn for u in own], [u.drawn for u in whole], [u.drawn_chance for u in whole])
        )
        uses[probe] = estimated(value, drawn, chance=chance)
        lost[probe] = estimated(best - value, best_drawn - drawn, chance=best - chance)
        kept.append(tradeoff.kept(value, best, chance))
        kept_drawn.append(tradeoff.kept(drawn, best_drawn, chance_drawn))
    made = Point(
        name=name,
        family=family,
        num_seeds=len(found),
        leakage=leakages.estimates(),
        least_protected=least_protected(by_attribute),
        linkage=estimated(np.mean([one[-1] for one in linked]), _over_seeds([one[:-1] for one in linked]), chance=0.0),
        uses=uses,
        lost=lost,
        kept=float(np.min(kept)),
        distinct=float(np.mean([m.distinct for m in found])),
        entropy=float(np.mean([m.entropy for m in found])),
        budget=budget,
        eligible=eligible,
    )
    draws = {"leakage": leakages.draws[made.unit], "kept": np.min(kept_drawn, axis=0)}
    return dataclasses.replace(made, draws=draws)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both leakage and use kept, the most private first."""
    kept, best = [], -np.inf
    for one in sorted(points, key=lambda p: (p.worst.value, -p.kept)):
        if one.kept > best:
            kept.append(one)
            best = one.kept
    return kept


def area(points: Sequence[Point]) -> Interval:
    """The share of the unit square of privacy and use that the points conquer (`tradeoff.DEFINITION`).

    Use is that of the probe that keeps least. No points conquer nothing.
    """
    if not points:
        return Interval(0.0, 0.0, 0.0)
    measured = tradeoff.Curve(
        privacy=1 - np.clip([p.worst.value for p in points], 0, 1), utility=np.array([p.kept for p in points])
    )
    leaked, kept = (np.stack([p.draws[name] for p in points], axis=1) for name in ("leakage", "kept"))  # [R, K]
    return tradeoff.hypervolume(measured, tradeoff.Curve(privacy=1 - np.clip(leaked, 0, 1), utility=kept))


def choose(points: Sequence[Point], *, most_lost: float) -> Point | None:
    """The point that gives away least of those that lose `most_lost` at most of each probe (a share: 0.02 is 2 points).

    None where none of them loses so little. What is undefined, leakage or loss, isn't little.
    """
    usable = [
        one
        for one in points
        if one.eligible and one.is_measured and all(lost.value <= most_lost for lost in one.lost.values())
    ]
    return min(usable, key=lambda one: (one.worst.value, one.most_lost.value), default=None)


def _over_seeds(draws: Sequence[np.ndarray]) -> np.ndarray:  # S x [R] -> [R]
    """Draws of subjects, and with each of them a draw of seeds."""
    return np.einsum("rs,sr->r", metrics.seed_weights(*np.shape(draws)), np.stack(draws))


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
