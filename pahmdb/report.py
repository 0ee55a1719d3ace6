"""A result of PA-HMDB51 for people: tables in Markdown that line up in a terminal too, and a picture of the curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from splavu.attacks.gates import in_words, numbers_in_words
from splavu.reports.markdown import interval, markdown_table, number, percent
from splavu.reports.plotting import ALONE, CHANCE, RAW, saved

LABELS = {
    "values": "every value of each attribute, as one class against all others",
    "binary": "the five attributes, positive unless their value is 0",
    "vispr": "the attributes that VISPR knows too",
}


def report_section(result: Mapping[str, Any]) -> str:
    """Summary, attributes, transfer and gates; per cent but for leakage, p and u; 95 % intervals in brackets."""
    served = "anonymized one at a time" if result["served"] == "alone" else "ANONYMIZED IN BATCHES, unlike a release"
    parts = [
        "## Privacy and utility on PA-HMDB51\n",
        f"{result['clips']} clips of {result['videos']} videos of {result['films']} films; {served}. "
        f"Labels: {LABELS[result['labels']]}; present in a clip if in one of its frames, unknown where no frame has "
        "a label.\n",
        _summary(result),
        "cMAP: mean average precision of the strongest attackers, trained on other films (each film is held out "
        f"once, {result['folds']} folds). Leakage: 0 no better than chance, 1 as much as raw features. Top-1: a fresh "
        f"linear head, trained on the {result['other_videos']} videos without annotations. Intervals draw films."
        f"{_left_out(result, 'cross_fitted')}\n",
    ]
    if below := [name for name in _points(result) if _below_chance(result["cross_fitted"][name]["mean"])]:
        parts.append(
            f"**Attackers of {', '.join(below)} do worse than chance.** That is not privacy: an anonymizer that was "
            "trained on the labels of these videos does this.\n"
        )
    if result["curve"]:
        area = result["curve"]["hypervolume"]
        parts.append(
            f"Normalised hypervolume {number(area['value'])} {interval(area['interval'], 1, 2)}; "
            f"{result['curve']['definition']}.\n"
        )
        if _defined(result):
            parts.append("![Utility over privacy](curve.png)\n")
    for name in _points(result) or ["raw"]:
        parts.append(f"**{name}: attackers trained on other films**\n")
        parts.append(_attributes(result["cross_fitted"][name]))
    if result["transfer"]:
        rows = result["transfer_rows"]
        parts.append(
            f"Attackers trained on VISPR: {rows[0]} views of images to learn from, {rows[1]} to be tuned on. "
            "Leakage is undefined for attributes that they don't predict above chance on raw clips."
            f"{_left_out(result, 'transfer')}\n"
        )
        for name in _points(result) or ["raw"]:
            parts.append(f"**{name}: attackers trained on VISPR**\n")
            parts.append(_attributes(result["transfer"][name]))
    parts.append(
        "\n".join(f"- {in_words(gate)}: {gate['claim']} ({numbers_in_words(gate)})" for gate in result["gates"]) + "\n"
    )
    count = len(result["seeds"])
    parts.append(
        f"{', '.join(result['attackers'])}; {count} seed{'s' * (count > 1)}, {result['num_resamples']} resamples, "
        f"{result['seconds']:.0f} s\n"
    )
    return "\n".join(parts)


def draw_curve(result: Mapping[str, Any], path: Path) -> Path | None:
    """The operating points, the area that they conquer, raw features and chance; nothing without a defined point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = _defined(result)
    path.unlink(missing_ok=True)  # of another evaluation
    if not points:
        return None
    figure = Figure(figsize=(5.6, 5.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
    axis.grid(color="#e5e5e5", linewidth=0.8)
    outline = _staircase([(point["privacy"], point["utility"]) for point in points.values()])
    axis.fill_between(*zip(*outline, strict=True), color=ALONE, alpha=0.18, linewidth=0)
    for place, (name, point) in enumerate(points.items()):
        p, u = point["privacy"], point["utility"]
        whiskers = {f"{a}err": _whiskers(point, axis_name) for a, axis_name in (("x", "privacy"), ("y", "utility"))}
        axis.errorbar(p, u, **whiskers, fmt="os^Dv"[place % 5], markersize=8, color=ALONE, capsize=3)
        axis.annotate(name, (p, u), xytext=(-7 if p > 0.7 else 7, 7), textcoords="offset points", fontsize=8,
                      ha="right" if p > 0.7 else "left")  # fmt: skip
    for name, spot, colour in (("raw features", (0, 1), RAW), ("chance", (1, 0), CHANCE)):
        axis.plot(*spot, "X", color=colour, markersize=9, clip_on=False)
        axis.annotate(name, spot, xytext=(-5, 9) if spot[0] else (9, -15), textcoords="offset points", fontsize=8,
                      ha="right" if spot[0] else "left")  # fmt: skip
    value = result["curve"]["hypervolume"]["value"]
    axis.set_title(f"PA-HMDB51: normalised hypervolume {number(value)}", fontsize=10)
    axis.set_xlabel("privacy p: share of what raw features leak that is gone")
    axis.set_ylabel("utility u: share of their top-1 above chance that is kept")
    axis.set_xlim(-0.02, 1.04)
    axis.set_ylim(-0.02, 1.08)
    return saved(figure, path)


def _staircase(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The upper edge of the union of the rectangles from the origin to each point, from left to right."""
    edge, height = [], 0.0
    for p, u in sorted(points, reverse=True):
        if u > height:
            edge += [(p, height), (p, u)]
            height = u
    return [(0.0, height), *edge[::-1]]


def _whiskers(point: Mapping[str, Any], name: str) -> list[list[float]]:
    """How far the interval reaches below and above; 0 where it's undefined."""
    value, ends = point[name], [point[name] if end is None else end for end in point[f"{name}_interval"]]
    return [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]


def _left_out(result: Mapping[str, Any], part: str) -> str:
    rare = ", ".join(result["too_rare"][part])
    return f" Left out, shown by fewer than {result['folds']} films or by all but fewer: {rare}." if rare else ""


def _below_chance(mean: Mapping[str, Any]) -> bool:
    high = mean["leakage_interval"][1]
    return high is not None and high < 0


def _points(result: Mapping[str, Any]) -> list[str]:
    return list(result["checkpoints"])


def _defined(result: Mapping[str, Any]) -> dict[str, Any]:
    """The operating points that have a place in the picture."""
    points = result["curve"]["points"] if result["curve"] else {}
    return {name: point for name, point in points.items() if None not in (point["privacy"], point["utility"])}


def _summary(result: Mapping[str, Any]) -> str:
    """A representation a row."""
    chance = result["cross_fitted"]["raw"]["mean"]["chance"]
    rows = []
    for name, judged in result["cross_fitted"].items():
        mean, kept = judged["mean"], result["action"]["of"][name]
        found = mean.get("anonymized", mean["raw"])
        point = result["curve"]["points"].get(name) if result["curve"] else None
        rows.append(
            [
                name,
                f"{percent(found['ap'])} {interval(found['interval'], 100, 1)}",
                f"{number(mean['leakage'])} {interval(mean['leakage_interval'], 1, 2)}",
                f"{percent(kept['top1'])} {interval(kept['interval'], 100, 1)}",
                *([number(point["privacy"]), number(point["utility"])] if point else ["0.00", "1.00"]),
            ]
        )
    rows.append(["chance", percent(chance), "0.00", percent(result["action"]["chance"]), "1.00", "0.00"])
    return markdown_table(["features", "cMAP", "leakage", "action top-1", "p", "u"], rows)


def _attributes(judged: Mapping[str, Any]) -> str:
    rows = []
    for name, entry in {**judged["attributes"], "**mean (cMAP)**": judged["mean"]}.items():
        cells = [name, percent(entry["chance"])]
        for which in ("raw", "anonymized"):
            if found := entry.get(which):
                cells.append(f"{percent(found['ap'])} {interval(found['interval'], 100, 1)}")
        rows.append([*cells, f"{number(entry['leakage'])} {interval(entry['leakage_interval'], 1, 2)}"])
    header = ["attribute", "positives", "raw AP", "anonymized AP", "leakage"]
    return markdown_table(header if len(rows[0]) == len(header) else [*header[:3], header[4]], rows)
