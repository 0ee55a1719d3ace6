"""The figure of operating points: use against leakage, and both against the budget of bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from splavu.reports.plotting import ALONE, CHANCE, RAW, canvas, saved
from splavu.tuning.operating_points import Point, front

COLOURS = (
    RAW, ALONE, "#e9b44c", "#588157", "#9d4edd", "#c1121f", "#457b9d", "#6d6875", "#2a9d8f", "#bc6c25", "#ff006e",
    "#8ac926", "#1d3557", "#b5838d", "#606c38",
)  # fmt: skip
MARKERS = "osD^vP*X<>hdp8H"


def trade_offs(points: Sequence[Point], path: Path, *, chosen: str | None, most_lost: float) -> Path:
    """A colour a family; what may be lost is shaded, the front a line, the chosen point ringed."""
    families = list(dict.fromkeys(one.family for one in points))
    bounded = any(one.budget is not None for one in points)
    figure, axes = canvas(6.4 + 4.6 * bounded, 5.2, 1 + bounded)
    plane = axes[0]
    plane.axhspan(-100 * most_lost, 0, color="#2a9d8f", alpha=0.09, linewidth=0)
    plane.axhline(0, color=CHANCE, linewidth=0.8)
    kept = front([one for one in points if one.eligible])
    plane.plot(
        [100 * one.worst.value for one in kept], [-100 * one.most_lost.value for one in kept],
        color="#333333", linewidth=0.9, drawstyle="steps-post", zorder=1, label="front",
    )  # fmt: skip
    for place, family in enumerate(families):
        shown = sorted((one for one in points if one.family == family), key=lambda one: one.worst.value)
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        x, y = [100 * one.worst.value for one in shown], [-100 * one.most_lost.value for one in shown]
        plane.errorbar(
            x, y, fmt=marker, markersize=5.5, color=colour, linewidth=0.7, alpha=0.9,
            label=family if shown[0].eligible else f"{family} (baseline)",
            xerr=_reach(shown, "worst"), yerr=_reach(shown, "most_lost")[::-1],
        )  # fmt: skip
    for best in (one for one in points if one.name == chosen):
        plane.plot(
            100 * best.worst.value, -100 * best.most_lost.value, "o", markersize=15, markerfacecolor="none",
            markeredgecolor="#222222", label=f"chosen: {chosen}",
        )  # fmt: skip
    plane.set_xlabel("leakage left under the strongest attackers, % of raw features'")
    plane.set_ylabel("worst use against raw features, points")
    figure.legend(*plane.get_legend_handles_labels(), fontsize=7.5, frameon=False, loc="outside lower left", ncols=6)
    if bounded:
        rate, top = axes[1], axes[1].twinx()
        shown = sorted((one for one in points if one.budget is not None), key=lambda one: one.budget or 0.0)
        for family in dict.fromkeys(one.family for one in shown):
            same = [one for one in shown if one.family == family]
            marker = MARKERS[families.index(family) % len(MARKERS)]
            bits = [one.budget for one in same]
            leaked, lost = [100 * one.worst.value for one in same], [-100 * one.most_lost.value for one in same]
            rate.errorbar(bits, leaked, fmt=marker, color=ALONE, yerr=_reach(same, "worst"), linewidth=0.7,
                          label=f"{family}: leakage")  # fmt: skip
            top.plot(bits, lost, marker, color=RAW, markerfacecolor="none", label=f"{family}: worst use")
        rate.set_xlabel("budget, bits a clip")
        rate.set_ylabel("leakage left, %", color=ALONE)
        top.set_ylabel("worst use against raw features, points", color=RAW)
        top.spines["top"].set_visible(False)
        handles = [
            h + o for h, o in zip(rate.get_legend_handles_labels(), top.get_legend_handles_labels(), strict=True)
        ]
        rate.legend(*handles, fontsize=7.5, frameon=False, loc="best")
    return saved(figure, path)


def _reach(points: Sequence[Point], name: str) -> list[list[float]]:
    """How far intervals reach below and above, in per cent."""
    found = [getattr(one, name) for one in points]
    return [
        [100 * max(0.0, one.value - one.low) for one in found],
        [100 * max(0.0, one.high - one.value) for one in found],
    ]
