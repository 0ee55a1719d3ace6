"""What `splavu tune` says and writes: the frontier, the chosen point, a table of all as CSV, a figure."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

import numpy as np

from splavu.metrics.estimates import Estimate
from splavu.tuning.candidates import shown
from splavu.tuning.curve import UNSEEN, Curve
from splavu.tuning.operating_points import Point, choose, front

WIDTH = 100
WORTH = 0.8
"""A release that leaves a larger share of what raw features reveal isn't worth making."""


def chosen(curve: Curve, lose: float) -> Point | None:
    """The point with the least leakage within `lose` points of each use; None where that is hardly less than raw's."""
    best = choose(curve.points, most_lost=lose / 100)
    return best if best is not None and best.worst.value <= WORTH else None


def verdict(curve: Curve, lose: float) -> str:
    """One sentence on what may be released, with the size of the data."""
    data = curve.data
    size = f"{len(data.features)} clips of {data.num_videos} videos"
    if data.subjects is not None:
        size += f" and {len(np.unique(data.subjects[data.subjects != '']))} subjects"
    best = choose(curve.points, most_lost=lose / 100)
    if best is None:
        usable = [one for one in curve.points if one.is_measured]
        if not usable:
            return f"None is worth making: no point could be measured on {size}."
        near = min(usable, key=lambda one: one.most_lost.value)
        return (
            f"None is worth making: with {size}, every point loses more than {lose:g} points of use. The nearest, "
            f"{shown(near.name)}, loses {100 * near.most_lost.value:.1f}."
        )
    left = f"{100 * best.worst.value:.0f} % of what raw features reveal ({best.unit})"
    if best.worst.value > WORTH:
        return f"None is worth making: with {size}, every point within {lose:g} points of use leaves {left} or more."
    return (
        f"Chosen: {shown(best.name)}, the least leakage within {lose:g} points of use. Most is left of "
        f"{best.unit}: {_interval(best.worst)} % of raw features'. It was chosen on these {size}: it may leak a "
        "little more of others. Audit it on test subjects."
    )


def table(curve: Curve, lose: float) -> str:
    """The frontier, the most private point first, and raw features; within 100 columns."""
    best = chosen(curve, lose)
    kinds = list(curve.raw.leakage)
    uses = list(curve.raw.uses)
    header = ["point", *(f"{use} %" for use in uses), *(_short(kind) for kind in kinds), "bits"]
    rows = [
        _row(one, uses, kinds, mark="*" if one is best else "")
        for one in front([one for one in curve.points if not np.isnan(one.worst.value)])
    ]
    if best is not None and not any(line[0].startswith("*") for line in rows):
        rows.append(_row(best, uses, kinds, mark="*"))
    rows.append(_row(curve.raw, uses, kinds, mark=""))
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    widths[0] = min(widths[0], max(20, WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    lines = []
    for line in (header, *rows):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        if len(line[0]) > widths[0]:  # a long chain has a line of its own
            lines.append(line[0])
            cells[0] = " " * widths[0]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def text(curve: Curve, lose: float, commands: Sequence[str]) -> str:
    """All that the command prints."""
    about = (
        "Use: top-1 of held-out subjects' videos"
        + (", and of actions that the point was not shown (unseen)" if UNSEEN in curve.raw.uses else "")
        + "; higher is better. Leakage: what attackers find beyond chance, in % of raw features'; lower is better. "
        "The frontier: no other point has less leakage and more use."
    )
    parts = [table(curve, lose), _wrapped(about), _wrapped(verdict(curve, lose))]
    parts += [_wrapped(f"Note: {note}.") for note in curve.notes]
    if curve.refused:
        first, reason = next(iter(curve.refused.items()))
        parts.append(
            _wrapped(f"{len(curve.refused)} points can't be fitted to this store, such as {shown(first)}: {reason}.")
        )
    if commands:
        parts.append("\n".join(commands))
    return "\n\n".join(parts)


def as_csv(curve: Curve, lose: float) -> str:
    """Every point with its intervals; shares and rates as numbers from 0 to 1."""
    best, fronted = chosen(curve, lose), front([one for one in curve.points if not np.isnan(one.worst.value)])
    made = io.StringIO()
    out = csv.writer(made, lineterminator="\n")
    ends = ("", " low", " high")
    uses, kinds = list(curve.raw.uses), list(curve.raw.leakage)
    out.writerow(
        [
            "point",
            "chosen",
            "frontier",
            "bits",
            *(f"{use}{end}" for use in uses for end in ends),
            *(f"{use} lost{end}" for use in uses for end in ends),
            *(f"leakage, {kind}{end}" for kind in kinds for end in ends),
            "refused",
        ]
    )
    for one in (curve.raw, *curve.points):
        estimates = [one.uses[use] for use in uses] + [one.lost[use] for use in uses]
        estimates += [one.leakage[kind] for kind in kinds]
        numbers = [f"{value:.4f}" for each in estimates for value in (each.value, each.low, each.high)]
        bits = "" if one.budget is None else f"{one.budget:.2f}"
        out.writerow([one.name or "raw", int(one is best), int(one in fronted), bits, *numbers, ""])
    for chain, reason in curve.refused.items():
        out.writerow([chain, 0, 0, "", *[""] * (3 * (2 * len(uses) + len(kinds))), reason])
    return made.getvalue()


def _row(one: Point, uses: Sequence[str], kinds: Sequence[str], *, mark: str) -> list[str]:
    figures = [f"{100 * one.uses[use].value:.1f}" for use in uses]
    left = [f"{100 * one.leakage[kind].value:.0f}" for kind in kinds]
    name = shown(one.name) if one.name else "raw features"
    return [f"{mark} {name}".strip(), *figures, *left, "-" if one.budget is None else f"{one.budget:.1f}"]


def _short(kind: str) -> str:
    return kind.replace("attributes, ", "attr. ")


def _interval(found: Estimate) -> str:
    return f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, WIDTH, break_on_hyphens=False)
