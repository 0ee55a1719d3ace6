"""The result of bias/evaluate_bias.py in Markdown, readable in a terminal too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splavu.data.subjects import GENDERS
from splavu.reports.markdown import interval, markdown_table, percent

COLUMNS = ("female", "male", "overall", "gap")
"""As in the paper's table on bias."""
MIXED = "Features were anonymized IN BATCHES; released features are anonymized one at a time.\n"


def report_section(result: Mapping[str, Any]) -> str:
    """A section: the table of accuracies, the table of who was seen, and how to read both."""
    rows, people = [], []
    for name, found in result["datasets"].items():
        rows += [_features(name, features, entries) for features, entries in found["features"].items()]
        if "change" in found:
            rows.append(_change(found["change"]))
        subjects, videos, train_videos = found["subjects"], found["videos"], found["train_videos"]
        counts = (str(counted[gender]) for counted in (subjects, videos, train_videos) for gender in GENDERS)
        classes = next(iter(found["features"].values()))["equalised_odds"]["classes_compared"]
        people.append([name, *counts, str(classes)])
    header = ["data set", "features", *COLUMNS, "male - female", "worst", "equalised odds", "permuted"]
    counted = [
        f"{what}, {gender}" for what in ("test subjects", "test videos", "training videos") for gender in GENDERS
    ]
    return "\n".join(
        (
            "## Recognition of women and of men\n",
            markdown_table(header, rows),
            markdown_table(["data set", *counted, "classes compared"], people),
            f"Top-1 accuracy of fresh linear heads in per cent, mean of {len(result['seeds'])} seeds; brackets hold "
            "95% intervals, clustered by subject.\n"
            "Gender as perceived by annotators. Gap: the better recognised gender less the other.\n"
            "Equalised odds: mean over classes of the larger difference in right or false alarms, 0 is parity; luck "
            "alone gives about the value under 'permuted', where subjects swap genders.\n",
            *_too_few(result),
            *([MIXED] if result["served"] == "batch" else []),
        )
    )


FEW_SUBJECTS = 10
"""Of fewer the bootstrap's intervals are too narrow."""


def _too_few(result: Mapping[str, Any]) -> list[str]:
    names = [name for name, found in result["datasets"].items() if min(found["subjects"].values()) < FEW_SUBJECTS]
    listed = ", ".join(names)
    warning = f"Fewer than {FEW_SUBJECTS} test subjects of a gender: {listed}; intervals there are too narrow.\n"
    return [warning] if names else []


def _estimate(entry: Mapping[str, Any]) -> str:
    return f"{percent(entry['value'])} {interval(entry['interval'], 100, 1)}"


def _moved(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    return f"{100 * entry['value']:+.1f} {interval(entry['interval'], 100, 1)}"


def _features(name: str, features: str, entries: Mapping[str, Any]) -> list[str]:
    odds, worst = entries["equalised_odds"], entries["worst"]
    return [
        name,
        features,
        *(_estimate(entries[column]) for column in COLUMNS),
        f"{100 * entries['difference']['value']:+.1f}",
        f"{worst['gender']} {percent(worst['value'])}",
        *((_estimate(odds), f"{percent(odds['permuted'])} (p {odds['p']:.3f})") if odds["value"] is not None else "--"),
    ]


def _change(change: Mapping[str, Any]) -> list[str]:
    return [
        "",
        "change",
        *(_moved(change[column]) for column in COLUMNS),
        f"{100 * change['difference']['value']:+.1f}",
        f"{100 * change['worst']['value']:+.1f}",
        _moved(change["equalised_odds"]),
        "",
    ]
