"""VP-HMDB51 and VP-UCF101 of the synthetic world: five private attributes of each video, in the label files' format.

Labels only, of the videos of the sets `hmdb51` and `ucf101`, all splits in one file. The five attributes come from the
seven of the world: `face` holds for a complete and for a partial one, `nudity` means bare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from splavu.synthetic.datasets.ucf101 import class_name
from splavu.synthetic.drawing.render import ATTRIBUTES
from splavu.synthetic.layouts import video_name, write_csv
from splavu.synthetic.plans import Plan
from splavu.synthetic.trimmed import Trimmed

NAME = "vp"
SOURCES: Mapping[str, tuple[str, ...]] = {
    "skin_color": ("skin_color",),
    "face": ("complete_face", "partial_face"),
    "gender": ("gender",),
    "nudity": ("semi_nudity",),
    "relationship": ("personal_relationship",),
}
"""Attribute, in the files' order -> those of `render.ATTRIBUTES` of which one must hold."""


@dataclass(frozen=True)
class Labelled:
    """One video of another set."""

    path: str
    """Below that set's folder `videos`."""
    plan: Plan

    @property
    def label(self) -> str:
        """Such as "[0. 1. 0. 1. 1.]"."""
        held = dict(zip(ATTRIBUTES, self.plan.attributes, strict=True))
        numbers = " ".join(f"{max(held[source] for source in sources)}." for sources in SOURCES.values())
        return f"[{numbers}]"


def of_hmdb51(splits: Mapping[str, Sequence[Plan]]) -> list[Labelled]:
    return [Labelled(f"{plan.action}/{video_name(plan)}", plan) for plans in splits.values() for plan in plans]


def of_ucf101(splits: Mapping[str, Sequence[Trimmed]]) -> list[Labelled]:
    return [Labelled(f"{class_name(v.plan.action)}/{v.name}", v.plan) for videos in splits.values() for v in videos]


def write_labels(folder: Path, sets: Mapping[str, Sequence[Labelled]]) -> None:
    """`vp<set>_labels_num.csv` of each set: columns filename and label."""
    for name, videos in sets.items():
        write_csv(folder / f"vp{name}_labels_num.csv", ("filename", "label"), ((v.path, v.label) for v in videos))
