"""Trimmed videos under the file names of a real set, and the table that says who is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from splavu.synthetic.drawing.render import ATTRIBUTES
from splavu.synthetic.drawing.scenes import KINDS
from splavu.synthetic.layouts import write_csv
from splavu.synthetic.plans import Plan


@dataclass(frozen=True)
class Trimmed:
    """One video of one action."""

    name: str
    """File name with extension."""
    plan: Plan


def write_private_labels(folder: Path, splits: Mapping[str, Sequence[Trimmed]]) -> None:
    """`private_labels.csv`: subject, split, the seven attributes, action, backdrop and length of each video."""
    header = ("filename", "subject", "split", *ATTRIBUTES, "action", "background", "num_frames")
    rows = (
        (v.name, v.plan.subject.name, split, *v.plan.attributes, v.plan.action, KINDS[v.plan.kind].name,
         v.plan.num_frames)
        for split, videos in splits.items()
        for v in videos
    )  # fmt: skip
    write_csv(folder / "private_labels.csv", header, rows)
