"""Run folders -> report.md, figures and metrics.json: what was kept, what leaks, and how both were measured.

Nothing is computed here that a run didn't write; a number in the report can be followed to the file it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from splavu import figures as draw
from splavu.errors import UserError
from splavu.figures import ALONE, BATCH, RAW
from splavu.runs import write_text


@dataclass
class Configuration:
    """One kind of features and what is known of it: raw, or an anonymizer served in one way."""

    label: str
    colour: str
    top1: float | None = None
    """Of a fresh head on the test split."""
    detection: dict[str, Any] | None = None
    """What a fresh TriDet reached on the test split: average_map, and map by tIoU."""
    anomaly: dict[str, Any] | None = None
    """What a fresh MGFN reached on the test list: roc_auc, pr_auc, and the best test epoch's."""
    privacy: dict[str, Any] = field(default_factory=dict)
    """View -> the mean entry of a released evaluation: ap, interval, chance, leakage."""
    sources: list[str] = field(default_factory=list)
    """Run folders that the numbers are from."""


SERVED = {"alone": "served alone", "batch": "in its batch", "video": "a video as one sequence"}
"""What an anonymizer saw when it made the features, in words."""


class Report(NamedTuple):
    """Where a report is, and its main table, for the terminal."""

    path: Path
    table: str


def write_report(folder: str | Path, *, data: str | Path | None = None) -> Report:
    """Gather the runs below `folder` into `folder/report.md`, `folder/metrics.json` and `folder/figures/`.

    Args:
        folder: Holds the run folders, as saved_models/demo does.
        data: Data root whose hmdb51 videos are shown; None shows none.

    Raises:
        UserError: No run with results lies below `folder`.
    """
    folder = Path(folder)
    found = sorted({path.parent for name in PARAMETERS for path in folder.glob(f"*/{name}")})
    runs = {path.name: _read_run(path) for path in found}
    runs = {name: run for name, run in runs.items() if run["results"] or run["privacy"]}
    if not runs:
        raise UserError(folder, "holds no run with results", "train and evaluate first, or name the folder above them")
    configurations = _configurations(runs)
    evaluations = {name: run["privacy"] for name, run in runs.items() if run["privacy"]}
    released = {name: result for name, result in evaluations.items() if _protocol(result) == "released"}

    figures: dict[str, Path] = {}
    places = folder / "figures"
    places.mkdir(exist_ok=True)
    if data is not None and (sheet := draw.frames_of_world(Path(data), places / "world.png")):
        figures["world"] = sheet
    if any(configuration.privacy and configuration.top1 is not None for configuration in configurations):
        figures["plane"] = draw.plane(configurations, places / "plane.png")
    for name, result in released.items():
        figures[f"leakage {name}"] = draw.leakage(result, places / f"leakage_{name}.png")
    histories = {name: run["history"] for name, run in runs.items() if _is_adapter(run)}
    if histories:
        figures["curves"] = draw.curves(histories, places / "curves.png")

    summary = {
        "configurations": [vars(configuration) for configuration in configurations],
        "evaluations": evaluations,
        "heads": {name: run["results"] for name, run in runs.items() if "features" in (run["results"] or {})},
        "runs": {name: {"params": run["params"], "versions": run["versions"]} for name, run in runs.items()},
    }
    write_text(folder / "metrics.json", json.dumps(summary, indent=1) + "\n")
    path = write_text(folder / "report.md", _markdown(folder, configurations, evaluations, runs, figures))
    return Report(path, summary_table(configurations, _views(configurations)))


PARAMETERS = ("params.json", "options.json")
"""Where a run keeps what it was asked for; the second is MGFN's."""


def _read_run(path: Path) -> dict[str, Any]:
    def read(name: str) -> Any:
        file = path / name
        return json.loads(file.read_text()) if file.is_file() else None

    history = path / "metrics.jsonl"
    return {
        "params": next(content for name in PARAMETERS if (content := read(name)) is not None),
        "versions": read("versions.json") or {},
        "results": read("results.json"),
        "privacy": read("metrics.json"),
        "history": [json.loads(line) for line in history.read_text().splitlines()] if history.is_file() else [],
    }


def _is_adapter(run: Mapping[str, Any]) -> bool:
    return any("loss/latent" in record or "loss/privacy" in record for record in run["history"])


