"""The set in Toyota Smarthome's layout: its table, its people, and which of them do what."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from splavu.data.keys import file_key
from splavu.data.private_labels import read_private_table
from splavu.data.subjects import read_smarthome
from splavu.synthetic.datasets import smarthome
from splavu.synthetic.people.daily_actions import DAILY
from splavu.synthetic.world import plan_world, synthesize

pytest.importorskip("cv2")
av = pytest.importorskip("av")

SEED = 3
TRAINING = {"p03", "p04", "p06", "p07", "p09", "p12", "p13", "p15", "p17", "p19", "p25"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world"), seed=SEED, size="tiny", sets=("tsh",), workers=1)


@pytest.fixture(scope="module")
def small() -> dict[str, list]:
    return plan_world(SEED, "small", sets=("tsh",))["tsh"]


def test_the_table_is_read_and_agrees_with_the_names(world: Path) -> None:
    folder = world / "tsh"
    there = {path.stem for path in folder.glob("videos/*.mp4")}
    videos = read_smarthome(folder / "tsh_labels.csv")
    assert set(videos) == there
    classes = json.loads((folder / "tsh_class_mapping.json").read_text())
    assert sorted(classes.values()) == [1, 2, 3]
    labels = read_private_table(folder / "private_labels.csv", attributes=["gender"]).of(videos)
    for name, video in videos.items():
        activity, subject = re.fullmatch(r"([\w.]+)_(p\d\d)_r\d\d_v\d\d_c\d\d", name).groups()
        assert classes[activity] == video.label + 1
        assert subject == video.subject == labels.subjects[name]
        assert (video.split == "train") == (subject in TRAINING)
        assert video.gender == ("female" if labels.values[name][0] else "male")
    assert {(video.gender, video.split) for video in videos.values()} == {
        (gender, split) for gender in ("female", "male") for split in ("train", "test")
    }


def test_private_labels_tell_the_motion_of_the_activity(world: Path) -> None:
    with (world / "tsh/private_labels.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["action"] == smarthome.MOTION_OF[row["filename"].split("_")[0]]
            with av.open(str(world / "tsh/videos" / row["filename"])) as container:
                assert sum(1 for _ in container.decode(video=0)) == int(row["num_frames"])


def test_small_has_the_subjects_of_the_real_split_and_more_men_in_training(small: dict[str, list]) -> None:
    people = {split: {v.plan.subject.name: v.plan.subject.female for v in vs} for split, vs in small.items()}
    assert set(people["train"]) == TRAINING
    assert Counter(people["train"].values()) == {True: 3, False: 8}
    assert Counter(people["test"].values()) == {True: 4, False: 3}
    assert not set(people["train"]) & set(people["test"])
    assert (len(small["train"]), len(small["test"])) == (297, 203)
    names = [file_key(video.name) for videos in small.values() for video in videos]
    assert len(set(names)) == len(names)
    for videos in small.values():
        assert {video.plan.action for video in videos} == set(smarthome.MOTION_OF.values())


def test_activities_lean_to_one_gender_and_stay_mixed() -> None:
    """Over many worlds, the log of how much likelier women are at an activity is twice what the table says."""
    women, men = Counter(), Counter()
    for seed in range(12):
        for video in plan_world(seed, "full", sets=("tsh",))["tsh"]["train"]:
            (women if video.plan.subject.female else men)[video.plan.action] += 1
    share = {name: [count[motion] / count.total() for count in (women, men)]
             for name, motion in smarthome.MOTION_OF.items()}  # fmt: skip
    for name, lean in smarthome.LEANING.items():
        f, m = share[name]
        neutral = share["Walk"]
        assert np.log(f / m) - np.log(neutral[0] / neutral[1]) == pytest.approx(2 * lean, abs=0.25)
        assert min(f, m) > 0.03


def test_an_activity_is_a_motion_of_its_own() -> None:
    motions = list(smarthome.MOTION_OF.values())
    assert len(set(motions)) == len(motions) == 12
    assert set(motions) <= set(DAILY)
    assert set(smarthome.LEANING) <= set(smarthome.MOTION_OF)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    again = synthesize(tmp_path / "again", seed=SEED, size="tiny", sets=("tsh",), workers=2)
    files = [path for path in (world / "tsh").rglob("*.*")]
    assert len(files) == 18 + 3
    for path in files:
        assert (again / path.relative_to(world)).read_bytes() == path.read_bytes()
