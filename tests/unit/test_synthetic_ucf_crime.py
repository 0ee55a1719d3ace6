"""The surveillance set in UCF-Crime's layout: names, lists, and a truth per frame that is what the picture shows."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splavu.synthetic.datasets import ucf_crime
from splavu.synthetic.drawing.recording import chunks
from splavu.synthetic.drawing.render import FPS
from splavu.synthetic.people import surveillance
from splavu.synthetic.people.mishaps import MISHAPS
from splavu.synthetic.people.motions import Gait, assume
from splavu.synthetic.people.skeleton import Body, joints
from splavu.synthetic.plans import Split, generator
from splavu.synthetic.world import plan_world, synthesize

pytest.importorskip("cv2")
av = pytest.importorskip("av")

SEED = 3
ABNORMAL = {split: round(0.45 * count) for split, count in (("train", 80), ("test", 34))}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = synthesize(tmp_path_factory.mktemp("world"), seed=SEED, size="tiny", sets=("ucf_crime",), workers=1)
    return root / "ucf_crime"


@pytest.fixture(scope="module")
def videos() -> dict[str, list[surveillance.Footage]]:
    return plan_world(SEED, "tiny", sets=("ucf_crime",))["ucf_crime"]


@pytest.fixture(scope="module")
def small() -> dict[str, list[surveillance.Footage]]:
    return plan_world(0, "small", sets=("ucf_crime",))["ucf_crime"]


def names(path: Path) -> list[str]:
    """The videos' names as a reader of the published lists takes them."""
    return [line.split("/")[-1][:-4] for line in path.read_text().splitlines()]


def shown(video: surveillance.Footage, frames: slice) -> np.ndarray:
    shot = surveillance.set_stage(video, generator(SEED, "shown", video.name))
    return np.concatenate(list(chunks(shot, video.num_frames)))[frames]


@pytest.mark.slow
def test_lists_follow_the_rules_of_the_published_ones(world: Path, shared: Path) -> None:
    train, test = names(world / "ucf-i3d.list"), names(world / "ucf-i3d-test.list")
    assert sorted(train + test) == sorted(path.stem for path in (world / "videos").glob("*.mp4"))
    published = shared / "annotations/vad_lists"
    for ours, theirs in ((train, "ucf-i3d.list"), (test, "ucf-i3d-test.list")):
        for those in (ours, names(published / theirs)):
            assert all(re.fullmatch(r"(Normal_Videos_?|[A-Z][A-Za-z]+)\d{3}_x264", name) for name in those)
    for those in (train, names(published / "ucf-i3d.list")):
        is_normal = [name.startswith("Normal_") for name in those]
        assert is_normal == sorted(is_normal), "abnormal ones first"
    for those in (test, names(published / "ucf-i3d-test.list")):
        assert those == sorted(those)
        assert all(name.startswith("Normal_Videos_") for name in those if "Normal" in name)


