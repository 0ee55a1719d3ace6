"""An audit from features to evidence.

Note: no attacker is chosen by a test score. Families and ways of attack are chosen on validation subjects; the test
subjects are used once, by everything at once. What is named because it is the largest on test subjects (the unit of the
headline, the attribute that is protected least) has an interval that holds for all that it was chosen from.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from splavu import metrics
from splavu.anonymizers import Anonymizer
from splavu.anonymizers.apply import ArrayMap, array_map
from splavu.attackers import ATTACKERS, AUDIT_FAMILIES, AttackerSpec, attacker_names
from splavu.attacks.campaign import Campaign
from splavu.attacks.release_protocol import finite
from splavu.attacks.rows import AttackData, shuffled_labels
from splavu.audit import gates
from splavu.audit.answers import Truth
from splavu.audit.attributes.learning_curves import code_lengths, learning_curve, rising
from splavu.audit.attributes.names import Names
from splavu.audit.attributes.set_attacks import SET_ATTACKERS
from splavu.audit.attributes.threat_models import KNOWS, SETS, ThreatModelAttacks, num_fits, run_threat_models
from splavu.audit.evaluator import AttackScore, Evaluator, attacker_table
from splavu.audit.evidence import SCHEMA, Evidence, ThreatModelResult
from splavu.audit.headline import headline
from splavu.audit.identity.inversion import Inverter
from splavu.audit.identity.run import inverted, learn_inverters, linked_people, members, singled_out
from splavu.audit.identity.verdict import linking_gate, linking_headline
from splavu.audit.inputs import AuditInputs
from splavu.errors import UserError
from splavu.metrics.estimates import estimated
from splavu.runtime import environment
from splavu.runtime.progress import progress_bar
from splavu.runtime.workers import worker_processes

SWAPS_PER_TEST = 30
"""Permutations for each attribute and unit: with fewer, p adjusted for all of them could not fall below 0.05."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How thorough an audit is."""

    families: tuple[str, ...] = AUDIT_FAMILIES
    """Names from `ATTACKERS`. Figures of two audits compare only if both used the same families."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of stochastic families; the others are trained once."""
    set_families: tuple[str, ...] = tuple(SET_ATTACKERS)
    """Of attackers that take all clips of a video or person."""
    gate_families: tuple[str, ...] = ("logistic", "mlp", "trees", "knn", "kernel")
    """Trained on shuffled labels, those of all `gate_seeds` at once."""
    gate_seeds: tuple[int, ...] = (0, 1, 2)
    """Of the permutations of labels."""
    curve_families: tuple[str, ...] = ("logistic", "mlp")
    """Whose success is followed over the number of subjects trained on."""
    num_resamples: int = 1000
    num_swaps: int = 1000
    margin: float = 0.05
    """Of AUC, for 'at chance'."""
    max_train_rows: int = 20_000
    attributes_only: bool = False
    """Without linkage, inversion, membership, learning curve and code length."""
    quick: bool = False

    def __post_init__(self) -> None:
        for field in ("families", "gate_families", "curve_families"):
            object.__setattr__(self, field, attacker_names(getattr(self, field), culprit="families"))
        if not 0 < self.margin < 0.5:
            raise UserError("--margin", f"is {self.margin}, expected between 0 and 0.5")

    @classmethod
    def quickly(cls, **changes: Any) -> AuditOptions:
        """A first look: three fast families, one seed."""
        fast = ("logistic", "knn", "kernel")
        settings = {"families": fast, "seeds": (0,), "set_families": (), "curve_families": ("logistic",), "quick": True}
        return cls(**(settings | {"gate_families": ("logistic",), "num_resamples": 300, "num_swaps": 300} | changes))


def examine(
    inputs: AuditInputs,
    options: AuditOptions,
    *,
    anonymizer: Anonymizer | None = None,
    command: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    workers: int = 1,
) -> Evidence:
    """Attack, evaluator, and ask of itself whether it may be believed.

    Args:
        inputs: What `read_inputs` gives.
        options: How thorough.
        anonymizer: What `inputs.released` was made with: for the lazy-informed threat model and two gates.
        command: How it was called, for the evidence.
        device: Where attackers compute.
        workers: Processes that train attackers, on a CPU.

    Raises:
        UserError: Only attributes are asked for, and there are none.
    """
    started = time.perf_counter()
    if options.attributes_only and not inputs.attributes:
        problem = "leaves nothing to do: the table has no column of attributes"
        raise UserError("--attributes-only", problem, "leave it out: subjects are linked then")
    serve = None if anonymizer is None else array_map(anonymizer, device=device)
    raw = inputs.raw
    served = None if serve is None or raw is None else raw.mapped(finite(serve))
    served_gate = gates.served_gate(inputs.released, served)
    if served_gate.passed is not False:
        served = None  # attacked apart only where the store holds something else
    inverters = learn_inverters(inputs, seed=options.seeds[0])
    if inputs.attributes:
        parts = _attribute_parts(inputs, options, inverters, served=served, serve=serve, device=device, workers=workers)
        beyond = _beyond_attributes(inputs, options, inverters, serve, anonymizer)
    else:
        beyond = _beyond_attributes(inputs, options, inverters, serve, anonymizer)
        parts = _identity_parts(inputs, beyond["linkage"], options)
    return Evidence(
        schema=SCHEMA,
        versions=environment.versions(),
        command={**(command or {}), **dataclasses.asdict(options)},
        files=inputs.files,
        people={name: _counts(rows) for name, rows in inputs.released.splits.items()},
        gates=(
            *parts.pop("gates"),
            gates.batch_gate(anonymizer, None if raw is None else raw.test.features, device),
            served_gate,
        ),
        **parts,
        **beyond,
        warnings=(*inputs.warnings, *_fitted_to_test(raw, anonymizer), *rising(parts["learning_curve"])),
        columns=inputs.columns,
        seconds=time.perf_counter() - started,
    )


