"""Threat models: what an attacker knows of how the features were made. All have labelled examples of other subjects.

    ignorant        trained on raw features, applied to released ones as they are
    lazy-informed   has the anonymizer, but does not know that clips were anonymized: trained on other subjects' video
                    means, anonymized (needs the checkpoint)
    semi-informed   trained on released features of other subjects
    informed        has other subjects' features raw and released: inverts the release, linearly or by a network, and
                    attacks the reconstruction as if it were raw; or trains on both side by side
    set-level       sees all clips of a video, or of a person, at once
    names           reads the released names, counts and order of clips too, alone and beside features
                    (`splavu.audit.attributes.names`)

Note: a threat model that knows more is not always stronger, because it may overfit more. So all are run, and for each
attribute the attack with the best validation AP counts. An audit with the first two only would find privacy in any
change of coordinates.

Linking raw to released features, or two releases, is a ranking and no classification: see `splavu.audit.identity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from splavu.anonymizers.apply import ArrayMap
from splavu.attacks.campaign import Attack, Campaign, Exposure, joined
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.attributes.names import Names, names_alone, names_attack, num_names_fits
from splavu.audit.attributes.set_attacks import attack_sets
from splavu.audit.attributes.units import UNITS, AuditUnit, known_only, set_attack, set_data, set_labels, set_names
from splavu.audit.inputs import AuditInputs

ThreatModelName = Literal[
    "ignorant", "lazy-informed", "semi-informed", "informed", "served alone", "set-level", "names"
]
KNOWS: Mapping[ThreatModelName, str] = {
    "ignorant": "raw features of other people",
    "lazy-informed": "the anonymizer, but not that clips were anonymized: trained on video means",
    "semi-informed": "released features of other people",
    "informed": "raw and released features of other subjects, row by row",
    "served alone": "the anonymizer's output for each feature alone, where the store holds another",
    "set-level": "all clips of a video or person, beside what the threat models above know",
    "names": "the released names, counts and order of clips, beside the features",
}
SETS: tuple[AuditUnit, ...] = ("video", "person")


@dataclass(frozen=True)
class ThreatModelAttack:
    """One attack by name on one kind of unit."""

    name: ThreatModelName
    unit: AuditUnit
    attack: Attack | None
    """None where it could not be run."""
    skipped: str = ""
    """Why not."""


@dataclass(frozen=True)
class ThreatModelAttacks:
    """The attacks of all threat models."""

    raw: Mapping[AuditUnit, Attack]
    """Raw features by unit, each attacked in every way that doesn't take a release; empty without raw features."""
    attacks: tuple[ThreatModelAttack, ...]
    raw_with_names: Mapping[AuditUnit, Attack] = field(default_factory=dict)
    """The same under the released names, beside what was found without them: what attacks with names compare with."""
    names: Names | None = None

    @property
    def units(self) -> tuple[AuditUnit, ...]:
        """Those that were attacked."""
        attacked = {one.unit for one in self.attacks if one.attack is not None}
        return tuple(unit for unit in UNITS if unit in attacked)

    def released(self, unit: AuditUnit, *, with_names: bool = True) -> Attack:
        """All attacks on released units as one, its attackers named 'threat model/attacker'."""
        return joined(
            {
                one.name: one.attack
                for one in self.attacks
                if one.unit == unit and one.attack is not None and (with_names or one.name != "names")
            }
        )

    def reference(self, name: ThreatModelName | None, unit: AuditUnit) -> Attack | None:
        """The attack on raw features that a threat model's success is measured by; None as name: that of all."""
        with_names = self.reads_names(name) and unit in self.raw_with_names
        return (self.raw_with_names if with_names else self.raw).get(unit)

    @staticmethod
    def reads_names(name: ThreatModelName | None) -> bool:
        """Whether a threat model reads names; all of them together do."""
        return name in (None, "names")