def test_truth_covers_every_frame_of_the_test_videos_in_list_order(world: Path) -> None:
    truth = np.load(world / "gt-ucf.npy")
    assert truth.dtype == np.float64
    assert set(np.unique(truth)) == {0.0, 1.0}
    rows = {line.split()[0]: line.split()[1:] for line in
            (world / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt").read_text().splitlines()}  # fmt: skip
    start = 0
    for name in names(world / "ucf-i3d-test.list"):
        with av.open(str(world / "videos" / f"{name}.mp4")) as container:
            num_frames = sum(1 for _ in container.decode(video=0))
        assert num_frames % 32 == 0
        label, *numbers = rows[f"{name}.mp4"]
        expected = np.zeros(num_frames)
        for first, last in zip(numbers[::2], numbers[1::2], strict=True):
            if int(first) >= 0:
                expected[int(first) : int(last) + 1] = 1.0  # the last frame counts in
        assert label == ("Normal" if name.startswith("Normal_") else name[:-8])
        assert expected.any() == (label != "Normal")
        np.testing.assert_array_equal(truth[start : start + num_frames], expected)
        start += num_frames
    assert start == len(truth)


@pytest.mark.slow
def test_the_same_video_without_its_anomaly_differs_exactly_while_it_lasts(videos) -> None:
    """A fall and a brawl show from the second or third frame on; a runner takes a third of a second to come in."""
    seen = set()
    for video in (video for of_split in videos.values() for video in of_split if video.anomaly):
        calm = replace(
            video,
            main=replace(video.main, actions=tuple(s for s in video.main.actions if s.motion not in MISHAPS)),
            other=replace(video.other, actions=tuple(s for s in video.other.actions if s.motion not in MISHAPS)),
            encounters=tuple(span for span in video.encounters if span.motion != "brawl"),
        )
        (start, stop), *_ = video.events
        if video.anomaly == "Fleeing":  # taking the runner out would cast the next passer-by again
            away = tuple(replace(c, start=10**6) if c.motion == "run" else c for c in video.crossings)
            calm = replace(video, crossings=away)
        begin, end = start - 3, min(stop + 3, video.num_frames)
        # One who fights doesn't stroll meanwhile, so afterwards the stroll goes on elsewhere: compare up to the end.
        difference = np.abs(shown(video, slice(begin, end)).astype(int) - shown(calm, slice(begin, end)))
        changed = difference.max(axis=(1, 2, 3)) > 8
        assert not changed[:3].any()
        slack = 15 if video.anomaly == "Fleeing" else 3
        assert changed[3 : 3 + slack].any()
        assert changed[3 + slack : stop - begin - slack].all()
        if video.anomaly == "Fleeing":
            assert not difference[stop - begin :].any()
        seen.add(video.anomaly)
    assert seen == set(ucf_crime.ANOMALIES)


def test_who_has_fallen_lies_on_the_ground() -> None:
    for name in ("fall_back", "fall_forward"):
        points = joints(assume(MISHAPS[name], np.linspace(0, 6, 20), gait=Gait()), Body(), azimuth=np.pi / 2)
        highest = np.max([points.head[..., 1], points.knee[..., 1].max(1), points.pelvis[..., 1]], axis=0)
        assert highest.max() < 0.3, "body heights; who stands has the head at 0.9"
        assert np.ptp(points.head[..., 0] - points.ankle[..., 0].mean(1)) < 0.2
        assert np.abs(points.head[..., 0] - points.ankle[..., 0].mean(1)).min() > 0.6


@pytest.mark.parametrize("sweeps", [1, 2, 3])
def test_a_crossing_is_out_of_sight_before_and_after_and_in_sight_meanwhile(sweeps: int) -> None:
    crossing = surveillance.Crossing("run", sweeps, speed=0.5, rightwards=False, start=50)
    column, azimuth = surveillance.path(crossing, 400)
    stop = 50 + crossing.num_frames
    inside = np.flatnonzero((column > 0) & (column < 1))
    assert np.array_equal(inside, np.arange(inside[0], inside[-1] + 1))
    assert inside[0] > 50
    assert inside[-1] < stop
    outside = np.r_[column[:51], column[stop:]]
    assert (np.abs(outside - 0.5) >= 0.74).all(), "a quarter of the frame beyond its edges"
    moving = np.diff(column)[50 : stop - 1]
    assert np.abs(moving).max() <= 0.5 / FPS + 1e-9
    assert np.count_nonzero(np.diff(np.sign(moving[moving != 0]))) == sweeps - 1
    ahead = np.sign(np.diff(column)) == np.sign(azimuth[1:])
    assert ahead[50 : stop - 1].mean() > 0.9, "people run where they look, but for the turns"
    assert np.abs(np.diff(azimuth)).max() < 0.5, "and turn round within some frames"


def test_small_set_is_mostly_calm_and_every_anomaly_is_tested(small) -> None:
    for split, of_split in small.items():
        abnormal = [video for video in of_split if video.anomaly]
        assert len(abnormal) == ABNORMAL[split]
        assert {video.anomaly for video in abnormal} == set(ucf_crime.ANOMALIES)
        assert all(1 <= len(video.events) <= 2 for video in abnormal)
        assert not any(video.events for video in of_split if not video.anomaly)
        truth = np.concatenate([video.is_abnormal() for video in of_split])
        assert 0.1 < truth.mean() < 0.3
        assert all(14 * FPS - 32 < video.num_frames <= 26 * FPS + 32 for video in of_split)
        for video in of_split:
            ends = [0, *(frame for event in video.events for frame in event), video.num_frames]
            assert ends == sorted(ends)


def test_an_abnormal_video_has_its_anomaly_however_short_it_is() -> None:
    for seed in range(10):
        of_split = ucf_crime.sample_videos(seed, {"train": Split(10, 2)}, seconds=(8.0, 9.0), abnormal=1.0)["train"]
        for video in of_split:
            assert video.events
            assert video.events[-1][1] <= video.num_frames - 30
            assert all(0 <= s.start < s.stop <= video.num_frames for s in (*video.main.actions, *video.other.actions))


def test_people_and_places_of_the_test_videos_are_not_in_training(small) -> None:
    others = plan_world(0, "small", sets=("hmdb51", "vispr", "thumos14"))
    skins = [{video.plan.subject.skin for video in of_split} for of_split in small.values()]
    for sets in others.values():
        for plans in sets.values():
            skins.append({getattr(plan, "plan", plan).subject.skin for plan in plans})
    assert len(set.union(*skins)) == sum(map(len, skins))
    places = [
        surveillance.set_stage(video, generator(0, "ucf_crime", "video", video.name)).scene.seed
        for of_split in small.values()
        for video in of_split[:6]
    ]
    assert len(set(places)) == len(places)


def test_private_labels_name_every_video(world: Path) -> None:
    with (world / "private_labels.csv").open() as file:
        rows = {row["filename"][:-4]: row for row in csv.DictReader(file)}
    for split, listed in (("train", "ucf-i3d.list"), ("test", "ucf-i3d-test.list")):
        assert sorted(name for name, row in rows.items() if row["split"] == split) == sorted(names(world / listed))
    assert all((row["label"] == "Normal") == name.startswith("Normal_") for name, row in rows.items())


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    again = synthesize(tmp_path / "again", seed=SEED, size="tiny", sets=("ucf_crime",), workers=2) / "ucf_crime"
    assert {p.name: p.read_bytes() for p in again.rglob("*") if p.is_file()} == {
        p.name: p.read_bytes() for p in world.rglob("*") if p.is_file()
    }
