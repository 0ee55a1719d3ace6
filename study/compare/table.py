"""The table of a comparison: for people (Markdown), for other programs (CSV, JSON), and its notes.

Note: a cell with '-' has no number yet, or none can be had; the notes say which and why.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from splavu.attacks.rows import json_values
from splavu.audit.attributes.units import UNITS
from splavu.metrics.estimates import Interval
from splavu.reports.markdown import markdown_table
from study.compare.costs import TIMED_ROWS
from study.compare.plan import Comparison, Entry, TaskName
from study.compare.results import (
    LINKED,
    LOST,
    PAIRINGS,
    REDUCTION,
    ComparisonRow,
    Linked,
    Privacy,
    TargetVerdict,
    TaskScore,
    judge,
)
from study.experiments.runner import Outcome

TITLES: Mapping[TaskName, str] = {"ar": "AR top-1", "tad": "TAD mAP", "ad": "AD AUC"}
NONE = "-"
SHORTLY = dict(zip(PAIRINGS, ("", ", pairs of clips", ", to raw"), strict=True))
"""Pairing -> how a cell says it."""


def comparison_table(rows: Sequence[ComparisonRow], comparison: Comparison) -> str:
    """The table, a line a row."""
    titles = [TITLES[task] for task in comparison.tasks]
    header = ["anonymizer", "reduction", "by unit", "protected least", "rank-1", "worst rank-1", *titles]
    header += ["bits: budget", "most told", "sum", "vectors", "made in, s", "numbers", "us a feature", "targets"]
    return markdown_table(header, [_line(row, comparison.tasks) for row in rows])


def _line(row: ComparisonRow, tasks: Sequence[TaskName]) -> list[str]:
    line = [row.name]
    if row.privacy is None:
        line += [NONE] * 5
    else:
        found = row.privacy
        line.append(_share(found.reduction) + (f", by {found.unit}" if found.unit else ""))
        line.append(", ".join(f"{unit} {_share(span)}" for unit, span in found.by_unit.items()) or NONE)
        least = found.least_protected
        line.append(NONE if least is None else f"{least[0]} by {least[1]}, {_share(least[2])} left")
        line += [_linked(found.linked), _linked(found.worst_linked)]
    line += [_use(row.uses[task], is_raw=_is_raw(row)) if task in row.uses else NONE for task in tasks]
    made, told = row.made, row.privacy
    budget = "no bound" if made is not None else NONE
    line.append(f"{made.budget:.2f}" if made is not None and made.budget is not None else budget)
    flag = " OVER BUDGET" if row.over_budget else ""
    line += [NONE, NONE] if told is None else [_number(told.most_bits, 2) + flag, _number(told.sum_of_bits, 2)]
    line.append(NONE if made is None or made.distinct is None else str(made.distinct))
    line += [NONE] * 3 if made is None else [_number(made.seconds, 1), f"{made.numbers:,}", f"{made.microseconds:.2f}"]
    return [*line, "" if _is_raw(row) else verdict_in_words(judge(row, tasks), row)]


def _is_raw(row: ComparisonRow) -> bool:
    return row.name == "raw"


def verdict_in_words(verdict: TargetVerdict, row: ComparisonRow) -> str:
    """What a cell says of the targets."""
    said = ["met"] if verdict.met else []
    said += [f"missed: {', '.join(verdict.missed)}"] if verdict.missed else []
    said += [f"open: {', '.join(verdict.pending)}"] if verdict.pending else []
    if verdict.met and row.privacy.worst_linked.reduction < LINKED:
        said.append("but not by the worst rank-1")
    return "; ".join(said)


def notes(
    rows: Sequence[ComparisonRow], entries: Sequence[Entry], comparison: Comparison, outcomes: Mapping[str, Outcome]
) -> list[str]:
    """What a reader of the table must know, a line each."""
    setting = comparison.setting
    where = "the roots of config.py" if setting.data_root is None else setting.data_root
    others = "".join(f"; of {e.name} {_listed(e.seeds)}" for e in entries[1:] if e.seeds != comparison.p.seeds)
    said = [
        f"Data: {setting.ar_dataset} by {setting.ft_arch}, {where}. Seeds {_listed(comparison.p.seeds)}{others}.",
        f"Audits: full, an audit a seed, attackers that draw trained with {comparison.p.audit_seeds} seeds in each. "
        "Names are not read: they end with anonymize --keys secret.",
        f"reduction: %, of the excess over chance under the strongest attackers, by the unit at which least is removed"
        f"{_covered(rows)}. by unit: the same for every unit. protected least: of all attributes and units, that of "
        "which the largest share is left. [95 % intervals over test subjects and audits, which draw the same test "
        "subjects; they hold for all units, or all attributes and units, at once.]",
        "rank-1: % of videos whose nearest other video is of the same person, within the release (in brackets the "
        "reduction of its excess over chance, %). worst rank-1: by the worst of: within the release, its best pair of "
        "clips, from raw to released features.",
        "Tasks: %, mean over seeds [least, most], then the difference to raw features of the same seed in points, and "
        "from three seeds on (Student's 95 % interval over seeds; test videos are taken as they are).",
        "bits: the budget of a clip by architecture; usable bits that the audit measured about the attribute of which "
        "most is told, and their sum over attributes. More than the budget about one attribute can't be: the "
        "calibration of an attacker is at fault, or the sample is small. Their sum may be more, where attributes go "
        "together. vectors: that differ in the released test store.",
        "made in: seconds of the whole command, with Python's start; of one that was killed, since it went on. us a "
        f"feature: of {TIMED_ROWS} rows at once, one thread, the best of several.",
        f"targets: reduction at least {100 * REDUCTION:g} %, the excess of rank-1 within the release reduced by at "
        f"least {100 * LINKED:g} %, each task within {100 * LOST:g} points of raw features; missed by points of these, "
        "by the means.",
    ]
    if comparison.quick:
        said.insert(0, "QUICK AUDITS: three families of attackers and one seed. A first look, no decision.")
    said += [f"{TITLES[task]} was left out: {path} isn't there." for task, path in comparison.left_out.items()]
    said += [
        f"GATE FAILED OR UNDECIDED, {row.name}, not to be relied on: {'; '.join(row.privacy.failed_gates)}"
        for row in rows
        if row.privacy is not None and row.privacy.failed_gates
    ]
    for job, outcome in outcomes.items():
        if outcome.state in ("failed", "not run") and outcome.detail:
            said.append(f"{job}: {outcome.state}: {outcome.detail}")
    waiting = sum(outcome.state == "not run" and not outcome.detail for outcome in outcomes.values())
    return [*said, *([f"{waiting} of {len(outcomes)} jobs haven't been run yet."] if waiting else [])]


def _covered(rows: Sequence[ComparisonRow]) -> str:
    """Which attributes the reduction is over."""
    found = next((row.privacy for row in rows if row.privacy is not None and row.privacy.attributes), None)
    if found is None:
        return ""
    return f", over {len(found.attributes)} of {found.num_attributes} attributes ({', '.join(found.attributes)})"


def as_csv(rows: Sequence[ComparisonRow], tasks: Sequence[TaskName]) -> str:
    """A line a row; shares and differences of shares, not per cent. Empty where there is no number."""
    lines = io.StringIO()
    records = [_record(row, tasks) for row in rows]
    writer = csv.DictWriter(lines, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in record.items()} for record in records)
    return lines.getvalue()


def as_json(
    rows: Sequence[ComparisonRow], entries: Sequence[Entry], comparison: Comparison, outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    """Everything, null for what isn't known."""
    return json_values(
        {
            "params": dataclasses.asdict(comparison.p),
            "data": comparison.data,
            "quick": comparison.quick,
            "left_out": comparison.left_out,
            "targets": {"reduction": REDUCTION, "rank1": LINKED, "lost": LOST},
            "rows": [
                {
                    **dataclasses.asdict(row),
                    "seeds": entry.seeds,
                    "over_budget": row.over_budget,
                    "verdict": None if _is_raw(row) else dataclasses.asdict(judge(row, comparison.tasks)),
                    "jobs": entry.jobs,
                }
                for row, entry in zip(rows, entries, strict=True)
            ],
            "outcomes": {name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()},
            "notes": notes(rows, entries, comparison, outcomes),
        }
    )


