"""Run folders -> report.md, figures and metrics.json: what was kept, what leaks, and how both were measured.

Nothing is computed here that a run didn't write; a number in the report can be followed to the file it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splavu.errors import UserError
from splavu.runs import write_text

RAW, ALONE, BATCH, CHANCE = "#3d5a80", "#ee6c4d", "#e9b44c", "#8d99ae"
"""One colour a meaning, in every figure: raw features, served alone, served in a batch, chance."""


@dataclass
class Configuration:
    """One kind of features and what is known of it: raw, or an anonymizer served in one way."""

    label: str
    colour: str
    top1: float | None = None
    """Of a fresh head on the test split."""
    privacy: dict[str, Any] = field(default_factory=dict)
    """View -> the mean entry of a released evaluation: ap, interval, chance, leakage."""
    sources: list[str] = field(default_factory=list)
    """Run folders that the numbers are from."""


def write_report(folder: str | Path, *, data: str | Path | None = None) -> Path:
    """Gather the runs below `folder` into `folder/report.md`, `folder/metrics.json` and `folder/figures/`.

    Args:
        folder: Holds the run folders, as saved_models/demo does.
        data: Data root whose hmdb51 videos are shown; None shows none.

    Returns:
        The path of report.md.

    Raises:
        UserError: No run with results lies below `folder`.
    """
    folder = Path(folder)
    runs = {path.parent.name: _read_run(path.parent) for path in sorted(folder.glob("*/params.json"))}
    runs = {name: run for name, run in runs.items() if run["results"] or run["privacy"]}
    if not runs:
        raise UserError(folder, "holds no run with results", "train and evaluate first, or name the folder above them")
    configurations = _configurations(runs)
    evaluations = {name: run["privacy"] for name, run in runs.items() if run["privacy"]}
    released = {name: result for name, result in evaluations.items() if _protocol(result) == "released"}

    figures: dict[str, Path] = {}
    places = folder / "figures"
    places.mkdir(exist_ok=True)
    if data is not None and (sheet := _world_figure(Path(data), places / "world.png")):
        figures["world"] = sheet
    figures["plane"] = _plane_figure(configurations, places / "plane.png")
    for name, result in released.items():
        figures[f"leakage {name}"] = _leakage_figure(result, places / f"leakage_{name}.png")
    histories = {name: run["history"] for name, run in runs.items() if _is_adapter(run)}
    if histories:
        figures["curves"] = _curves_figure(histories, places / "curves.png")

    summary = {
        "configurations": [vars(configuration) for configuration in configurations],
        "evaluations": evaluations,
        "heads": {name: run["results"] for name, run in runs.items() if "features" in (run["results"] or {})},
        "runs": {name: {"params": run["params"], "versions": run["versions"]} for name, run in runs.items()},
    }
    write_text(folder / "metrics.json", json.dumps(summary, indent=1) + "\n")
    return write_text(folder / "report.md", _markdown(folder, configurations, evaluations, runs, figures))


def _read_run(path: Path) -> dict[str, Any]:
    def read(name: str) -> Any:
        file = path / name
        return json.loads(file.read_text()) if file.is_file() else None

    history = path / "metrics.jsonl"
    return {
        "params": read("params.json"),
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
    saved = params.get("saved_fa_model")
    return Path(saved).parent.name if saved and params.get("anon", True) else None


def _configurations(runs: Mapping[str, Mapping[str, Any]]) -> list[Configuration]:
    """Utility and privacy of the same features, brought together; raw features first."""
    found: dict[tuple[str | None, str], Configuration] = {(None, "alone"): Configuration("raw features", RAW)}

    def of(adapter: str | None, serving: str) -> Configuration:
        key = (adapter, serving if adapter else "alone")
        if key not in found:
            how = "served alone" if serving == "alone" else "in its batch"
            found[key] = Configuration(f"{adapter}, {how}", ALONE if serving == "alone" else BATCH)
        return found[key]

    for name, run in runs.items():
        params, results = run["params"], run["results"] or {}
        serving = params.get("serving", "alone")
        if "features" in results:
            configuration = of(_adapter_of(params), serving)
            configuration.top1 = results["test"]["top1"]
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

    views = sorted({view for configuration in configurations for view in configuration.privacy})
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
    header = ["features", "top-1"]
    for view in views:
        header += [f"{view} cMAP", f"{view} leakage"]
    rows = []
    for configuration in configurations:
        row = [configuration.label, _percent(configuration.top1)]
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
        last = ["chance", ""]
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
        rows.append(
            [
                name,
                kind,
                str(params.get("seed", params.get("seeds", ""))),
                "" if seconds is None else f"{seconds:.0f} s",
            ]
        )
    versions = next((run["versions"] for run in runs.values() if run["versions"]), {})
    described = ", ".join(f"{name} {value}" for name, value in versions.items())
    return (
        _table(["run", "kind", "seed", "time"], rows) + f"\nWith {described}. Each run folder holds its params.json.\n"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(bounds: Sequence[float | None], factor: float, digits: int) -> str:
    return "[" + ", ".join("-" if bound is None else f"{factor * bound:.{digits}f}" for bound in bounds) + "]"


def _canvas(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure in the report's style. Matplotlib's object interface: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
        axis.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    return figure, axes


def _saved(figure: Any, path: Path) -> Path:
    # Without its creation date and versions, the same runs give the same bytes.
    figure.savefig(path, metadata={"Software": None})
    return path


def _whiskers(found: Mapping[str, Any]) -> tuple[float, float, float]:
    """Average precision in per cent, and how far its interval reaches below and above; 0 where that is undefined."""
    ends = [found["ap"] if end is None else end for end in found["interval"]]
    return 100 * found["ap"], max(0.0, 100 * (found["ap"] - ends[0])), max(0.0, 100 * (ends[1] - found["ap"]))


def _plane_figure(configurations: Sequence[Configuration], path: Path) -> Path:
    """Utility over attack success, a panel a view: up and to the left is better."""
    views = sorted({view for c in configurations for view in c.privacy if c.top1 is not None}) or ["temporal"]
    figure, axes = _canvas(5.2 * len(views), 4.2, len(views), sharey=True)
    for axis, view in zip(axes, views, strict=True):
        shown = [c for c in configurations if view in c.privacy and c.top1 is not None]
        for place, configuration in enumerate(shown):
            found = configuration.privacy[view]
            x, below, above = _whiskers(found)
            axis.errorbar(
                x, 100 * configuration.top1, xerr=[[below], [above]], fmt="os^Dv"[place % 5],
                markersize=9, color=configuration.colour, capsize=3, label=configuration.label,
            )  # fmt: skip
        if shown:
            axis.axvline(100 * shown[0].privacy[view]["chance"], color=CHANCE, linestyle="--", label="chance")
        axis.set_title(f"{view} clips")
        axis.set_xlabel("cMAP of the strongest attackers, % (less leaks less)")
        axis.legend(fontsize=7.5, frameon=False, loc="best")
    axes[0].set_ylabel("action top-1 on unseen subjects, %")
    return _saved(figure, path)


def _leakage_figure(result: Mapping[str, Any], path: Path) -> Path:
    """Raw against anonymized average precision by attribute, chance as a tick, a panel a view."""
    views = result["views"]
    figure, axes = _canvas(7.2 * len(views), 4.2, len(views), sharey=True)
    for axis, (view, judged) in zip(axes, views.items(), strict=True):
        entries = [*judged["attributes"].items(), ("mean", judged["mean"])]
        for which, colour, shift in (("raw", RAW, -0.2), ("anonymized", ALONE, 0.2)):
            bars = [(place, entry[which]) for place, (_, entry) in enumerate(entries) if which in entry]
            bars = [(place, found) for place, found in bars if found["ap"] is not None]
            if bars:
                heights, *spans = zip(*(_whiskers(found) for _, found in bars), strict=True)
                axis.bar(
                    [place + shift for place, _ in bars], heights, 0.38, color=colour, label=which, yerr=spans,
                    error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
                )  # fmt: skip
        for place, (_, entry) in enumerate(entries):
            if entry["chance"] is not None:
                label = "chance" if place == 0 else None
                axis.hlines(
                    100 * entry["chance"], place - 0.45, place + 0.45, color="#222222", linewidth=1.8, label=label
                )
        axis.set_xticks(range(len(entries)), [name.replace("_", "\n", 1) for name, _ in entries], fontsize=8)
        axis.set_ylim(0, 119)  # room for the legend above the bars
        axis.set_yticks(range(0, 101, 20))
        axis.set_title(f"{view} clips")
        axis.legend(fontsize=8.5, frameon=False, loc="upper right", ncols=3)
    axes[0].set_ylabel("average precision of the strongest attacker, %")
    return _saved(figure, path)


def _curves_figure(histories: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> Path:
    """Every loss term by epoch, a panel a term, a line a run."""
    terms = sorted({name for history in histories.values() for record in history for name in record if "loss/" in name})
    terms = [name for name in terms if name.startswith("loss/")]
    figure, axes = _canvas(3.4 * len(terms), 3.0, len(terms))
    colours = (RAW, ALONE, BATCH, CHANCE)
    for axis, term in zip(axes, terms, strict=True):
        for place, (name, history) in enumerate(histories.items()):
            points = [(record["step"] + 1, record[term]) for record in history if term in record]
            axis.plot(*zip(*points, strict=True), color=colours[place % 4], label=name) if points else None
        axis.set_title(term.removeprefix("loss/"))
        axis.set_xlabel("epoch")
    axes[0].legend(fontsize=8, frameon=False)
    return _saved(figure, path)


def _world_figure(data: Path, path: Path, *, num_videos: int = 4, num_frames: int = 8) -> Path | None:
    """Evenly spaced frames of a few videos, a video a row, with its action."""
    import av

    actions = sorted(folder for folder in (data / "hmdb51/videos").glob("*") if folder.is_dir())
    chosen = actions[:: max(1, len(actions) // num_videos)][:num_videos]
    videos = [
        sorted(folder.glob("*.avi"))[place * 3 % max(1, len(list(folder.glob("*.avi"))))]
        for place, folder in enumerate(chosen)
    ]
    if not videos:
        return None
    figure, _ = _canvas(1.75 * num_frames, 1.42 * len(videos))
    figure.clf()
    axes = figure.subplots(len(videos), num_frames, squeeze=False)
    for row, video in zip(axes, videos, strict=True):
        with av.open(str(video)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for place, axis in enumerate(row):
            axis.imshow(frames[round(place * (len(frames) - 1) / (num_frames - 1))])
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(video.parent.name.replace("_", " "), fontsize=9)
    return _saved(figure, path)
