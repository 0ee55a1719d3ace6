"""A report's section on who it is: linking people, undoing the release, membership."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splavu.audit.report.cells import estimate_cell, number
from splavu.audit.report.markup import Content, cell, element, table

LINKED = {
    "rank1": ("rank-1", 100, 1),
    "rank5": ("rank-5", 100, 1),
    "mean_ap": ("mean AP", 100, 1),
    "eer": ("EER", 1, 3),
    "d_sys": ("D_sys", 1, 3),
    "d_sys_corrected": ("D_sys corrected", 1, 3),
    "same_video_rank1": ("same video", 100, 1),
}
"""Key of the evidence -> column, factor and digits."""
INVERTED = {
    "explained": ("variance explained", 100, 1),
    "explained_between_people": ("between people", 100, 1),
    "median_rank": ("median rank", 1, 0),
    "top1": ("found first", 100, 1),
}
MEMBERS = {
    "auc": ("AUC of clips", 1, 3),
    "person_auc": ("AUC of persons", 1, 3),
    "tpr_at_1_percent": ("TPR at 1 % FPR", 100, 1),
}
PAIRINGS = {
    "raw to raw": "in raw features",
    "released to released": "in the release",
    "raw to released": "in the release, by someone who kept raw features",
}
UNDOING = (
    "Undoing the release: a map from released features back to raw ones, learnt from other people. What it brings back "
    "is at an attacker's disposal again."
)


def identity(evidence: Mapping[str, Any]) -> Content:
    """Linking, inversion, membership; each is named where it is missing."""
    parts = [*_linkage(evidence.get("linkage") or {}), *_inversion(evidence.get("inversion") or {})]
    parts += _membership(evidence.get("membership") or {})
    return element(
        "section",
        element("h2", "Who it is: linking, undoing, membership"),
        parts or element("p", "Not part of this audit."),
    )


def _linkage(linkage: Mapping[str, Any]) -> list[Content]:
    if not linkage:
        return []
    told, rows = [], []
    for name, one in linkage.items():
        if "skipped" in one:
            rows.append((name, cell(f"not run: {one['skipped']}", class_="word", colspan=len(LINKED) + 2)))
            continue
        cells = [estimate_cell(one.get(key), f, d, with_chance=True) for key, (_, f, d) in LINKED.items()]
        rows.append((name, *cells, number(one.get("p"), 1, 3), one.get("metric") or "–"))
        rank1 = one.get("rank1") or {}
        if name in PAIRINGS and rank1.get("value") is not None:
            chance = number(rank1.get("chance"), 100, 1)
            told.append(f"{PAIRINGS[name]} for {number(rank1['value'], 100, 1)} % of videos (chance {chance} %)")
    header = ("between", *(column for column, _, _ in LINKED.values()), "p", "similarity")
    said = f"Given a video of a person, the most similar other one is of the same person {'; '.join(told)}."
    return [
        element("p", said) if told else None,
        table("Linking videos of one person, with 95 % intervals and chance", header, rows, words=("similarity",)),
    ]


def _inversion(inversion: Mapping[str, Any]) -> list[Content]:
    if not inversion:
        return []
    rows = []
    for name, one in inversion.items():
        cells = [estimate_cell(one.get(key), f, d, with_chance=True) for key, (_, f, d) in INVERTED.items()]
        rows.append((name, *cells, str(one.get("num_rows", "–"))))
    header = ("map", *(column for column, _, _ in INVERTED.values()), "clips")
    return [element("p", UNDOING), table("Raw features brought back; per cent, but for ranks", header, rows)]


def _membership(membership: Mapping[str, Any]) -> list[Content]:
    if not membership:
        return []
    if "skipped" in membership:
        return [element("p", f"Membership was not tested: {membership['skipped']}.")]
    rows = [
        (name, *(estimate_cell(one.get(key), f, d, with_chance=True) for key, (_, f, d) in MEMBERS.items()))
        for name, one in membership.items()
        if isinstance(one, Mapping)
    ]
    said = "Membership: does it show who the anonymizer learnt from?"
    if assumes := membership.get("assumes"):
        said += f" This assumes that {assumes}."
    header = ("signal", *(column for column, _, _ in MEMBERS.values()))
    caption = "Telling training people from others by how far the release moved their features"
    return [element("p", said), table(caption, header, rows)]
