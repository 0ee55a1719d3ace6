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

Cross-release, the linking of raw to released features, ranks and doesn't classify: see `linkage`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from splavu.attacks import Attack, Campaign, Exposure, joined
from splavu.audit.inversion import INVERTERS
from splavu.audit.material import Material
from splavu.audit.units import Unit, set_attack, set_data
from splavu.protocols import AttackData, Rows

RungName = Literal["ignorant", "lazy-informed", "semi-informed", "informed", "set-level"]
KNOWS: Mapping[RungName, str] = {
    "ignorant": "raw features of other people",
    "lazy-informed": "the anonymizer, but served video means where clips were served",
    "semi-informed": "released features of other people",
    "informed": "raw and released features of other people, row by row",
    "set-level": "all clips of a video or person, beside what the rungs above know",
}

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

    def released(self, unit: Unit) -> Attack:
        """All attacks on released units as one, its attackers named 'rung/attacker'."""
        return joined({rung.name: rung.attack for rung in self.rungs if rung.unit == unit and rung.attack is not None})


def climb(material: Material, campaign: Campaign, *, serve: Serve | None = None) -> Climb:
    """Run every rung that the material allows.

    Args:
        material: Released features, and raw ones for all but the semi-informed and set-level rungs.
        campaign: The families and how they are run; level 'row'.
        serve: The anonymizer, for the lazy-informed rung.
    """
    released, raw = material.released, material.raw
    shown = Exposure(released.validation, released.test)
    clip: dict[RungName, dict[str, Attack]] = {"semi-informed": {"fresh": _fresh(released, campaign)}}
    raw_clip: Attack | None = None
    skipped: dict[RungName, str] = {}
    if raw is None:
        skipped |= dict.fromkeys(("ignorant", "lazy-informed", "informed"), "takes raw features (--raw)")
    else:
        pairs = released.validation.features, raw.validation.features
        inverses = {n: learn(released.train.features, raw.train.features, pairs) for n, learn in INVERTERS.items()}
        undone = {name: _mapped(shown, inverse) for name, inverse in inverses.items()}
        own = Exposure(raw.validation, raw.test)
        found = campaign.run_on([raw] * len(campaign.seeds), {"raw": own, "unchanged": shown, **undone})
        raw_clip = found.pop("raw")
        clip["ignorant"] = {"raw-trained": found.pop("unchanged")}
        both = _side_by_side(released, inverses["mlp"])
        clip["informed"] = {f"undone ({n})": attack for n, attack in found.items()} | {"both": _fresh(both, campaign)}
        if serve is None:
            skipped["lazy-informed"] = "takes the anonymizer (--aam)"
        else:
            guessed = set_data(raw, "video").mapped(serve)
            lazy = campaign.run_on([guessed] * len(campaign.seeds), {"lazy": shown})
            clip["lazy-informed"] = {"video means": lazy["lazy"]}

    rungs = [Rung(name, "clip", joined(clip[name]) if name in clip else None, skipped.get(name, "")) for name in CLIPS]
    every = joined({f"{n}/{way}": attack for n, ways in clip.items() for way, attack in ways.items()})
    raw_of: dict[Unit, Attack] = {} if raw_clip is None else {"clip": raw_clip}
    for unit in SETS:
        rungs.append(Rung("set-level", unit, _of_sets(released, every, unit, material, campaign)))
        if raw is not None:
            raw_of[unit] = _of_sets(raw, raw_clip, unit, material, campaign)
    return Climb(raw_of, tuple(rungs))


CLIPS: tuple[RungName, ...] = ("ignorant", "lazy-informed", "semi-informed", "informed")
SETS: tuple[Unit, ...] = ("video", "person")


def num_fits(material: Material, campaign: Campaign, *, with_anonymizer: bool) -> int:
    """How often `climb` moves the campaign's progress."""
    clip_campaigns = 1 if material.raw is None else 3 + with_anonymizer
    set_campaigns = len(SETS) * (1 if material.raw is None else 2)
    return (clip_campaigns + set_campaigns) * len(campaign.attackers) * len(campaign.seeds)


def _fresh(data: AttackData, campaign: Campaign) -> Attack:
    return campaign.run_on([data] * len(campaign.seeds), {"own": Exposure(data.validation, data.test)})["own"]


def _of_sets(data: AttackData, clip: Attack, unit: Unit, material: Material, campaign: Campaign) -> Attack:
    """Clip attacks with their scores pooled, and fresh attacks on pooled features."""
    sets = _only(set_data(data, unit), material.personal if unit == "person" else None)
    found = {
        "mean of scores": set_attack(clip, unit, "mean"),
        "largest score": set_attack(clip, unit, "max"),
        "mean of features": _fresh(sets, campaign),
    }
    return joined(found)


def _only(data: AttackData, kept: np.ndarray | None) -> AttackData:
    """The same with the labels of the other attributes unknown."""
    if kept is None:
        return data
    return AttackData(
        **{
            name: dataclasses.replace(rows, labels=np.where(kept, rows.labels, np.float32(np.nan)))
            for name, rows in data.splits.items()
        }
    )


def _mapped(shown: Exposure, function: Serve) -> Exposure:
    def of(rows: Rows) -> Rows:
        return dataclasses.replace(rows, features=function(rows.features).astype(np.float32))

    return Exposure(of(shown.validation), of(shown.test))


def _side_by_side(data: AttackData, function: Serve) -> AttackData:
    return data.mapped(lambda features: np.concatenate([features, function(features).astype(np.float32)], axis=1))