def _fitted_to_test(raw: AttackData | None, anonymizer: Anonymizer | None) -> list[str]:
    """A warning where the anonymizer was fitted to videos of the test subjects, which its checkpoint's hashes show."""
    fitted_to = None if anonymizer is None else anonymizer.fitted_to
    if raw is None or fitted_to is None:
        return []
    names, video = np.unique(raw.test.videos, return_inverse=True)
    share = np.bincount(video, fitted_to.holds(raw.test.features)) / np.bincount(video)
    if not (fitted := int((share >= max(fitted_to.share / 2, 1e-9)).sum())):
        return []
    found = f"the anonymizer was fitted to {fitted} of the test subjects' {len(names)} videos"
    return [f"{found}: what is found of them doesn't hold for other people; fit it to training subjects"]


def _attribute_parts(
    inputs: AuditInputs,
    options: AuditOptions,
    inverters: Mapping[str, Inverter],
    *,
    served: AttackData | None,
    serve: ArrayMap | None,
    device: torch.device | str,
    workers: int,
) -> dict[str, Any]:
    """The parts of the evidence that are about attributes."""
    raw = inputs.raw
    with (
        _processes(workers, device) as executor,
        progress_bar(desc="attacks", unit="fit", dynamic_ncols=True) as progress,
    ):
        campaign = Campaign(options.families, options.seeds, options.max_train_rows, "row", device, progress, executor)
        progress.total = len(options.gate_families) + num_fits(
            campaign,
            with_raw=raw is not None,
            with_anonymizer=serve is not None,
            with_served=served is not None,
            set_attackers=options.set_families,
            with_names=bool(inputs.keys),
        )
        attacked = run_threat_models(
            inputs, campaign, inverters=inverters, served=served, serve=serve, set_attackers=options.set_families
        )
        semi_informed = next(one.attack for one in attacked.attacks if one.name == "semi-informed")
        gated = inputs.released if raw is None else raw
        shuffling = dataclasses.replace(campaign, attackers=options.gate_families, seeds=options.gate_seeds)
        shuffled = shuffling.run_together([shuffled_labels(gated, seed=seed) for seed in options.gate_seeds])
        curve, lengths = [], {}
        if not options.attributes_only:
            kinds = {"released": inputs.released} | ({} if raw is None else {"raw": raw})
            curve = learning_curve(
                inputs.released,
                inputs.questions,
                options.curve_families,
                campaign,
                options.num_resamples,
                whole=semi_informed,
            )
            lengths = code_lengths(kinds, inputs.questions, campaign)

    evaluator = Evaluator(
        questions=inputs.questions,
        prior=metrics.prevalences(inputs.released.train.labels),
        num_resamples=options.num_resamples,
        num_swaps=max(options.num_swaps, SWAPS_PER_TEST * (1 + len(SETS)) * len(inputs.attributes)),
        margin=options.margin,
        truth=Truth.of(inputs.attributes, inputs.values, inputs.people) if inputs.values else None,
    )
    released = {unit: attacked.released(unit) for unit in attacked.units}
    on_raw = {unit: AttackScore.of(attack, evaluator) for unit, attack in attacked.raw.items()}
    reference = {unit: attacked.reference(None, unit) for unit in attacked.raw}
    on_reference = {
        unit: on_raw[unit] if attack is attacked.raw[unit] else AttackScore.of(attack, evaluator)
        for unit, attack in reference.items()
    }
    on_released = {unit: AttackScore.of(attack, evaluator) for unit, attack in released.items()}
    strongest = {
        unit: evaluator.evaluate_scored(attack, on_released[unit], on_reference.get(unit), beside=True)
        for unit, attack in released.items()
    }
    return {
        "attributes": tuple(_attributes(inputs)),
        "families": _described({**ATTACKERS, **SET_ATTACKERS}, (*options.families, *options.set_families)),
        "rungs": tuple(_results(attacked, evaluator, on_raw, on_reference)),
        "raw": {
            unit: evaluator.evaluate_scored(attack, on_raw[unit], on_raw[unit], beside=True)
            for unit, attack in attacked.raw.items()
        },
        "strongest": strongest,
        "headline": headline(
            {unit: score for unit, score in on_reference.items() if unit in on_released},
            on_released,
            (AttackScore.of(semi_informed, evaluator), on_raw.get("clip")),
            strongest,
            inputs.attributes,
            inputs.questions.mean(inputs.personal.astype(float)) > 0,
        ),
        "gates": (
            gates.attackers_gate(
                "attackers succeed on raw features", attacked.raw.get("clip"), True, options.num_resamples
            ),
            gates.attackers_gate("attackers fail on shuffled labels", shuffled, False, options.num_resamples),
        ),
        "learning_curve": tuple(curve),
        "code_length": lengths,
        "names": _names(attacked, evaluator, on_raw),
    }


