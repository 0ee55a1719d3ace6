"""The set in UCF101's layout: lists, classes, groups."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from splavu.data.labels import read_ucf_labels
from splavu.data.private_labels import read_private_table
from splavu.synthetic.datasets import ucf101
from splavu.synthetic.people.motions import ACTIONS
from splavu.synthetic.world import plan_world, synthesize

pytest.importorskip("cv2")
pytest.importorskip("av")

SEED = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world"), seed=SEED, size="tiny", sets=("ucf101",), workers=1)


def test_lists_name_every_video_with_its_class(world: Path) -> None:
    folder = world / "ucf101"
    there = {path.stem: path.parent.name for path in folder.glob("videos/*/*.avi")}
    labels = {
        split: read_ucf_labels(folder / f"ucfTrainTestlist/{split}list01.txt", folder / "action_classes.json")
        for split in ("train", "test")
    }
    assert sorted(labels["train"] | labels["test"]) == sorted(there)
    assert not set(labels["train"]) & set(labels["test"])
    classes = ["JumpingJack", "Walk", "Wave"]  # the tiny world's actions in alphabetical order
    assert labels["train"] | labels["test"] == {name: classes.index(of) for name, of in there.items()}


def test_lines_have_the_form_of_the_published_ones(world: Path) -> None:
    lists = world / "ucf101/ucfTrainTestlist"
    for line in (lists / "trainlist01.txt").read_text().splitlines():
        assert re.fullmatch(r"(\w+)/v_\1_g(0[89]|[12]\d)_c\d\d\.avi [123]", line)
    for line in (lists / "testlist01.txt").read_text().splitlines():
        assert re.fullmatch(r"(\w+)/v_\1_g0[1-7]_c\d\d\.avi", line)


def test_a_group_is_one_person(world: Path) -> None:
    table = read_private_table(world / "ucf101/private_labels.csv")
    assert all(f"_{subject}_" in name for name, subject in zip(table.names, table.subjects, strict=True))
    with (world / "ucf101/private_labels.csv").open() as file:
        for row in csv.DictReader(file):
            assert ucf101.class_name(row["action"]) in row["filename"]
            assert (row["split"] == "test") == (int(row["subject"][1:]) <= 7)


def test_small_has_25_groups_with_a_clip_of_each_class() -> None:
    splits = plan_world(SEED, "small", sets=("ucf101",))["ucf101"]
    cells = Counter((v.plan.subject.name, v.plan.action) for videos in splits.values() for v in videos)
    assert len(cells) == 25 * len(ACTIONS) == 300
    assert set(cells.values()) == {1}
    skins = [{video.plan.subject.skin for video in videos} for videos in splits.values()]
    assert not skins[0] & skins[1]


def test_full_counts_the_clips_of_a_group() -> None:
    names = [v.name for videos in plan_world(SEED, "full", sets=("ucf101",))["ucf101"].values() for v in videos]
    assert len(set(names)) == len(names)
    assert "v_JumpingJack_g25_c05.avi" in names


def test_two_processes_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    again = synthesize(tmp_path / "again", seed=SEED, size="tiny", sets=("ucf101",), workers=2)
    files = [path for path in (world / "ucf101").rglob("*.*")]
    assert len(files) == 12 + 4
    for path in files:
        assert (again / path.relative_to(world)).read_bytes() == path.read_bytes()
