"""Daily activities in the layout of Toyota Smarthome: few subjects, more men than women, who do different things.

Note: this is the one set in which an attribute depends on the action. Women are filmed more often at some activities
and men at others (`LEANING`), and most of the training videos show men, as in real data that are not balanced; the
other attributes are independent of the activity.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from splavu.runtime.files import write_bytes
from splavu.synthetic.drawing.recording import chunks, write_mp4
from splavu.synthetic.layouts import write_csv
from splavu.synthetic.people.daily_actions import stage_daily, tied_to_scenes
from splavu.synthetic.people.subjects import Subject, sample_subject
from splavu.synthetic.plans import Split, generator, sample_plans
from splavu.synthetic.trimmed import Trimmed, write_private_labels

NAME = "tsh"
MOTION_OF: Mapping[str, str] = {
    "Cook.Cleandishes": "wash_up", "Cook.Stir": "stir", "Cook.Usestove": "pick_up", "Drink.Frombottle": "drink",
    "Eat.Snack": "eat", "Leave": "turn", "Readbook": "read_book", "Sitdown": "sit_down", "Takepills": "take_pills",
    "Usetablet": "play_phone", "Usetelephone": "phone_call", "Walk": "walk",
}  # fmt: skip
"""Activity of Toyota Smarthome -> key of `daily_actions.DAILY`. A label is 1 more than the place in this order."""
LEANING: Mapping[str, float] = {
    "Cook.Cleandishes": 0.5, "Cook.Stir": 0.5, "Cook.Usestove": 0.3, "Readbook": 0.3, "Usetelephone": 0.4,
    "Drink.Frombottle": -0.5, "Leave": -0.4, "Usetablet": -0.5,
}  # fmt: skip
"""Activity -> log of how much more often than on average women are filmed at it, and men less; 0 if not listed."""
WOMEN: Mapping[str, tuple[str, ...]] = {"train": ("p07", "p13", "p19"), "test": ("p02", "p11", "p16", "p20")}
MEN: Mapping[str, tuple[str, ...]] = {
    "train": ("p03", "p04", "p06", "p09", "p12", "p15", "p17", "p25"), "test": ("p10", "p14", "p18"),
}  # fmt: skip
"""The training subjects are those of the real set's cross-subject split; their genders are invented."""


def sample_videos(
    seed: int,
    splits: Mapping[str, Split],
    *,
    activities: Sequence[str] = tuple(MOTION_OF),
    lengths: tuple[int, int],
    scene_bias: float = 0.0,
) -> dict[str, list[Trimmed]]:
    """The videos of the splits `train` and `test`; who does what is drawn, so counts differ.

    Args:
        seed: The world's seed.
        splits: People, at most those of the cross-subject split, and videos of each.
        activities: Keys of `MOTION_OF`.
        lengths: Fewest and most frames of a video.
        scene_bias: Probability that the backdrop is the one that belongs to the activity.
    """
    videos = {}
    for split, row in splits.items():
        people = _people(seed, split, row.subjects)
        rng = generator(seed, NAME, split, "activities")
        plans = sample_plans(seed, f"{NAME}/{split}", people, per_subject=row.per_subject, lengths=lengths)
        chosen = [activities[int(rng.choice(len(activities), p=_shares(plan.subject, activities)))] for plan in plans]
        plans = [replace(plan, action=MOTION_OF[name]) for plan, name in zip(plans, chosen, strict=True)]
        plans = tied_to_scenes(plans, generator(seed, NAME, split, "scenes"), scene_bias=scene_bias)
        count: Counter[tuple[str, str]] = Counter()
        videos[split] = []
        for plan, activity in zip(plans, chosen, strict=True):
            who = plan.subject.name
            view, camera = 1 + plan.index % 2, 1 + plan.index % 7
            name = f"{activity}_{who}_r{count[who, activity]:02d}_v{view:02d}_c{camera:02d}.mp4"
            count[who, activity] += 1
            videos[split].append(Trimmed(name, plan))
    return videos


def _people(seed: int, split: str, count: int) -> list[Subject]:
    """The first subjects of a split, women and men in turn while there are both; skin tones alternate."""
    women, men = WOMEN[split], MEN[split]
    names = [name for pair in zip_longest(women, men) for name in pair if name is not None][:count]
    return [
        sample_subject(generator(seed, NAME, "subject", name), name, dark_skin=bool(k // 2 % 2), female=name in women)
        for k, name in enumerate(names)
    ]


def _shares(subject: Subject, activities: Sequence[str]) -> np.ndarray:  # -> [C], sums to 1
    sign = 1.0 if subject.female else -1.0
    shares = np.exp([sign * LEANING.get(activity, 0.0) for activity in activities])
    return shares / shares.sum()


def write_video(video: Trimmed, seed: int, split: str, folder: Path) -> None:
    path = folder / "videos" / video.name
    if not path.exists():
        shot = stage_daily(video.plan, generator(seed, f"{NAME}/{split}", "video", video.plan.index))
        write_mp4(path, chunks(shot, video.plan.num_frames))


def write_labels(
    folder: Path, splits: Mapping[str, Sequence[Trimmed]], activities: Sequence[str] = tuple(MOTION_OF)
) -> None:
    """`tsh_labels.csv`, `tsh_class_mapping.json` and `private_labels.csv`."""
    label_of = {activity: number for number, activity in enumerate(activities, start=1)}
    write_bytes(folder / "tsh_class_mapping.json", (json.dumps(label_of, indent=2) + "\n").encode())
    label_of_motion = {MOTION_OF[activity]: label for activity, label in label_of.items()}
    rows = (
        (v.name, v.plan.subject.name, "female" if v.plan.subject.female else "male", split,
         label_of_motion[v.plan.action])
        for split, videos in splits.items()
        for v in videos
    )  # fmt: skip
    write_csv(folder / "tsh_labels.csv", ("filename", "subject", "gender", "split", "label"), rows)
    write_private_labels(folder, splits)
