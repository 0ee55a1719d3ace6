"""The release protocol: what an attacker could predict from the features that are stored and shared.

The anonymizer gets one feature at a time. New attackers are trained on anonymized features of some subjects, tuned on
others, and tested once on the test subjects. Raw features are attacked in exactly the same way: leakage is the share of
their AP above chance that is left.

Note: chance is the prevalence of an attribute among the test rows, but with few subjects even a random ranking scores a
little more. So "beats chance" also asks for more than the same scores give when labels are permuted between test
subjects (`splavu.attacks.gates`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from splavu.anonymizers.apply import Serving
from splavu.attackers import DEFAULT_ATTACKERS, attacker_names
from splavu.attacks.campaign import Campaign, Level, judged, judged_units
from splavu.attacks.gates import Power, gate, in_words, numbers_in_words, power_of
from splavu.attacks.rows import AttackData, json_values, rounded, shuffled_labels
from splavu.errors import UserError
from splavu.metrics.protocols import PROTOCOLS
from splavu.runtime.progress import progress_bar

MIXED = "Features were anonymized in batches, in file order: features released one at a time are different."


def evaluate_by_release_protocol(
    raw: Mapping[str, AttackData],
    anonymize: Callable[[np.ndarray], np.ndarray] | None,  # [N, D] -> [N, D]
    *,
    attributes: Sequence[str],
    attackers: Sequence[str] = DEFAULT_ATTACKERS,
    seeds: Sequence[int] = (0, 1, 2),
    num_resamples: int = 1000,
    max_train_rows: int = 20_000,
    level: Level = "row",
    served: Serving = "alone",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Attack released features, and the raw ones that they were made from, in the same way.

    For each view, attribute and representation the strongest attacker is the one with the best validation average
    precision over the seeds; its test average precision is reported. Two gates must hold on raw features for each view:
    the strongest attackers beat chance, and don't when labels are permuted between subjects.

    Args:
        raw: View ('static', 'temporal') -> raw features. Labels of all views have the same attributes.
        anonymize: Called once per split and view; None evaluates raw features only, leakage is then 1.
        attributes: Names of the A columns of the labels.
        attackers: Names from `ATTACKERS`.
        seeds: Stochastic attackers, the permutation of labels and the draw of training rows are repeated with each;
            results are means over seeds, intervals resample subjects and seeds.
        num_resamples: Bootstrap resamples of the test subjects.
        max_train_rows: More training rows than this are thinned at random, and the result says so.
        level: 'row' evaluates each anonymized feature, 'video' the mean score of a video's features.
        served: 'alone': `anonymize` gives each row the value that it has alone, which is checked. 'batch' says that it
            may mix rows: only to show how far such numbers are from those of a release; the result has a warning.
        device: Where attackers compute.

    Returns:
        JSON values, None for what is undefined; precisions are between 0 and 1. `valid` is False when a gate failed, or
        is undecided because the test subjects are too few.

    Raises:
        UserError: Unknown attacker; another number of attributes than the labels have; `anonymize` gives a feature
            another value in a batch than alone, or values that are not finite.
    """
    started = time.perf_counter()
    protocol = PROTOCOLS["release"]
    if served == "batch":
        protocol = dataclasses.replace(protocol, served="batch", warning=MIXED)
    attackers = attacker_names(attackers)
    for view, data in raw.items():
        if data.test.labels.shape[1] != len(attributes):
            raise UserError(view, f"has {data.test.labels.shape[1]} attributes, named are {len(attributes)}")
        if anonymize is not None and served == "alone":
            check_served_alone(anonymize, data.test.features)

    runs = (2 if anonymize is None else 3) * len(raw) * len(seeds) * len(attackers)
    views, gates = {}, []
    with progress_bar(total=runs, desc="attacks", unit="fit", dynamic_ncols=True) as progress:
        for view, data in raw.items():
            campaign = Campaign(tuple(attackers), tuple(seeds), max_train_rows, level, device, progress)
            attacks = {"raw": campaign.run([data] * len(seeds))}
            if anonymize is not None:
                attacks["anonymized"] = campaign.run([data.mapped(finite(anonymize))] * len(seeds))
            swapped = campaign.run([shuffled_labels(data, seed=seed) for seed in seeds])
            views[view] = {
                **judged(attacks, attributes, num_resamples),
                "rows": {name: len(rows) for name, rows in data.splits.items()},
                "subjects": {name: len(np.unique(rows.clusters)) for name, rows in data.splits.items()},
                "train_rows_used": min(len(data.train), max_train_rows),
                "attacker_table": {name: attack.table() for name, attack in attacks.items()},
            }
            gates.append(gate(view, "raw features are attacked above chance", attacks["raw"], True, num_resamples))
            gates.append(gate(view, "swapped labels are not", swapped, False, num_resamples))
    return json_values(
        {
            "protocol": dataclasses.asdict(protocol),
            "valid": all(gate["passed"] for gate in gates),
            "gates": gates,
            "raw_only": anonymize is None,
            "attributes": list(attributes),
            "attackers": list(attackers),
            "seeds": list(seeds),
            "num_resamples": num_resamples,
            "max_train_rows": max_train_rows,
            "level": level,
            "views": views,
            "seconds": round(time.perf_counter() - started, 1),
        }
    )