def _record(row: ComparisonRow, tasks: Sequence[TaskName]) -> dict[str, Any]:
    found: Privacy | None = row.privacy
    nothing = Interval(math.nan)
    record: dict[str, Any] = {"anonymizer": row.name}
    least = None if found is None else found.least_protected
    spans = {"reduction": nothing if found is None else found.reduction}
    spans |= {f"reduction_by_{unit}": nothing if found is None else found.by_unit.get(unit, nothing) for unit in UNITS}
    spans["most_left"] = nothing if least is None else least[2]
    for name, span in spans.items():
        record |= {name: span.value, f"{name}_low": span.low, f"{name}_high": span.high}
    record["unit"] = None if found is None else found.unit
    record["protected_least"] = None if least is None else f"{least[0]} by {least[1]}"
    for name, linked in (
        ("rank1", None if found is None else found.linked),
        ("worst_rank1", None if found is None else found.worst_linked),
    ):
        record |= {
            name: None if linked is None else linked.rank1,
            f"{name}_chance": None if linked is None else linked.chance,
            f"{name}_reduction": None if linked is None else linked.reduction,
        }
    record["worst_pairing"] = None if found is None else found.worst_linked.pairing
    for task in tasks:
        use = row.uses.get(task)
        span = nothing if use is None else use.difference
        record |= {task: None if use is None else use.mean, f"{task}_seeds": None if use is None else len(use.by_seed)}
        record |= {f"{task}_difference": span.value, f"{task}_low": span.low, f"{task}_high": span.high}
    record |= {
        "budget_bits": None if row.made is None else row.made.budget,
        "most_bits": None if found is None else found.most_bits,
        "most_told": None if found is None else found.most_told,
        "sum_of_bits": None if found is None else found.sum_of_bits,
        "over_budget": row.over_budget,
        "vectors": None if row.made is None else row.made.distinct,
        "seconds": None if row.made is None else row.made.seconds,
        "numbers": None if row.made is None else row.made.numbers,
        "microseconds": None if row.made is None else row.made.microseconds,
        "gate_failed": found is not None and bool(found.failed_gates),
        "targets": "" if _is_raw(row) else verdict_in_words(judge(row, tasks), row),
    }
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _share(span: Interval) -> str:
    if math.isnan(span.value):
        return NONE
    interval = "" if math.isnan(span.low) else f" [{100 * span.low:.0f}, {100 * span.high:.0f}]"
    return f"{100 * span.value:.0f}{interval}"


def _linked(linked: Linked) -> str:
    if math.isnan(linked.rank1):
        return NONE
    pairings = linked.pairing.split("; ")
    told = SHORTLY.get(pairings[0], "") if len(pairings) == 1 else ", of several"
    return f"{100 * linked.rank1:.1f} ({_number(100 * linked.reduction, 0)}){told}"


def _use(use: TaskScore, *, is_raw: bool) -> str:
    values = list(use.by_seed.values())
    said = f"{100 * use.mean:.1f}"
    if len(values) > 1:
        said += f" [{100 * min(values):.1f}, {100 * max(values):.1f}]"
    if is_raw or math.isnan(use.difference.value):
        return said
    span = use.difference
    interval = "" if math.isnan(span.low) else f" ({100 * span.low:+.1f} to {100 * span.high:+.1f})"
    return f"{said} {100 * span.value:+.1f}{interval}"


def _number(value: float, digits: int) -> str:
    return NONE if math.isnan(value) else f"{value:.{digits}f}"
