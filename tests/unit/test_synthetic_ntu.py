"""The set in NTU RGB+D's layout: names, subjects, genders, and that hands go where a gesture wants them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from splavu.data.csv_table import read_rows
from splavu.data.keys import file_key
from splavu.data.private_labels import read_private_table
from splavu.data.splits import NTU_LEFT_OUT_SUBJECTS, NTU_TEST_SUBJECTS, ntu_bias_side, ntu_name, ntu_split
from splavu.data.subjects import read_ntu_genders
from splavu.synthetic.datasets import ntu
from splavu.synthetic.people import daily_actions
from splavu.synthetic.people.motions import LEFT, MOTIONS, RIGHT, Gait, Motion, rest
from splavu.synthetic.people.skeleton import Body, joints
from splavu.synthetic.world import SETS, SIZES, plan_world, synthesize

pytest.importorskip("cv2")
av = pytest.importorskip("av")

SEED = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world"), seed=SEED, size="tiny", sets=("ntu",), workers=1)


@pytest.fixture(scope="module")
def small() -> dict[str, list]:
    return plan_world(SEED, "small", sets=("ntu",))["ntu"]


def videos_of(world: Path) -> list[str]:
    return sorted(path.name for path in (world / "ntu/videos").glob("*"))


def test_the_tables_name_every_video_and_agree_with_the_names(world: Path) -> None:
    names = videos_of(world)
    with (world / "ntu/private_labels.csv").open() as file:
        rows = {row["filename"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == names
    assert len(names) <= 24
    split = ntu_split(names)
    genders = read_ntu_genders(world / "ntu/ntu_subject_gender_labels.json")
    for name in names:
        part, row = ntu_name(name), rows[name]
        assert name.endswith("_rgb.avi")
        assert part.subject == row["subject"]
        assert part.action == ntu.NUMBERS[row["action"]]
        assert row["split"] == ("train" if name in split.train else "test")
        assert genders[part.subject] == ("female" if row["gender"] == "1" else "male")
    labels = read_private_table(world / "ntu/private_labels.csv").of(map(file_key, names))
    assert len(labels.values) == len(names)
    assert set(labels.subjects.values()) == set(genders)
    in_test = {row["filename"]: row["gender"] for row in read_rows(world / "ntu/ntu_val_labels.csv")}
    assert in_test == {name: genders[ntu_name(name).subject] for name in split.test}


def test_tiny_videos_decode_and_make_a_biased_subset(world: Path) -> None:
    names = videos_of(world)
    genders = read_ntu_genders(world / "ntu/ntu_subject_gender_labels.json")
    for side in ("train", "test"):
        side = ntu_bias_side("ntu_bias_f", names, genders, side)
        assert {genders[ntu_name(name).subject] for name in side} == {"female", "male"}
    with av.open(str(world / "ntu/videos" / names[0])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert 34 <= len(frames) <= 44
    assert frames[0].shape == (120, 160, 3)
    assert np.abs(frames[8].astype(int) - frames[0]).max() > 60, "something moves"


def test_small_has_seven_women_and_men_in_training_and_ten_in_the_test(small: dict[str, list]) -> None:
    for split, each, repetitions in (("train", 7, 3), ("test", 10, 4)):
        subjects = {video.plan.subject.name: video.plan.subject.female for video in small[split]}
        assert Counter(subjects.values()) == {True: each, False: each}
        assert (set(subjects) <= NTU_TEST_SUBJECTS) == (split == "test")
        assert not set(subjects) & NTU_LEFT_OUT_SUBJECTS
        of_split = [video.plan.subject for video in small[split]]
        gaits = [{who.gait for who in of_split if who.female == female} for female in (False, True)]
        assert gaits[0] == gaits[1], "women and men move alike"
        cells = Counter((video.plan.action, video.plan.subject.female) for video in small[split])
        assert set(cells.values()) == {each * repetitions}
        assert len(cells) == 2 * len(ntu.NUMBERS)
    names = [video.name for videos in small.values() for video in videos]
    assert len(set(names)) == len(names) == 14 * 36 + 20 * 48


def test_the_biased_subset_of_the_small_set_has_21_to_1(small: dict[str, list]) -> None:
    genders = {v.plan.subject.name: "female" if v.plan.subject.female else "male" for vs in small.values() for v in vs}
    train = ntu_bias_side("ntu_bias_f", [v.name for vs in small.values() for v in vs], genders, "train")
    cells = Counter((ntu_name(name).action, genders[ntu_name(name).subject]) for name in train)
    for action in ntu.NUMBERS.values():
        women, men = (21, 1) if action == 4 else (1, 21)
        assert (cells[action, "female"], cells[action, "male"]) == (women, men)


def test_private_attributes_do_not_depend_on_the_action(small: dict[str, list]) -> None:
    values = np.array([video.plan.attributes for video in small["train"]], float)
    assert np.allclose(values.mean(axis=0)[1:], (0.5, 0.4, 0.35, 0.25, 0.3, 0.25), atol=0.002)
    actions = np.array([video.plan.action for video in small["train"]])
    rates = np.array([values[actions == action].mean(axis=0) for action in ntu.NUMBERS])
    assert np.abs(rates - values.mean(axis=0)).max() < 4 * 0.5 / np.sqrt(42)


def test_people_are_in_no_other_set() -> None:
    world = plan_world(0, "small", sets=("hmdb51", "vispr", "ntu", "tsh", "ucf101"))
    groups = [
        {getattr(video, "plan", video).subject.skin for video in videos}
        for splits in world.values()
        for videos in splits.values()
    ]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 50 + 16 + 34 + 100 + 50 + 34 + 18 + 25


def test_a_hand_reaches_its_place() -> None:
    """Forward kinematics of an average body undoes `reach`, on either side and as far as the arm is long."""
    body, rng = Body(), np.random.default_rng(0)
    across, up, ahead = rng.uniform(-0.15, 0.15, (3, 50))
    pose = rest(50)
    for side, outward in ((LEFT, 1.0), (RIGHT, -1.0)):
        daily_actions.reach(pose, side, across, up, ahead + 0.05, elbow_out=0.6)
        found = joints(pose, body, azimuth=0.0)
        hand = found.wrist[:, side] - found.shoulder[:, side]
        expected = np.stack((-outward * across, up, ahead + 0.05), axis=-1)
        near = np.linalg.norm(expected, axis=-1) > 0.03
        assert np.allclose(hand[near], expected[near], atol=1e-6)


def test_every_way_to_do_an_action_moves_and_repeats() -> None:
    """All that follows from the phase comes back after a cycle, or two where legs or idling are slower."""
    phase = np.linspace(0.0, 2 * np.pi, 9)
    for name, ways in daily_actions.DAILY.items():
        for motion in ways:
            first, again = (joints(motion.angles(p, Gait()), Body(), azimuth=0.4) for p in (phase, phase + 20 * np.pi))
            assert 0 < motion.period <= 1.6, name
            assert np.ptp(first.wrist, axis=0).max() + np.ptp(first.head, axis=0).max() > 0.01, name
            assert np.isfinite(first.wrist).all(), name
            assert np.allclose(first.wrist, again.wrist, atol=0.02), name
    assert set(ntu.NUMBERS) <= set(daily_actions.DAILY)


def test_hair_is_brushed_in_ways_of_which_each_resembles_another_action() -> None:
    """Over a cycle the wrists of the doubles are nearer to each other than to the hands of somebody who stands."""

    def wrists(motion: Motion) -> np.ndarray:
        pose = motion.angles(np.linspace(0.0, 2 * np.pi, 32), Gait())
        return joints(pose, Body(), azimuth=0.0).wrist.mean(axis=0)

    for way, double in enumerate(("clap", "bow", "phone_call", "wave")):
        hair, other = (wrists(daily_actions.DAILY[name][k]) for name, k in (("brush_hair", way), (double, 0)))
        if double != "bow":  # the trunk makes the likeness there
            assert np.linalg.norm(hair - other) < 0.3 * np.linalg.norm(hair - wrists(MOTIONS["stand"]))


def test_scene_bias_ties_the_backdrop_to_the_action() -> None:
    kinds = {}
    for bias in (0.0, 1.0):
        plans = plan_world(0, "small", scene_bias=bias, sets=("ntu",))["ntu"]["train"]
        kinds[bias] = len({video.plan.kind for video in plans if video.plan.action == "wave"})
    assert kinds[1.0] == 1
    assert kinds[0.0] > 6


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    again = synthesize(tmp_path / "again", seed=SEED, size="tiny", sets=("ntu",), workers=2)
    assert videos_of(again) == videos_of(world)
    for path in (world / "ntu").rglob("*.*"):
        assert (again / path.relative_to(world)).read_bytes() == path.read_bytes()


def test_the_manifest_and_the_card_tell_of_the_set(world: Path) -> None:
    manifest = json.loads((world / "MANIFEST.json").read_text())
    assert manifest["sets"]["ntu"]["counts"] == {"train": 12, "test": 12}
    assert SETS["ntu"].card in (world / "README.md").read_text()
    assert SIZES["full"].ntu["train"].subjects == 14