def run_threat_models(
    inputs: AuditInputs,
    campaign: Campaign,
    *,
    inverters: Mapping[str, ArrayMap],
    served: AttackData | None = None,
    serve: ArrayMap | None = None,
    set_attackers: tuple[str, ...] = (),
) -> ThreatModelAttacks:
    """Run every threat model that the inputs allow.

    Args:
        inputs: Released features, and raw ones for all but the semi-informed and set-level attackers.
        campaign: The families and how they are run; level 'row'.
        inverters: Maps from released to raw features, trained on the training subjects; empty without raw features.
        served: What the anonymizer gives each raw row alone, where that isn't what was released.
        serve: The anonymizer, for the lazy-informed threat model.
        set_attackers: Names from `set_attacks.SET_ATTACKERS`.
    """
    ways = {"semi-informed": {"fresh": fresh(inputs.released, campaign)}}
    raw: dict[AuditUnit, Attack] = {}
    skipped = dict.fromkeys(("ignorant", "lazy-informed", "informed"), "takes raw features (--raw)")
    if inputs.raw is not None:
        raw["clip"], found = _with_raw_features(inputs, campaign, inverters)
        ways |= found
        skipped = {
            "ignorant": "raw features are of another width",
            "lazy-informed": "takes the anonymizer (--aam)",
        }
        if serve is not None:
            ways["lazy-informed"] = {"video means": _lazy(inputs, campaign, serve)}
    if served is not None:
        ways["served alone"] = {"fresh": fresh(served, campaign)}
    attacks = []
    for name in KNOWS:
        if name in ways:
            attacks.append(ThreatModelAttack(name, "clip", joined(ways[name])))
        elif name in skipped:
            attacks.append(ThreatModelAttack(name, "clip", None, skipped[name]))

    every = joined({f"{name}/{way}": attack for name in ways for way, attack in ways[name].items()})
    for unit in SETS:
        if not _can_be_judged(inputs, unit):
            attacks.append(
                ThreatModelAttack(
                    "set-level",
                    unit,
                    None,
                    f"no attribute that is the same in all clips of a {unit} divides validation and test people",
                )
            )
            continue
        options = {"attackers": set_attackers, "kept": inputs.personal if unit == "person" else None}
        attacks.append(
            ThreatModelAttack("set-level", unit, attack_sets(inputs.released, every, unit, campaign, **options))
        )
        if inputs.raw is not None:
            raw[unit] = attack_sets(inputs.raw, raw["clip"], unit, campaign, **options)
    if not inputs.keys:
        return ThreatModelAttacks(raw, tuple(attacks))
    names = Names.of(inputs.keys, inputs.released)
    alone = names_alone(names, inputs.released, campaign)
    attack = names_attack(names, alone, inputs.released, every, campaign)
    of_raw = None if inputs.raw is None else names_attack(names, alone, inputs.raw, raw["clip"], campaign)
    units = tuple(dict.fromkeys(one.unit for one in attacks if one.attack is not None))
    attacks += [ThreatModelAttack("names", unit, _on_units(inputs, attack, unit)) for unit in units]
    raw_with_names = {}
    if of_raw is not None:
        for unit in units:
            raw_with_names[unit] = joined({"features": raw[unit], "names": _on_units(inputs, of_raw, unit)})
    return ThreatModelAttacks(raw, tuple(attacks), raw_with_names, names)


def num_fits(
    campaign: Campaign,
    *,
    with_raw: bool,
    with_anonymizer: bool,
    with_served: bool,
    set_attackers: tuple[str, ...],
    with_names: bool = False,
) -> int:
    """How often `run_threat_models` moves the campaign's progress."""
    of_clips = 1 + with_served + (2 + with_anonymizer if with_raw else 0)
    of_sets = len(SETS) * (1 + with_raw)
    families = (of_clips + of_sets) * len(campaign.attackers) + of_sets * len(set_attackers)
    return families * len(campaign.seeds) + with_names * num_names_fits(campaign, with_raw=with_raw)


def _on_units(inputs: AuditInputs, attack: Attack, unit: AuditUnit) -> Attack:
    """An attack on clips by the mean of its scores over the clips of a unit."""
    if unit == "clip":
        return attack
    return set_attack(known_only(attack, inputs.personal) if unit == "person" else attack, unit)


def _can_be_judged(inputs: AuditInputs, unit: AuditUnit) -> bool:
    """Whether some attribute that sets of this unit may have divides the validation sets and the test sets."""
    kept = inputs.personal if unit == "person" else np.ones(len(inputs.questions.asked), dtype=bool)
    for rows in (inputs.released.validation, inputs.released.test):
        labels = set_labels(rows.labels, set_names(rows, unit))
        kept = kept & (labels == 0).any(axis=0) & (labels == 1).any(axis=0)
    return bool(kept.any())


def fresh(data: AttackData, campaign: Campaign) -> Attack:
    """Attackers trained on the kind of features that they attack."""
    return campaign.run_on([data] * len(campaign.seeds), {"own": Exposure(data.validation, data.test)})["own"]


def _with_raw_features(
    inputs: AuditInputs, campaign: Campaign, inverters: Mapping[str, ArrayMap]
) -> tuple[Attack, dict[ThreatModelName, dict[str, Attack]]]:
    """Attackers trained once on raw features, applied to raw features and to released ones, as they are and
    inverted."""
    raw, released = inputs.raw, Exposure(inputs.released.validation, inputs.released.test)
    shown = {"raw": Exposure(raw.validation, raw.test)}
    if raw.test.features.shape[1] == released.test.features.shape[1]:
        shown["unchanged"] = released
    shown |= {f"undone ({name})": _mapped(released, invert) for name, invert in inverters.items()}
    informed = campaign.run_on([raw] * len(campaign.seeds), shown)
    on_raw, ignorant = informed.pop("raw"), informed.pop("unchanged", None)
    strongest = inverters["mlp"]
    both = inputs.released.mapped(lambda x: np.concatenate([x, strongest(x).astype(np.float32)], axis=1))
    ways: dict[ThreatModelName, dict[str, Attack]] = {"informed": informed | {"both": fresh(both, campaign)}}
    return on_raw, ways if ignorant is None else ways | {"ignorant": {"raw-trained": ignorant}}


def _lazy(inputs: AuditInputs, campaign: Campaign, serve: ArrayMap) -> Attack:
    guessed = set_data(inputs.raw, "video").mapped(serve)
    released = Exposure(inputs.released.validation, inputs.released.test)
    return campaign.run_on([guessed] * len(campaign.seeds), {"own": released})["own"]


def _mapped(shown: Exposure, function: ArrayMap) -> Exposure:
    def of(rows: Rows) -> Rows:
        return dataclasses.replace(rows, features=function(rows.features).astype(np.float32))

    return Exposure(of(shown.validation), of(shown.test))
