"""The ladder of attackers: each rung knows more of how the features were made, all know everything of other people.

    ignorant        learnt from raw features, meets released ones unchanged
    lazy-informed   has the anonymizer, but not the setting: learnt from other people's raw features that were averaged
                    over their video before they were anonymized (needs the checkpoint)
    semi-informed   learnt from released features of other people
    informed        has other people's features raw and released: undoes the release, linearly or by a network, and
                    attacks what comes out as if it were raw; or learns from both side by side
    set-level       sees all clips of a video, or of a person, at once

What a reader would get wrong: no rung is the strongest by its place. One that knows more may overfit more, so all are
run, and for each attribute the attack that validation people like best counts. Whoever stops at the second rung finds
privacy in any change of coordinates.

Cross-release, the linking of raw to released features and of two releases, ranks and doesn't classify: `identity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from splavu.attacks.campaign import Attack, Campaign, Exposure, joined
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.attributes.set_attacks import attack_sets
from splavu.audit.attributes.units import UNITS, Unit, set_data, set_labels, set_names
from splavu.audit.inputs import Material

RungName = Literal["ignorant", "lazy-informed", "semi-informed", "informed", "served alone", "set-level"]
KNOWS: Mapping[RungName, str] = {
    "ignorant": "raw features of other people",
    "lazy-informed": "the anonymizer, but served video means where clips were served",
    "semi-informed": "released features of other people",
    "informed": "raw and released features of other people, row by row",
    "served alone": "features as the anonymizer gives each alone, where the store holds others",
    "set-level": "all clips of a video or person, beside what the rungs above know",
}
SETS: tuple[Unit, ...] = ("video", "person")

Serve = Callable[[np.ndarray], np.ndarray]  # [N, D] -> [N, D], each row as if it came alone


@dataclass(frozen=True)
class Rung:
    """One attack by name on one kind of unit."""

    name: RungName
    unit: Unit
    attack: Attack | None
    """None where it could not be run."""
    skipped: str = ""
    """Why not."""


@dataclass(frozen=True)
class Climb:
    """All that was attacked."""

    raw: Mapping[Unit, Attack]
    """Raw features by unit, each attacked in every way that doesn't take a release; empty without raw features."""
    rungs: tuple[Rung, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """Those that were attacked."""
        attacked = {rung.unit for rung in self.rungs if rung.attack is not None}
        return tuple(unit for unit in UNITS if unit in attacked)

    def released(self, unit: Unit) -> Attack:
        """All attacks on released units as one, its attackers named 'rung/attacker'."""
        return joined({rung.name: rung.attack for rung in self.rungs if rung.unit == unit and rung.attack is not None})


def climb(
    material: Material,
    campaign: Campaign,
    *,
    inverters: Mapping[str, Serve],
    served: AttackData | None = None,
    serve: Serve | None = None,
    set_attackers: tuple[str, ...] = (),
) -> Climb:
    """Run every rung that the material allows.

    Args:
        material: Released features, and raw ones for all but the semi-informed and set-level rungs.
        campaign: The families and how they are run; level 'row'.
        inverters: Maps from released to raw features, learnt from the training people; empty without raw features.
        served: What the anonymizer gives each raw row alone, where that isn't what was released.
        serve: The anonymizer, for the lazy-informed rung.
        set_attackers: Names from `set_attacks.SET_ATTACKERS`.
    """
    ways = {"semi-informed": {"fresh": fresh(material.released, campaign)}}
    raw: dict[Unit, Attack] = {}
    skipped = dict.fromkeys(("ignorant", "lazy-informed", "informed"), "takes raw features (--raw)")
    if material.raw is not None:
        raw["clip"], found = _with_raw_features(material, campaign, inverters)
        ways |= found
        skipped = {
            "ignorant": "raw features are of another width",
            "lazy-informed": "takes the anonymizer (--aam)",
        }
        if serve is not None:
            ways["lazy-informed"] = {"video means": _lazy(material, campaign, serve)}
    if served is not None:
        ways["served alone"] = {"fresh": fresh(served, campaign)}
    rungs = []
    for name in KNOWS:
        if name in ways:
            rungs.append(Rung(name, "clip", joined(ways[name])))
        elif name in skipped:
            rungs.append(Rung(name, "clip", None, skipped[name]))

    every = joined({f"{name}/{way}": attack for name in ways for way, attack in ways[name].items()})
    for unit in SETS:
        if not _can_be_judged(material, unit):
            rungs.append(
                Rung(
                    "set-level",
                    unit,
                    None,
                    f"no attribute that is the same in all clips of a {unit} divides validation and test people",
                )
            )
            continue
        options = {"attackers": set_attackers, "kept": material.personal if unit == "person" else None}
        rungs.append(Rung("set-level", unit, attack_sets(material.released, every, unit, campaign, **options)))
        if material.raw is not None:
            raw[unit] = attack_sets(material.raw, raw["clip"], unit, campaign, **options)
    return Climb(raw, tuple(rungs))


def num_fits(
    campaign: Campaign, *, with_raw: bool, with_anonymizer: bool, with_served: bool, set_attackers: tuple[str, ...]
) -> int:
    """How often `climb` moves the campaign's progress."""
    of_clips = 1 + with_served + (2 + with_anonymizer if with_raw else 0)
    of_sets = len(SETS) * (1 + with_raw)
    families = (of_clips + of_sets) * len(campaign.attackers) + of_sets * len(set_attackers)
    return families * len(campaign.seeds)


def _can_be_judged(material: Material, unit: Unit) -> bool:
    """Whether some attribute that sets of this unit may have divides the validation sets and the test sets."""
    kept = material.personal if unit == "person" else np.ones(len(material.attributes), dtype=bool)
    for rows in (material.released.validation, material.released.test):
        labels = set_labels(rows.labels, set_names(rows, unit))
        kept = kept & (labels == 0).any(axis=0) & (labels == 1).any(axis=0)
    return bool(kept.any())


def fresh(data: AttackData, campaign: Campaign) -> Attack:
    """Attackers that learn from what they attack."""
    return campaign.run_on([data] * len(campaign.seeds), {"own": Exposure(data.validation, data.test)})["own"]


def _with_raw_features(
    material: Material, campaign: Campaign, inverters: Mapping[str, Serve]
) -> tuple[Attack, dict[RungName, dict[str, Attack]]]:
    """Attackers that learnt from raw features, trained once: on raw features, and on released ones in every guise."""
    raw, released = material.raw, Exposure(material.released.validation, material.released.test)
    shown = {"raw": Exposure(raw.validation, raw.test)}
    if raw.test.features.shape[1] == released.test.features.shape[1]:
        shown["unchanged"] = released
    shown |= {f"undone ({name})": _mapped(released, invert) for name, invert in inverters.items()}
    informed = campaign.run_on([raw] * len(campaign.seeds), shown)
    on_raw, ignorant = informed.pop("raw"), informed.pop("unchanged", None)
    strongest = inverters["mlp"]
    both = material.released.mapped(lambda x: np.concatenate([x, strongest(x).astype(np.float32)], axis=1))
    ways: dict[RungName, dict[str, Attack]] = {"informed": informed | {"both": fresh(both, campaign)}}
    return on_raw, ways if ignorant is None else ways | {"ignorant": {"raw-trained": ignorant}}


def _lazy(material: Material, campaign: Campaign, serve: Serve) -> Attack:
    guessed = set_data(material.raw, "video").mapped(serve)
    released = Exposure(material.released.validation, material.released.test)
    return campaign.run_on([guessed] * len(campaign.seeds), {"own": released})["own"]


def _mapped(shown: Exposure, function: Serve) -> Exposure:
    def of(rows: Rows) -> Rows:
        return dataclasses.replace(rows, features=function(rows.features).astype(np.float32))

    return Exposure(of(shown.validation), of(shown.test))
