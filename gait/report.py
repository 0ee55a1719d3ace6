"""The result of gait/evaluate_gait.py in Markdown, readable in a terminal too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splavu.reports.markdown import interval, markdown_table, percent

TITLES = {
    "raw": "raw, gallery raw",
    "anonymized": "anonymized, gallery anonymized",
    "anonymized_vs_raw": "anonymized, gallery raw",
}
WALKS = {"nm": "normal", "bg": "with a bag", "cl": "in a coat"}


def report_section(result: Mapping[str, Any]) -> str:
    """A section: rank-1 by walk with mean average precision, rank-1 by view, and how to read both."""
    comparisons, chance = result["comparisons"], result["chance"]
    walks, views = (list(chance[side]) for side in ("by_walk", "by_view"))
    rows = [
        [
            TITLES[name],
            _estimate(found["overall"]["rank1"]),
            *(_estimate(found["by_walk"][walk]["rank1"]) for walk in walks),
            _estimate(found["overall"]["map"]),
            f"{interval(found['swapped']['interval'], 100, 1)} (p {found['swapped']['p']:.3f})",
            _moved(result["change"][name]["rank1"]) if name in result["change"] else "",
        ]
        for name, found in comparisons.items()
    ]
    rows.append(
        ["chance", percent(chance["overall"]), *(percent(chance["by_walk"][walk]) for walk in walks), "", "", ""]
    )
    by_view = [
        [TITLES[name], *(percent(found["by_view"][view]["rank1"]["value"]) for view in views)]
        for name, found in comparisons.items()
    ]
    by_view.append(["chance", *(percent(chance["by_view"][view]) for view in views)])
    header = ["probes", "rank-1", *(WALKS[walk] for walk in walks), "mAP", "names swapped", "rank-1 less that of raw"]
    return "\n".join(
        (
            "## People recognised by their walk\n",
            markdown_table(header, rows),
            markdown_table(["rank-1 by view", *views], by_view),
            f"{result['probes']} probes of {result['subjects']} subjects met {result['gallery']} gallery videos, each "
            "those of other views than its own.\n"
            "Means over probes in per cent; brackets hold 95% intervals, clustered by the probes' subjects. Chance: "
            "rank-1 of a random ranking; where the people of the gallery swap names, rank-1 lies in the range given.\n"
            "Anonymized probes against a raw gallery: an attacker who kept features from before.\n",
        )
    )


def _estimate(entry: Mapping[str, Any]) -> str:
    return f"{percent(entry['value'])} {interval(entry['interval'], 100, 1)}"


def _moved(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['value']:+.1f} {interval(entry['interval'], 100, 1)}"
