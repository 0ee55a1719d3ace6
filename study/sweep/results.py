"""What comes out of a sweep: table, figure, the Pareto front, and the chosen point as a parameter file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from splavu.reports.markdown import markdown_table
from splavu.runtime.files import write_text
from splavu.runtime.run_folder import RunFolder
from splavu.tuning import operating_points
from splavu.tuning.figure import trade_offs
from splavu.tuning.operating_points import Point
from study.experiments.candidates import Candidate
from study.sweep.measure import SweepParams, seeds_of
from study.training.anonymizer_params import AnonymizerParams


def conclude(
    points: Sequence[Point], families: Mapping[str, Candidate], p: SweepParams, run: RunFolder
) -> tuple[str, Point | None]:
    """Write sweep.json, sweep.md, the figure and chosen.py; the text of sweep.md, and what was chosen."""
    chosen = operating_points.choose(points, most_lost=p.most_lost / 100)
    if chosen:
        write_text(run.path / "chosen.py", chosen_file(families[chosen.name], chosen, p))
    else:
        (run.path / "chosen.py").unlink(missing_ok=True)  # of an earlier sweep
    on_front = {one.name for one in operating_points.front([one for one in points if one.eligible])}
    areas = {"all candidates": operating_points.area([one for one in points if one.eligible])}
    for family in dict.fromkeys(one.family for one in points):
        areas[family] = operating_points.area([one for one in points if one.family == family])
    name = chosen.name if chosen else None
    trade_offs(points, run.path / "sweep.png", chosen=name, most_lost=p.most_lost / 100)
    run.write_json(
        "sweep.json",
        {
            "points": [
                {name: value for name, value in vars(one).items() if name != "draws"}
                | {"linkage": vars(one.linkage), "worst": vars(one.worst)}
                | {"least_protected": one.least_protected and dataclasses.asdict(one.least_protected)}
                | {
                    name: {key: vars(found) for key, found in getattr(one, name).items()}
                    for name in ("leakage", "uses", "lost")
                }
                for one in points
            ],
            "front": sorted(on_front),
            "chosen": name,
            "hypervolume": {family: vars(found) for family, found in areas.items()},
            "definition": operating_points.tradeoff.DEFINITION,
        },
    )
    text = report_section(points, on_front, chosen, areas, p)
    write_text(run.path / "sweep.md", text + "\n")
    return text, chosen


def report_section(
    points: Sequence[Point], on_front: Iterable[str], chosen: Point | None, areas: Mapping[str, Any], p: SweepParams
) -> str:
    """Tables for people."""
    probes = ["actions", *p.probes]
    header = ["candidate", "leakage, clips", "leakage, videos", "protected least", "people linked", *probes, "bits", ""]
    rows = []
    for one in sorted(points, key=lambda q: q.worst.value):
        marks = ["chosen"] if one is chosen else ["front"] if one.name in on_front else []
        marks += [] if one.eligible else ["baseline"]
        bits = "no bound" if one.budget is None else f"{one.budget:.1f}"
        bits += "" if math.isnan(one.entropy) else f" (used {one.entropy:.1f}, {one.distinct:.0f} vectors)"
        least = one.least_protected
        shares = [_percent(e) for e in one.leakage.values()]
        shares.append("" if least is None else f"{least.name} by {least.unit}: {_percent(least.leakage)}")
        shares.append(_percent(one.linkage))
        uses = [f"{100 * one.uses[p].value:.1f} ({_change(one.lost[p])})" for p in probes]
        rows.append([one.name, *shares, *uses, bits, ", ".join(marks)])
    volumes = [[family, f"{v.value:.3f} [{v.low:.3f}, {v.high:.3f}]"] for family, v in areas.items()]
    parts = [
        "# Operating points\n",
        f"Chosen: **{chosen.name}**, in chosen.py: gives away least of those that lose {p.most_lost:g} points at most, "
        "of each use.\n"
        if chosen
        else f"Chosen: none, for every candidate loses more than {p.most_lost:g} points of some use.\n",
        markdown_table(header, rows),
        "Leakage is the excess of the strongest attackers' average precision over chance, over the attributes that "
        "clips and videos share; the larger of the two counts, and their intervals hold at once. Beside it the "
        "attribute and unit of which most is left, with an interval that holds for the largest of all. Linkage is the "
        "excess of rank-1. Each is a share of raw features'. Uses, in per cent, and in brackets what is gained or lost "
        "against raw features: top-1 of actions, and of those that the anonymizer, made once more, was not shown "
        "(unseen), mean average precision of moments, ROC-AUC of anomalies, all by linear heads "
        "(`splavu/tuning/linear_probes.py`). On validation subjects (long videos: on training videos held out), "
        f"mean over seeds {', '.join(map(str, p.seeds))}; brackets hold 95 %, from draws of subjects and seeds.\n",
        "![Use against leakage, and both against the budget of bits](sweep.png)\n",
        "## Normalised hypervolume\n",
        markdown_table(["family", "hypervolume"], volumes),
        operating_points.tradeoff.DEFINITION + ". The metric is that of the use that keeps least.",
    ]
    return "\n".join(parts)


def chosen_file(candidate: Candidate, chosen: Point, p: SweepParams) -> str:
    """The candidate's parameters as a file for multitask_train_fa.py."""
    defaults = {f.name: f.default for f in dataclasses.fields(AnonymizerParams)}
    changes = {} if p.data_root is None else {"data_root": p.data_root}
    seed = seeds_of(candidate, p)[0] if candidate.needs_seed else 0  # as it was made to be measured
    resolved = candidate.parameters(seed=seed, run_id=f"{p.run_id}/chosen", **changes)
    times = f"{chosen.num_seeds} seed{'s' * (chosen.num_seeds > 1)}"
    lines = [
        f"# Chosen by `python -m splavu sweep` on validation subjects, {times}: gives away least of",
        f"# those that lose {p.most_lost:g} points at most, of each use. In shares of what raw features give away:",
        f"#   leakage of clips {_percent(chosen.leakage['clip'])} %, of videos {_percent(chosen.leakage['video'])} %,",
        f"#   linked people {_percent(chosen.linkage)} %; against raw features, in points:",
        "#   " + ", ".join(f"{name} {_change(lost)}" for name, lost in chosen.lost.items()),
        "",
    ]
    for name, default in defaults.items():
        value = getattr(resolved, name)
        if value != default:
            lines.append(f"{name} = {value!r}")
    return "\n".join(lines) + "\n"


def _percent(found: Any) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _change(lost: Any) -> str:
    value, low, high = (100 * (0 - part) for part in (lost.value, lost.high, lost.low))  # no -0.0
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
