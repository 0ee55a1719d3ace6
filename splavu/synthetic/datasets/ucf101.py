"""The world's actions in the layout of UCF101: classes in folders, groups of clips, lists of file names.

Note: a group is one person here, and the lists split by group, so no subject is in both splits. The class index counts
from 1, the lists of test videos carry no number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from splavu.runtime.files import write_bytes
from splavu.synthetic.layouts import encode_avi, film
from splavu.synthetic.people.motions import ACTIONS
from splavu.synthetic.plans import Plan, Split, sample_plans, sample_subjects
from splavu.synthetic.trimmed import Trimmed, write_private_labels

NAME = "ucf101"
FIRST_GROUP: Mapping[str, int] = {"test": 1, "train": 8}
"""Split -> number of its first group: the first seven are tested on, as in UCF101's first split."""


def sample_videos(
    seed: int,
    splits: Mapping[str, Split],
    *,
    actions: Sequence[str] = ACTIONS,
    lengths: tuple[int, int],
    scene_bias: float = 0.0,
) -> dict[str, list[Trimmed]]:
    """The videos of the splits `train` and `test`, in which every group does the actions in turn.

    Args:
        seed: The world's seed.
        splits: Groups, each of one person, and videos of each.
        actions: Of `motions.ACTIONS`.
        lengths: Fewest and most frames of a video.
        scene_bias: Probability that the backdrop is the one that belongs to the action.
    """
    videos = {}
    for split, row in splits.items():
        people = sample_subjects(seed, f"{NAME}{split}", row.subjects)
        people = [replace(who, name=f"g{number:02d}") for number, who in enumerate(people, FIRST_GROUP[split])]
        plans = sample_plans(
            seed,
            f"{NAME}/{split}",
            people,
            per_subject=row.per_subject,
            actions=actions,
            lengths=lengths,
            scene_bias=scene_bias,
        )
        videos[split] = [
            Trimmed(_file_name(plan, 1 + plan.index % row.per_subject // len(actions)), plan) for plan in plans
        ]
    return videos


def class_name(action: str) -> str:
    """`jumping_jack` -> `JumpingJack`."""
    return "".join(word.capitalize() for word in action.split("_"))


def _file_name(plan: Plan, clip: int) -> str:
    return f"v_{class_name(plan.action)}_{plan.subject.name}_c{clip:02d}.avi"


def write_video(video: Trimmed, seed: int, split: str, folder: Path) -> None:
    path = folder / "videos" / class_name(video.plan.action) / video.name
    if not path.exists():
        write_bytes(path, encode_avi(film(video.plan, seed, f"{NAME}/{split}")))


def write_labels(folder: Path, splits: Mapping[str, Sequence[Trimmed]], actions: Sequence[str] = ACTIONS) -> None:
    """`ucfTrainTestlist/`, `action_classes.json` and `private_labels.csv`."""
    index_of = {class_name(action): number for number, action in enumerate(actions, start=1)}
    write_bytes(folder / "action_classes.json", (json.dumps({"classes": index_of}, indent=2) + "\n").encode())
    for split, videos in splits.items():
        lines = []
        for video in sorted(videos, key=lambda video: video.name):
            name = class_name(video.plan.action)
            lines.append(f"{name}/{video.name}" + (f" {index_of[name]}" if split == "train" else ""))
        write_bytes(folder / f"ucfTrainTestlist/{split}list01.txt", ("\n".join(lines) + "\n").encode())
    write_private_labels(folder, splits)
