"""The figure of a comparison: what is left for attackers against what each task loses, a panel a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from splavu.reports.plotting import ALONE, CHANCE, RAW, canvas, saved
from study.compare.plan import TaskName
from study.compare.results import LOST, REDUCTION, ComparisonRow
from study.compare.table import TITLES

FLOOR = -15.0
"""Points; what loses more is drawn here, as a triangle."""


def planes(rows: Sequence[ComparisonRow], tasks: Sequence[TaskName], path: Path) -> Path | None:
    """Points numbered as in the legend, the targets' region shaded; None where there is nothing to be shown."""
    shown = [row for row in rows if row.privacy is not None and not math.isnan(row.privacy.reduction.value)]
    if not any(task in row.uses for row in shown for task in tasks):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = canvas(4.4 * len(tasks) + 2.4, 4.4, len(tasks), sharex=True, sharey=True)
    handles = {}
    for axis, task in zip(axes, tasks, strict=True):
        axis.axhline(0, color=CHANCE, linewidth=0.8)
        for number, row in enumerate(shown):
            if task not in row.uses or math.isnan(row.uses[task].difference.value):
                continue
            left, lost = row.privacy.reduction, row.uses[task].difference
            x, y = 100 * (1 - left.value), max(FLOOR, 100 * lost.value)
            if not math.isnan(left.low):
                axis.plot([100 * (1 - left.high), 100 * (1 - left.low)], [y, y], color=CHANCE, linewidth=0.8, zorder=1)
            if not math.isnan(lost.low) and y > FLOOR:
                ends = [max(FLOOR, 100 * lost.low), 100 * lost.high]
                axis.plot([x, x], ends, color=CHANCE, linewidth=0.8, zorder=1)
            is_raw, below = row.name == "raw", 100 * lost.value < FLOOR
            (handles[number],) = axis.plot(
                x, y, "s" if is_raw else "v" if below else "o", color=RAW if is_raw else ALONE, markersize=11,
                linestyle="", label=f"{number}  {row.name}",
            )  # fmt: skip
            axis.annotate(str(number), (x, y), ha="center", va="center", color="white", fontsize=7, zorder=4)
        axis.set_title(TITLES[task])
        axis.set_xlabel("excess left to the strongest attackers, %")
    (left, right), (low, high) = axes[0].get_xlim(), axes[0].get_ylim()
    left, low, high = min(left, -5), min(low, -100 * LOST - 1), max(high, 1)
    for axis in axes:
        axis.fill_between([left, 100 * (1 - REDUCTION)], -100 * LOST, high, color="#d8ead3", zorder=0, linewidth=0)
        axis.set(xlim=(left, max(right, 105)), ylim=(low, high))
    axes[0].set_ylabel("difference to raw features, points" + (" (triangle: less still)" if low < FLOOR else ""))
    legend = {"loc": "outside right upper", "fontsize": 8, "frameon": False, "markerscale": 0.7}
    figure.legend(handles=[handles[number] for number in sorted(handles)], **legend)
    return saved(figure, path)