def _protocol(result: Mapping[str, Any]) -> str:
    protocol = result["protocol"]
    return protocol["name"] if isinstance(protocol, Mapping) else protocol


def _adapter_of(params: Mapping[str, Any]) -> str | None:
    """Name of the run whose anonymizer was applied; None for raw features."""
    return _name_of(params.get("saved_fa_model")) if params.get("anon", True) else None


def _name_of(checkpoint: str | None) -> str | None:
    return Path(checkpoint).parent.name if checkpoint else None


def _configurations(runs: Mapping[str, Mapping[str, Any]]) -> list[Configuration]:
    """Utility and privacy of the same features, brought together; raw features first."""
    found: dict[tuple[str | None, str], Configuration] = {(None, "alone"): Configuration("raw features", RAW)}

    def of(adapter: str | None, serving: str) -> Configuration:
        key = (adapter, serving if adapter else "alone")
        if key not in found:
            found[key] = Configuration(f"{adapter}, {SERVED[serving]}", BATCH if serving == "batch" else ALONE)
        return found[key]

    for name, run in runs.items():
        params, results = run["params"], run["results"] or {}
        serving = params.get("serving", "alone")
        if "features" in results:
            configuration = of(_adapter_of(params), serving)
            configuration.top1 = results["test"]["top1"]
            configuration.sources.append(name)
        if judged := results.get("tad"):
            configuration = of(_name_of(judged["aam"]), judged["aam_serving"] or "alone")
            configuration.detection = judged
            configuration.sources.append(name)
        if judged := results.get("ad"):
            configuration = of(_name_of(judged["aam"]), judged["aam_serving"] or "alone")
            configuration.anomaly = judged
            configuration.sources.append(name)
        if run["privacy"] and _protocol(run["privacy"]) == "released":
            for view, judged in run["privacy"]["views"].items():
                mean = judged["mean"]
                raw = found[None, "alone"]
                if view not in raw.privacy or "anonymized" not in mean:
                    raw.privacy[view] = {**mean["raw"], "chance": mean["chance"], "leakage": 1.0}
                if "anonymized" in mean:
                    shared = {key: mean[key] for key in ("chance", "leakage", "leakage_interval")}
                    of(_adapter_of(params), serving).privacy[view] = {**mean["anonymized"], **shared}
            of(_adapter_of(params), serving).sources.append(name)
    return list(found.values())


def _markdown(
    folder: Path,
    configurations: Sequence[Configuration],
    evaluations: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Path],
) -> str:
    def picture(name: str, caption: str) -> str:
        return f"![{caption}]({figures[name].relative_to(folder).as_posix()})\n" if name in figures else ""

    views = _views(configurations)
    parts = [f"# {folder.name}: what is kept, what leaks\n"]
    if broken := [name for name, result in evaluations.items() if not result.get("valid", True)]:
        parts.append(f"> **Not valid:** a gate failed in {', '.join(broken)}. Don't use its numbers.\n")
    parts += [_headline(configurations, views), summary_table(configurations, views)]
    parts.append(
        "Utility is the top-1 accuracy of a fresh linear head on unseen subjects. cMAP is the mean average precision "
        "of the strongest attacker for each private attribute: trained afresh on the features in question, tuned on "
        "validation subjects, judged once on test subjects; brackets hold 95 % intervals, clustered by subject. "
        "Leakage is (cMAP - chance) / (raw cMAP - chance): 0 protects, 1 protects nothing.\n"
    )
    parts.append(picture("plane", "Utility against privacy"))
    if any(configuration.colour == BATCH for configuration in configurations):
        parts.append(_BATCH_SECTION)
        parts.append(summary_table([c for c in configurations if c.colour == BATCH or _twin(c, configurations)], views))
    if table := detection_table(configurations):
        parts += ["## Temporal action detection\n", _DETECTION_SECTION, table]
    if table := anomaly_table(configurations):
        parts += ["## Anomaly detection\n", _ANOMALY_SECTION, table]
    if "world" in figures:
        parts += ["## The videos\n", picture("world", "Frames of the videos that were encoded")]
    parts.append("## Leakage by attribute\n")
    for name, result in evaluations.items():
        if _protocol(result) == "released":
            parts += [f"### {name}\n", picture(f"leakage {name}", f"Average precision by attribute, {name}")]
            parts += [_attribute_table(view, judged) for view, judged in result["views"].items()]
            parts.append(_gates(result))
    for name, result in evaluations.items():
        if _protocol(result) == "published":
            parts += ["## The published protocol, for comparison\n", _published(name, result)]
    if "curves" in figures:
        parts += ["## Training\n", picture("curves", "Loss terms by epoch")]
    parts += ["## What was run\n", _runs_table(runs)]
    return "\n".join(part for part in parts if part) + "\n"


