"""The sections of a report: its tables and the sentences around them, in Markdown. `run_report` gathers the values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from splavu.errors import as_markdown
from splavu.reports.markdown import interval, markdown_table, number, percent
from splavu.reports.plotting import ALONE, BATCH

GATE_STATES = {True: "passed", False: "**FAILED**", None: "**undecided**, too few test subjects"}


@dataclass
class Configuration:
    """One kind of features and what is known of it: raw, or anonymized in one way."""

    label: str
    colour: str
    top1: float | None = None
    """Of a fresh head on the test split."""
    head_cmap: float | None = None
    """Of a fresh head for private attributes on the test split: one attacker, without an interval."""
    detection: dict[str, Any] | None = None
    """What a fresh TriDet reached on the test split: average_map, and map by tIoU."""
    anomaly: dict[str, Any] | None = None
    """What a fresh MGFN reached on the test list: roc_auc, pr_auc, and the best test epoch's."""
    privacy: dict[str, Any] = field(default_factory=dict)
    """View -> the mean entry of a released evaluation: ap, interval, chance, leakage."""
    sources: list[str] = field(default_factory=list)
    """Run folders that the numbers are from."""


def headline(configurations: Sequence[Configuration], views: Sequence[str]) -> str:
    """The main results in sentences: of raw features, and of each anonymizer."""
    raw, *others = configurations
    sentences = []
    if raw.top1 is not None and "temporal" in raw.privacy:
        found = raw.privacy["temporal"]
        sentences.append(
            f"Raw features name the action of an unseen person in {raw.top1:.1%} of videos, and give an attacker "
            f"{found['ap']:.1%} cMAP on private attributes where chance is {found['chance']:.1%}."
        )
    served = [c for c in others if c.colour == ALONE and c.top1 is not None and views and views[0] in c.privacy]
    for configuration in served:
        leaks = " and ".join(f"{c['leakage']:.0%} of it on {view} clips" for view, c in configuration.privacy.items())
        sentences.append(
            f"After {configuration.label.split(',')[0]} the accuracy is {configuration.top1:.1%}, and of what could be "
            f"learned about people a newly trained attacker still learns {leaks}."
        )
    return " ".join(sentences) + "\n" if sentences else ""


def summary_table(configurations: Iterable[Configuration], views: Sequence[str]) -> str:
    """Utility and leakage, a configuration a row, in Markdown."""
    configurations = list(configurations)
    with_head = any(configuration.head_cmap is not None for configuration in configurations)
    with_detection = any(configuration.detection for configuration in configurations)
    with_anomaly = any(configuration.anomaly for configuration in configurations)
    header = (
        ["features", "top-1"] + ["head cMAP"] * with_head + ["TAD mAP"] * with_detection + ["AD AUC"] * with_anomaly
    )
    for view in views:
        header += [f"{view} cMAP", f"{view} leakage"]
    rows = []
    for configuration in configurations:
        row = [configuration.label, percent(configuration.top1)]
        if with_head:
            row.append(percent(configuration.head_cmap))
        if with_detection:
            row.append(percent(configuration.detection["average_map"] if configuration.detection else None))
        if with_anomaly:
            row.append(percent(configuration.anomaly["roc_auc"] if configuration.anomaly else None))
        for view in views:
            found = configuration.privacy.get(view)
            row.append("" if found is None else f"{percent(found['ap'])} {interval(found['interval'], 100, 1)}")
            leakage = "" if found is None else number(found["leakage"])
            if found is not None and "leakage_interval" in found:
                leakage += f" {interval(found['leakage_interval'], 1, 2)}"
            row.append(leakage)
        rows.append(row)
    chance = {view: c.privacy[view]["chance"] for c in configurations for view in views if view in c.privacy}
    if chance:
        last = ["chance", ""] + [""] * with_head + [""] * with_detection + ["50.0"] * with_anomaly
        for view in views:
            last += [percent(chance.get(view)), "0.00"]
        rows.append(last)
    return markdown_table(header, rows)


DETECTION_SECTION = """A fresh TriDet, trained and tested on the features in question: mean average precision, by
the overlap (tIoU) from which a detection is right, and its average over the five. "A video as one sequence" lets the
steps of a video attend to one another, as in co-training; "one feature at a time" does not. One training each: another
seed moves the figures by a point or two.
"""