def powers(raw: Mapping[str, AttackData], level: Level) -> dict[str, Power]:
    """View -> what its test subjects can decide, known before anything is trained."""
    return {view: power_of(*judged_units(data.test, level)) for view, data in raw.items()}


def finite(anonymize: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """`anonymize`, refused where it gives NaN or infinity: attackers that fail on NaN would look like privacy."""

    def checked(features: np.ndarray) -> np.ndarray:
        served = anonymize(features)
        if bad := int((~np.isfinite(served)).any(axis=1).sum()):
            raise UserError("anonymizer", f"gives values that are not finite for {bad} of {len(served)} features")
        return served

    return checked


def check_served_alone(anonymize: Callable[[np.ndarray], np.ndarray], features: np.ndarray) -> None:
    """Refuse an anonymizer whose output for a row depends on the other rows of its batch."""
    batch = features[:4]
    alone = np.concatenate([anonymize(row[None]) for row in batch])
    with np.errstate(invalid="ignore"):  # infinities are counted later
        gap = float(np.abs(anonymize(batch) - alone).max())
    if gap > 1e-4 * float(np.abs(alone).max()):
        raise UserError(
            "anonymizer",
            f"gives a feature another value in a batch than alone (they differ by {gap:.3g})",
            "anonymize rows one by one, or set served = 'batch'",
        )


def format_table(result: Mapping[str, Any]) -> str:
    """The result for a terminal: per cent, 95% intervals in brackets, '-' where undefined."""
    lines = []
    for view, found in result["views"].items():
        rows, subjects = found["rows"]["test"], found["subjects"]["test"]
        served = "one feature at a time" if result["protocol"]["served"] == "alone" else "ANONYMIZED IN BATCHES"
        unit = "videos" if result["level"] == "video" else "features"
        lines.append(f"{view}: release protocol, {served}, by {unit}; {rows} test features of {subjects} subjects")
        if found["train_rows_used"] < found["rows"]["train"]:
            lines.append(
                f"  attackers were trained on {found['train_rows_used']} of {found['rows']['train']} training rows"
            )
        lines.append(f"  {'attribute':<21}  {'raw AP':<20}  {'anonymized AP':<20}  {'chance':>6}  leakage")
        entries = {**found["attributes"], "mean (cMAP)": found["mean"]}
        for name, entry in entries.items():
            released = entry.get("anonymized")
            lines.append(
                f"  {name:<21}  {_percent(entry['raw']):<20}  {_percent(released) if released else 'none':<20}  "
                f"{rounded(entry['chance'], 100, 1):>6}  "
                f"{rounded(entry['leakage'], 1, 2)} {_bracket(entry['leakage_interval'], 1, 2)}"
            )
        if found["left_out"]:
            lines.append(f"  left out, only one class in the test: {', '.join(found['left_out'])}")
        lines.append("")
    lines.append("leakage: 0 no better than chance, 1 as much as raw features" + ("; raw only" * result["raw_only"]))
    for found in result["gates"]:
        lines.append(f"{in_words(found)}  {found['view']}: {found['claim']} ({numbers_in_words(found)})")
    if result["protocol"]["warning"]:
        lines.append(f"warning: {result['protocol']['warning']}")
    lines.append(
        f"{len(result['seeds'])} seeds, {result['num_resamples']} resamples of subjects, {result['seconds']:.0f} s"
    )
    return "\n".join(lines)


def _percent(entry: Mapping[str, Any]) -> str:
    return f"{rounded(entry['ap'], 100, 1)} {_bracket(entry['interval'], 100, 1)}"


def _bracket(interval: Sequence[float | None], factor: float, digits: int) -> str:
    return f"[{rounded(interval[0], factor, digits)}, {rounded(interval[1], factor, digits)}]"
