"""Run folders -> report.md, figures and metrics.json: utility, leakage, and how both were measured.

Nothing is computed here that a run didn't write; a number in the report can be followed to the file it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from splavu.errors import UserError, as_markdown
from splavu.metrics.protocols import protocol_name
from splavu.reports import plotting
from splavu.reports import run_figures as draw
from splavu.reports.markdown import markdown_table
from splavu.reports.plotting import ALONE, BATCH, RAW
from splavu.reports.run_sections import (
    ANOMALY_SECTION,
    BATCH_SECTION,
    DETECTION_SECTION,
    Configuration,
    anomaly_table,
    attribute_table,
    detection_table,
    gates,
    headline,
    paper_protocol_table,
    summary_table,
    twin,
)
from splavu.runtime import extras
from splavu.runtime.files import write_text
from splavu.runtime.records import as_written, read_record, read_records
from splavu.runtime.run_folder import START_AGAIN, TABLE

HOW_TO_READ = """Top-1 is the accuracy of a fresh linear head on unseen subjects. cMAP is the mean average precision of
the strongest attacker for each private attribute: newly trained on the features in question, tuned on validation
subjects, tested once on test subjects; brackets hold 95 % intervals, clustered by subject. Leakage is (cMAP - chance) /
(raw cMAP - chance): 0 protects, 1 protects nothing. "Head cMAP", where there is one, is of one fixed head for private
attributes, as in the paper: a lower bound of what can be learned.
"""

SERVED = {"alone": "one feature at a time", "batch": "in its batch", "video": "a video as one sequence"}
"""What the anonymizer was given at once, in words."""


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
        UserError: No run with results lies below `folder`, or Matplotlib is not installed, or PyAV and
            `data` is given.
    """
    plotting.check_drawing()
    if data is not None:
        extras.check("av", extra="video", why="frames of the videos are read with it")
    folder = Path(folder)
    found = sorted({path.parent for name in PARAMETERS for path in folder.glob(f"*/{name}") if path.is_file()})
    runs = {path.name: _read_run(path) for path in found}
    runs = {name: run for name, run in runs.items() if run["results"] or run["privacy"] or run["table"]}
    if not runs:
        raise UserError(folder, "holds no run with results", "train and evaluate first, or name the folder above them")
    for name, run in runs.items():
        with as_written(folder / name, START_AGAIN):
            _configurations({name: run})
    with as_written(folder, START_AGAIN):
        return _written(folder, runs, data)


def _written(folder: Path, runs: Mapping[str, Mapping[str, Any]], data: str | Path | None) -> Report:
    configurations = _configurations(runs)
    evaluations = {name: run["privacy"] for name, run in runs.items() if run["privacy"]}
    released = {name: result for name, result in evaluations.items() if _protocol(result) == "release"}

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
    text = _markdown(folder, configurations, evaluations, runs, figures)
    table = summary_table(configurations, _views(configurations)) if _any_judged(configurations) else ""
    write_text(folder / "metrics.json", json.dumps(summary, indent=1) + "\n")
    return Report(write_text(folder / "report.md", text), table)


PARAMETERS = ("params.json", "options.json")
"""Where a run keeps what it was asked for; the second is MGFN's."""


def _read_run(path: Path) -> dict[str, Any]:
    def read(name: str) -> Any:
        file = path / name
        return read_record(file, START_AGAIN) if file.is_file() else None

    history = path / "metrics.jsonl"
    return {
        "params": next(content for name in PARAMETERS if (content := read(name)) is not None),
        "versions": read("versions.json") or {},
        "results": read("results.json"),
        "privacy": read("metrics.json"),
        "table": written.read_text(encoding="utf-8", errors="replace") if (written := path / TABLE).is_file() else "",
        "history": read_records(history, START_AGAIN) if history.is_file() else [],
    }


def _is_adapter(run: Mapping[str, Any]) -> bool:
    return any("loss/latent" in record or "loss/privacy" in record for record in run["history"])