def detection_table(configurations: Iterable[Configuration]) -> str:
    """mAP by tIoU, a configuration a row; empty if there are none."""
    found = {c.label: c.detection for c in configurations if c.detection is not None}
    if not found:
        return ""
    tious = list(next(iter(found.values()))["map"])
    rows = [
        [label, *(percent(judged["map"][tiou]) for tiou in tious), percent(judged["average_map"])]
        for label, judged in found.items()
    ]
    return markdown_table(["features", *(f"tIoU {tiou}" for tiou in tious), "average"], rows)


ANOMALY_SECTION = """A fresh MGFN, trained on videos of which only "normal" or "abnormal" is known, and tested by
frame. "Best test epoch" is what the literature reports: chosen on the test set and therefore too high. One training
each: another seed moves such figures by several points, and differences of that size mean nothing.
"""


def anomaly_table(configurations: Iterable[Configuration]) -> str:
    """Frame-level figures, a configuration a row; empty if there are none."""
    rows = [
        [
            c.label,
            percent(c.anomaly["roc_auc"]),
            percent(c.anomaly["pr_auc"]),
            _epoch(c.anomaly["chosen"]),
            percent((c.anomaly.get("best_test_epoch") or {}).get("roc_auc")),
        ]
        for c in configurations
        if c.anomaly is not None
    ]
    return markdown_table(["features", "AUC", "PR-AUC", "epoch", "AUC, best test epoch"], rows) if rows else ""


def _epoch(chosen: Mapping[str, Any]) -> str:
    return f"{chosen['epoch']}, {'chosen on validation videos' if 'auc' in chosen else 'the last'}"


BATCH_SECTION = """## Why it matters how features are anonymized

The reference implementation feeds a batch of B features to attention as one sequence, so that every anonymized feature
is a mixture of whatever else is in its batch. The same checkpoint, twice: judged inside its batch, as published numbers
are, and one feature at a time, as a stored feature is used. Only the second is a property of the feature.
"""


def twin(configuration: Configuration, configurations: Iterable[Configuration]) -> bool:
    """Whether the same anonymizer is also judged in its batch."""
    name = configuration.label.split(",")[0]
    return configuration.label == "raw features" or any(
        other.colour == BATCH and other.label.split(",")[0] == name for other in configurations
    )


def attribute_table(view: str, judged: Mapping[str, Any]) -> str:
    """Average precision and leakage, an attribute a row, of one view of a released evaluation."""
    rows = []
    for name, entry in {**judged["attributes"], "**mean (cMAP)**": judged["mean"]}.items():
        cells = [name]
        for which in ("raw", "anonymized"):
            found = entry.get(which)
            cells.append("" if found is None else f"{percent(found['ap'])} {interval(found['interval'], 100, 1)}")
        cells += [
            percent(entry["chance"]),
            f"{number(entry['leakage'])} {interval(entry['leakage_interval'], 1, 2)}",
        ]
        cells.append(entry.get("anonymized", entry["raw"]).get("attacker", ""))
        rows.append(cells)
    people = judged["subjects"]
    title = (
        f"**{as_markdown(view)} clips**: {judged['rows']['test']} features of {people['test']} test subjects; "
        f"attackers were trained on {judged['train_rows_used']} features of {people['train']} others.\n"
    )
    return (
        title + "\n" + markdown_table(["attribute", "raw AP", "anonymized AP", "chance", "leakage", "strongest"], rows)
    )


def gates(result: Mapping[str, Any]) -> str:
    """What an evaluation asked of itself, and whether it held."""
    lines = [
        f"- {GATE_STATES[gate['passed']]}: {as_markdown(gate['view'])} clips, {as_markdown(gate['claim'])} "
        f"(cMAP {percent(gate['cmap'])}, chance {percent(gate['chance'])})"
        for gate in result["gates"]
    ]
    return "Gates:\n\n" + "\n".join(lines) + "\n"


def paper_protocol_table(name: str, result: Mapping[str, Any]) -> str:
    """The result of the paper protocol, with its warning."""
    warning = result["protocol"].get("warning", "")
    rows = []
    for which in ("raw", "anonymized"):
        if found := result.get(which):
            rows.append([which, percent(found["cmap"]), percent(found.get("last_epoch_cmap"))])
    return f"{as_markdown(name)}. {as_markdown(warning)}\n\n" + markdown_table(
        ["features", "cMAP, best test epoch", "cMAP, last epoch"], rows
    )