def _views(configurations: Iterable[Configuration]) -> list[str]:
    return sorted({view for configuration in configurations for view in configuration.privacy})


_DETECTION_SECTION = """A fresh TriDet, trained and tested on the features in question: mean average precision, by
the overlap (tIoU) from which a detection is right, and its average over the five. "A video as one sequence" lets the
steps of a video see one another, as in co-training; "served alone" doesn't. One training each: another seed moves the
figures by a point or two.
"""


def detection_table(configurations: Iterable[Configuration]) -> str:
    """mAP by tIoU, a configuration a row; empty if there are none."""
    found = {c.label: c.detection for c in configurations if c.detection is not None}
    if not found:
        return ""
    tious = list(next(iter(found.values()))["map"])
    rows = [
        [label, *(_percent(judged["map"][tiou]) for tiou in tious), _percent(judged["average_map"])]
        for label, judged in found.items()
    ]
    return _table(["features", *(f"tIoU {tiou}" for tiou in tious), "average"], rows)


_ANOMALY_SECTION = """A fresh MGFN, trained on videos of which only "normal" or "abnormal" is known, and tested by
frame. "Best test epoch" is what the literature reports: chosen on the test set and therefore too high. One training
each: another seed moves such figures by several points, and differences of that size mean nothing.
"""


def anomaly_table(configurations: Iterable[Configuration]) -> str:
    """Frame-level figures, a configuration a row; empty if there are none."""
    rows = [
        [
            c.label,
            _percent(c.anomaly["roc_auc"]),
            _percent(c.anomaly["pr_auc"]),
            _epoch(c.anomaly["chosen"]),
            _percent((c.anomaly.get("best_test_epoch") or {}).get("roc_auc")),
        ]
        for c in configurations
        if c.anomaly is not None
    ]
    return _table(["features", "AUC", "PR-AUC", "epoch", "AUC, best test epoch"], rows) if rows else ""


def _epoch(chosen: Mapping[str, Any]) -> str:
    return f"{chosen['epoch']}, {'chosen on validation videos' if 'auc' in chosen else 'the last'}"


_BATCH_SECTION = """## Why it matters how a feature is served

The reference implementation feeds a batch of B features to attention as one sequence, so that every anonymized feature
is a mixture of whatever else is in its batch. The same checkpoint, twice: judged inside its batch, as published numbers
are, and one feature at a time, as a stored feature is used. Only the second is a property of the feature.
"""


def _twin(configuration: Configuration, configurations: Iterable[Configuration]) -> bool:
    """Whether the same anonymizer is also judged in its batch."""
    name = configuration.label.split(",")[0]
    return configuration.label == "raw features" or any(
        other.colour == BATCH and other.label.split(",")[0] == name for other in configurations
    )


def _headline(configurations: Sequence[Configuration], views: Sequence[str]) -> str:
    """Two sentences that a reader takes home, made of the numbers."""
    raw, *others = configurations
    sentences = []
    if raw.top1 is not None and "temporal" in raw.privacy:
        found = raw.privacy["temporal"]
        sentences.append(
            f"Raw features name the action of an unseen person in {raw.top1:.1%} of videos, and give an attacker "
            f"{found['ap']:.1%} cMAP on private attributes where chance is {found['chance']:.1%}."
        )
    served = [c for c in others if c.colour == ALONE and c.top1 is not None and views and views[0] in c.privacy]
    for configuration in served[:1]:
        leaks = " and ".join(f"{c['leakage']:.0%} of it on {view} clips" for view, c in configuration.privacy.items())
        sentences.append(
            f"After {configuration.label.split(',')[0]} the accuracy is {configuration.top1:.1%}, and of what could be "
            f"learnt about people a fresh attacker still learns {leaks}."
        )
    return " ".join(sentences) + "\n"