def _identity_parts(inputs: AuditInputs, linkage: Mapping[str, Any], options: AuditOptions) -> dict[str, Any]:
    """The same where there is no attribute: who links, and nothing else."""
    return {
        "attributes": (),
        "families": {},
        "rungs": (),
        "raw": {},
        "strongest": {},
        "headline": linking_headline(linkage, options.margin),
        "gates": (linking_gate(linkage.get("raw to raw"), gates.power_of_test(inputs)),),
        "learning_curve": (),
        "code_length": {},
        "names": Names.of(inputs.keys, inputs.released).record() | {"without": {}} if inputs.keys else {},
    }


def _beyond_attributes(
    inputs: AuditInputs,
    options: AuditOptions,
    inverters: Mapping[str, Inverter],
    serve: ArrayMap | None,
    anonymizer: Anonymizer | None,
) -> dict[str, dict[str, Any]]:
    """The parts of the evidence that ask for no attribute."""
    if options.attributes_only:
        return {"linkage": {}, "inversion": {}, "membership": {}, "singling_out": {}}
    return {
        "linkage": linked_people(inputs, serve=serve, num_resamples=options.num_resamples),
        "inversion": inverted(inputs, inverters, num_resamples=options.num_resamples),
        "membership": members(
            inputs, anonymizer=anonymizer, num_resamples=options.num_resamples, seed=options.seeds[0]
        ),
        "singling_out": singled_out(inputs, anonymizer=anonymizer, seed=options.seeds[0]),
    }


def _names(attacked: ThreatModelAttacks, evaluator: Evaluator, on_raw: Mapping[str, AttackScore]) -> dict[str, Any]:
    """What names reveal, and beside it how much leaks to attackers that do not read them."""
    if attacked.names is None:
        return {}
    without = {}
    for unit in attacked.units:
        score = AttackScore.of(attacked.released(unit, with_names=False), evaluator)
        value, drawn = score.share_of(on_raw.get(unit), mean=True)
        without[unit] = estimated(value, drawn, chance=0.0)
    return {**attacked.names.record(), "without": without}


def _results(
    attacked: ThreatModelAttacks,
    evaluator: Evaluator,
    on_raw: Mapping[str, AttackScore],
    on_reference: Mapping[str, AttackScore],
) -> Iterator[ThreatModelResult]:
    for one in attacked.attacks:
        if one.attack is None:
            yield ThreatModelResult(one.name, KNOWS[one.name], one.unit, one.skipped, {}, None)
        else:
            raw = (on_reference if attacked.reads_names(one.name) else on_raw).get(one.unit)
            found = evaluator.evaluate_scored(one.attack, AttackScore.of(one.attack, evaluator), raw)
            yield ThreatModelResult(
                one.name, KNOWS[one.name], one.unit, "", attacker_table(one.attack, evaluator.questions), found
            )


def _attributes(inputs: AuditInputs) -> Iterator[dict[str, Any]]:
    shares = {name: metrics.prevalences(rows.labels) for name, rows in inputs.released.splits.items()}
    personal, questions = inputs.personal, inputs.questions
    for name in questions.attributes:
        asked = questions.of(name)
        yield {
            "name": name,
            "kind": questions.kinds[name],
            "personal": bool(personal[asked].all()),
            "prevalence": {split: float(share[asked].mean()) for split, share in shares.items()},
            "questions": [
                {"name": questions.names[q], "prevalence": {split: float(share[q]) for split, share in shares.items()}}
                for q in asked
            ],
        }


def _counts(rows: Any) -> dict[str, int]:
    return {"clips": len(rows), "videos": len(np.unique(rows.videos)), "persons": len(np.unique(rows.clusters))}


def _described(table: Mapping[str, AttackerSpec], names: tuple[str, ...]) -> dict[str, Any]:
    """The options that each family is built with."""
    found = {}
    for name in names:
        attacker = table[name].build()
        parameters = [n for n in inspect.signature(type(attacker)).parameters if n not in ("seed", "device")]
        found[name] = {
            "class": type(attacker).__name__,
            "stochastic": table[name].stochastic,
            "options": {parameter: getattr(attacker, parameter) for parameter in parameters},
        }
    return found


@contextmanager
def _processes(workers: int, device: torch.device | str) -> Iterator[Executor | None]:
    """Processes to train attackers in; none where one will do, or on a GPU, which one process fills."""
    if workers < 2 or torch.device(device).type != "cpu":
        yield None
        return
    with worker_processes(workers, _alone) as executor:
        yield executor


def _alone() -> None:
    """One thread a process: several processes, each with a thread a core, are slower than one."""
    torch.set_num_threads(1)