def _protocol(result: Mapping[str, Any]) -> str:
    protocol = result["protocol"]
    return protocol_name(protocol["name"] if isinstance(protocol, Mapping) else protocol)


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
            configuration.top1 = results["test"].get("top1", configuration.top1)
            configuration.head_cmap = results["test"].get("cmap", configuration.head_cmap)
            configuration.sources.append(name)
        if judged := results.get("tad"):
            configuration = of(_name_of(judged["aam"]), judged["aam_serving"] or "alone")
            configuration.detection = judged
            configuration.sources.append(name)
        if judged := results.get("ad"):
            configuration = of(_name_of(judged["aam"]), judged["aam_serving"] or "alone")
            configuration.anomaly = judged
            configuration.sources.append(name)
        if run["privacy"] and _protocol(run["privacy"]) == "release":
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
        if name not in figures:
            return ""
        return f"![{as_markdown(caption)}]({quote(figures[name].relative_to(folder).as_posix())})\n"

    views = _views(configurations)
    parts = [f"# {as_markdown(folder.name)}: utility and leakage\n"]
    if broken := [name for name, result in evaluations.items() if not result.get("valid", True)]:
        parts.append(
            f"> **Not valid:** a gate failed in {as_markdown(', '.join(broken))}, or has too few subjects. "
            "Don't use its numbers.\n"
        )
    if _any_judged(configurations):
        parts += [headline(configurations, views), summary_table(configurations, views), HOW_TO_READ, _tested_on(runs)]
    parts.append(picture("plane", "Utility against privacy"))
    if any(configuration.colour == BATCH for configuration in configurations):
        parts.append(BATCH_SECTION)
        parts.append(summary_table([c for c in configurations if c.colour == BATCH or twin(c, configurations)], views))
    if table := detection_table(configurations):
        parts += ["## Temporal action detection\n", DETECTION_SECTION, table]
    if table := anomaly_table(configurations):
        parts += ["## Anomaly detection\n", ANOMALY_SECTION, table]
    for name, run in runs.items():
        if run["table"]:
            parts.append(run["table"].replace("](", f"]({quote(name)}/"))  # pictures lie beside the table
    if "world" in figures:
        parts += ["## The videos\n", picture("world", "Frames of the videos that were encoded")]
    if any(_protocol(result) == "release" for result in evaluations.values()):
        parts.append("## Leakage by attribute\n")
    for name, result in evaluations.items():
        if _protocol(result) == "release":
            parts += [
                f"### {as_markdown(name)}\n",
                picture(f"leakage {name}", f"Average precision by attribute, {name}"),
            ]
            parts += [attribute_table(view, judged) for view, judged in result["views"].items()]
            parts.append(gates(result))
    for name, result in evaluations.items():
        if _protocol(result) == "paper":
            parts += ["## The paper protocol, for comparison\n", paper_protocol_table(name, result)]
    if "curves" in figures:
        parts += ["## Training\n", picture("curves", "Loss terms by epoch")]
    parts += ["## What was run\n", _runs_table(runs)]
    return "\n".join(part for part in parts if part) + "\n"


def _tested_on(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The data sets of heads and attackers."""
    names = sorted({run["params"]["dataset"] for run in runs.values() if isinstance(run["params"].get("dataset"), str)})
    return f"Heads and attackers: {as_markdown(', '.join(names))}.\n" if names else ""


def _any_judged(configurations: Iterable[Configuration]) -> bool:
    return any(configuration.sources for configuration in configurations)


def _views(configurations: Iterable[Configuration]) -> list[str]:
    return sorted({view for configuration in configurations for view in configuration.privacy})


def _runs_table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, run in runs.items():
        params, seconds = run["params"], (run["privacy"] or {}).get("seconds")
        kind = "privacy" if run["privacy"] else "anonymizer" if _is_adapter(run) else "head"
        kind = "protocol" if run["table"] else kind
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
        markdown_table(["run", "kind", "seed", "time"], rows)
        + f"\nWith {as_markdown(described)}. Each run folder holds its params.json.\n"
    )
