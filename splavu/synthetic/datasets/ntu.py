"""Daily gestures in the layout of NTU RGB+D, for its gender-biased subsets.

Note: this set is not biased. Every subject does every action equally often, and the private attributes are independent
of the action; `splits.ntu_bias_side` builds the biased subsets from these videos. Unlike in the other sets, brushing
hair resembles further actions (`daily_actions`): without such near doubles a head would hardly use gender, and the
biased subsets would do next to no harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from splavu.data.splits import NTU_LEFT_OUT_SUBJECTS, NTU_TEST_SUBJECTS
from splavu.runtime.files import write_bytes
from splavu.synthetic.layouts import encode_avi, write_csv
from splavu.synthetic.people.daily_actions import film_daily, tied_to_scenes
from splavu.synthetic.plans import Plan, Split, generator, sample_plans, sample_subjects
from splavu.synthetic.trimmed import Trimmed, write_private_labels

NAME = "ntu"
NUMBERS: Mapping[str, int] = {
    "drink": 1, "brush_teeth": 3, "brush_hair": 4, "pick_up": 6, "throw": 7, "sit_down": 8, "clap": 10, "cheer": 22,
    "wave": 23, "phone_call": 28, "play_phone": 29, "bow": 35,
}  # fmt: skip
"""Action -> its number in NTU RGB+D, as in `A004`."""
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "train": tuple(sorted({f"P{n:03d}" for n in range(1, 41)} - NTU_TEST_SUBJECTS - NTU_LEFT_OUT_SUBJECTS)),
    "test": tuple(sorted(NTU_TEST_SUBJECTS)),
}
"""The subject protocol; those left out are not in this set."""


def sample_videos(
    seed: int,
    splits: Mapping[str, Split],
    *,
    actions: Sequence[str] = tuple(NUMBERS),
    lengths: tuple[int, int],
    scene_bias: float = 0.0,
) -> dict[str, list[Trimmed]]:
    """The videos of the splits `train` and `test`, in which everybody does the actions in turn.

    A woman and a man move alike, two by two: what a head does worse for one gender it does for how they look.

    Args:
        seed: The world's seed.
        splits: People, at most those of the protocol, and videos of each.
        actions: Keys of `NUMBERS`.
        lengths: Fewest and most frames of a video.
        scene_bias: Probability that the backdrop is the one that belongs to the action.
    """
    videos = {}
    for split, row in splits.items():
        people = sample_subjects(seed, f"{NAME}{split}", row.subjects)
        people = [
            replace(who, name=name, gait=people[place // 2 * 2].gait)
            for place, (who, name) in enumerate(zip(people, SUBJECTS[split], strict=False))
        ]
        plans = sample_plans(
            seed, f"{NAME}/{split}", people, per_subject=row.per_subject, actions=actions, lengths=lengths
        )
        plans = tied_to_scenes(plans, generator(seed, NAME, split, "scenes"), scene_bias=scene_bias)
        videos[split] = [
            Trimmed(_file_name(plan, 1 + plan.index % row.per_subject // len(actions)), plan) for plan in plans
        ]
    return videos


def _file_name(plan: Plan, repetition: int) -> str:
    """`SsssCcccPpppRrrrAaaa_rgb.avi`; setup and camera are numbers without a meaning."""
    who = plan.subject.name
    setup, camera = 1 + int(who[1:]) % 17, 1 + plan.index % 3
    return f"S{setup:03d}C{camera:03d}{who}R{repetition:03d}A{NUMBERS[plan.action]:03d}_rgb.avi"


def write_video(video: Trimmed, seed: int, split: str, folder: Path) -> None:
    path = folder / "videos" / video.name
    if not path.exists():
        write_bytes(path, encode_avi(film_daily(video.plan, seed, f"{NAME}/{split}")))


def write_labels(folder: Path, splits: Mapping[str, Sequence[Trimmed]]) -> None:
    """`ntu_subject_gender_labels.json`, `ntu_val_labels.csv` (gender in the test videos) and `private_labels.csv`."""
    gender_of = {v.plan.subject.name: _gender(v.plan) for videos in splits.values() for v in videos}
    listed = {gender: sorted(s for s in gender_of if gender_of[s] == gender) for gender in ("male", "female")}
    write_bytes(folder / "ntu_subject_gender_labels.json", (json.dumps(listed, indent=2) + "\n").encode())
    rows = ((video.name, _gender(video.plan)) for video in splits["test"])
    write_csv(folder / "ntu_val_labels.csv", ("filename", "gender"), rows)
    write_private_labels(folder, splits)


def _gender(plan: Plan) -> str:
    return "female" if plan.subject.female else "male"