def summary_table(configurations: Iterable[Configuration], views: Sequence[str]) -> str:
    """Utility and leakage, a configuration a row, in Markdown."""
    configurations = list(configurations)
    with_detection = any(configuration.detection for configuration in configurations)
    with_anomaly = any(configuration.anomaly for configuration in configurations)
    header = ["features", "top-1"] + ["TAD mAP"] * with_detection + ["AD AUC"] * with_anomaly
    for view in views:
        header += [f"{view} cMAP", f"{view} leakage"]
    rows = []
    for configuration in configurations:
        row = [configuration.label, _percent(configuration.top1)]
        if with_detection:
            row.append(_percent(configuration.detection and configuration.detection["average_map"]))
        if with_anomaly:
            row.append(_percent(configuration.anomaly and configuration.anomaly["roc_auc"]))
        for view in views:
            found = configuration.privacy.get(view)
            row.append("" if found is None else f"{_percent(found['ap'])} {_interval(found['interval'], 100, 1)}")
            leakage = "" if found is None else _number(found["leakage"])
            if found is not None and "leakage_interval" in found:
                leakage += f" {_interval(found['leakage_interval'], 1, 2)}"
            row.append(leakage)
        rows.append(row)
    chance = {view: c.privacy[view]["chance"] for c in configurations for view in views if view in c.privacy}
    if chance:
        last = ["chance", ""] + [""] * with_detection + ["50.0"] * with_anomaly
        for view in views:
            last += [_percent(chance.get(view)), "0.00"]
        rows.append(last)
    return _table(header, rows)


def _attribute_table(view: str, judged: Mapping[str, Any]) -> str:
    rows = []
    for name, entry in {**judged["attributes"], "**mean (cMAP)**": judged["mean"]}.items():
        cells = [name]
        for which in ("raw", "anonymized"):
            found = entry.get(which)
            cells.append("" if found is None else f"{_percent(found['ap'])} {_interval(found['interval'], 100, 1)}")
        cells += [
            _percent(entry["chance"]),
            f"{_number(entry['leakage'])} {_interval(entry['leakage_interval'], 1, 2)}",
        ]
        cells.append(entry.get("anonymized", entry["raw"]).get("attacker", ""))
        rows.append(cells)
    people = judged["subjects"]
    title = (
        f"**{view} clips**: {judged['rows']['test']} features of {people['test']} test subjects; attackers learnt from "
        f"{judged['train_rows_used']} features of {people['train']} others.\n"
    )
    return title + "\n" + _table(["attribute", "raw AP", "anonymized AP", "chance", "leakage", "strongest"], rows)


def _gates(result: Mapping[str, Any]) -> str:
    lines = [
        f"- {'passed' if gate['passed'] else '**FAILED**'}: {gate['view']} clips, {gate['claim']} "
        f"(cMAP {_percent(gate['cmap'])}, chance {_percent(gate['chance'])})"
        for gate in result["gates"]
    ]
    return "Gates:\n\n" + "\n".join(lines) + "\n"


def _published(name: str, result: Mapping[str, Any]) -> str:
    warning = result["protocol"].get("warning", "")
    rows = []
    for which in ("raw", "anonymized"):
        if found := result.get(which):
            rows.append([which, _percent(found["cmap"]), _percent(found.get("last_epoch_cmap"))])
    return f"`{name}`. {warning}\n\n" + _table(["features", "cMAP, best test epoch", "cMAP, last epoch"], rows)


def _runs_table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, run in runs.items():
        params, seconds = run["params"], (run["privacy"] or {}).get("seconds")
        kind = "privacy" if run["privacy"] else "anonymizer" if _is_adapter(run) else "head"
        kind = "detector" if {"tad", "ad"} & set(run["results"] or {}) else kind
        rows.append(
            [
                name,
                kind,
                str(params.get("seed", params.get("seeds", params.get("init_rand_seed", "")))),
                "" if seconds is None else f"{seconds:.0f} s",
            ]
        )
    versions = next((run["versions"] for run in runs.values() if run["versions"]), {})
    described = ", ".join(f"{name} {value}" for name, value in versions.items())
    return (
        _table(["run", "kind", "seed", "time"], rows) + f"\nWith {described}. Each run folder holds its params.json.\n"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up, so that it can be read in a terminal too."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    padded.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(padded) + "\n"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(bounds: Sequence[float | None], factor: float, digits: int) -> str:
    return "[" + ", ".join("-" if bound is None else f"{factor * bound:.{digits}f}" for bound in bounds) + "]"
