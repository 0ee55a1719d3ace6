"""The untrimmed set in THUMOS14's layout: its file, its people, and that segments are where the picture says."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from splavu.synthetic.datasets import thumos14
from splavu.synthetic.drawing.recording import chunks
from splavu.synthetic.drawing.render import FPS
from splavu.synthetic.plans import generator
from splavu.synthetic.world import MANIFEST, SIZES, UNDER_WAY, plan_world, synthesize

pytest.importorskip("cv2")
av = pytest.importorskip("av")

SEED = 3


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world"), seed=SEED, size="tiny", sets=("thumos14",), workers=1)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shown(video: thumos14.Untrimmed, frames: slice, *, seed: int = SEED, chunk: int = 64) -> np.ndarray:
    shot = thumos14.set_stage(video, generator(seed, thumos14.NAME, "video", video.name))
    return np.concatenate(list(chunks(shot, video.timeline.num_frames, chunk=chunk)))[frames]


@pytest.mark.slow
def test_the_file_has_the_fields_of_the_published_one(world: Path, shared: Path) -> None:
    ours = json.loads((world / "thumos14/thumos14.json").read_text())
    real = json.loads((shared / "annotations/thumos14.json").read_text())
    assert ours.keys() == real.keys()
    assert ours["version"] == real["version"]
    record, published = ours["database"]["video_test_0000001"], real["database"]["video_test_0000004"]
    assert {key: type(value) for key, value in record.items()} == {k: type(v) for k, v in published.items()}
    item, example = record["annotations"][0], published["annotations"][0]
    assert {key: type(value) for key, value in item.items()} == {key: type(value) for key, value in example.items()}
    assert {r["subset"] for r in ours["database"].values()} == {r["subset"] for r in real["database"].values()}


def test_annotations_agree_with_the_videos(world: Path) -> None:
    database = json.loads((world / "thumos14/thumos14.json").read_text())["database"]
    assert sorted(database) == sorted(path.stem for path in (world / "thumos14/videos").glob("*.mp4"))
    classes = ["jumping_jack", "wave"]  # the tiny world's actions but for walk, in alphabetical order
    for name, record in database.items():
        with av.open(str(world / "thumos14/videos" / f"{name}.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.average_rate, stream.width, stream.height) == (FPS, 160, 120)
            assert sum(1 for _ in container.decode(stream)) == pytest.approx(record["duration"] * FPS, abs=1e-3)
        assert record["annotations"]
        for item in record["annotations"]:
            assert item["label_id"] == classes.index(item["label"])
            start, stop = item["segment(frames)"]
            assert item["segment"] == pytest.approx([start / FPS, stop / FPS], abs=1e-6)
            assert 0 <= start < stop <= record["duration"] * FPS + 1e-3


@pytest.mark.slow
def test_the_picture_changes_where_a_segment_begins() -> None:
    """The same video without its action is the same picture up to the segment's first frame and after its last."""
    for video in plan_world(SEED, "tiny", sets=("thumos14",))["thumos14"]["test"]:
        video = replace(video, plan=replace(video.plan, companion=True))  # then nobody strolls away meanwhile
        span = video.timeline.actions[0]
        calm = replace(video, timeline=replace(video.timeline, actions=()))
        around = slice(max(0, span.start - 5), span.stop + 5)
        difference = np.abs(shown(video, around).astype(int) - shown(calm, around)).max(axis=(1, 2, 3))
        first = span.start - around.start
        assert not difference[:first].any()
        assert difference[first + 2 : first + span.stop - span.start - 2].min() > 20
        assert not difference[first + span.stop - span.start :].any()


def test_pixels_follow_from_the_seed_alone_however_many_are_rendered_at_a_time(world: Path) -> None:
    video = plan_world(SEED, "tiny", sets=("thumos14",))["thumos14"]["validation"][0]
    first, second = shown(video, slice(None), chunk=40), shown(video, slice(None), chunk=1000)
    assert np.array_equal(first, second)
    stored = decode(world / "thumos14/videos" / f"{video.name}.mp4")
    assert stored.shape == first.shape
    assert np.abs(stored.astype(int) - first).mean() < 6, "what the codec loses"


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    again = synthesize(tmp_path / "again", seed=SEED, size="tiny", sets=("thumos14",), workers=2)
    assert contents(again) == contents(world)


def test_test_people_are_not_among_the_training_people_nor_in_other_sets() -> None:
    world = plan_world(0, "small", sets=("hmdb51", "vispr", "thumos14"))
    skins = [{p.subject.skin for p in plans} for name in ("hmdb51", "vispr") for plans in world[name].values()]
    skins += [{video.plan.subject.skin for video in videos} for videos in world["thumos14"].values()]
    assert len(set.union(*skins)) == sum(map(len, skins)) == 50 + 16 + 34 + 100 + 50 + 30 + 15


def test_private_labels_name_every_video(world: Path) -> None:
    with (world / "thumos14/private_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    database = json.loads((world / "thumos14/thumos14.json").read_text())["database"]
    assert {row["filename"]: row["split"] for row in rows} == {
        f"{k}.mp4": v["subset"].lower() for k, v in database.items()
    }


def test_small_videos_are_varied_and_every_class_is_tested() -> None:
    videos = plan_world(0, "small", sets=("thumos14",))["thumos14"]
    assert {split: len(of_split) for split, of_split in videos.items()} == {"validation": 60, "test": 30}
    for of_split in videos.values():
        spans = [span for video in of_split for span in video.timeline.actions]
        assert {span.motion for span in spans} == set(thumos14.CLASSES)
        seconds = np.array([(span.stop - span.start) / FPS for span in spans])
        assert seconds.min() >= 1.49
        assert seconds.max() <= 8.01
        acting = np.concatenate([video.timeline.is_acting() for video in of_split])
        assert 0.3 < acting.mean() < 0.6
        assert all(video.timeline.actions for video in of_split)
    kinds = [len({span.motion for span in video.timeline.actions}) for video in videos["validation"]]
    assert set(kinds) == {1, 2}


@pytest.mark.slow
def test_a_set_is_added_without_touching_those_that_are_there(world: Path, tmp_path: Path) -> None:
    root = synthesize(tmp_path / "root", seed=SEED, size="tiny", sets=("vispr",), workers=1)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (root / "vispr").rglob("*") if p.is_file()}
    synthesize(root, seed=SEED, size="tiny", sets=("vispr", "thumos14"), workers=1)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before
    assert contents(root / "thumos14") == contents(world / "thumos14")
    assert list(json.loads((root / MANIFEST).read_text())["sets"]) == ["vispr", "thumos14"]
    assert "THUMOS14" in (root / "README.md").read_text()
    assert not (root / UNDER_WAY).exists()


def test_real_data_in_the_place_of_a_set_are_not_touched(tmp_path: Path) -> None:
    root = synthesize(tmp_path / "root", seed=SEED, size="tiny", sets=("vispr",), workers=1)
    (root / "thumos14").mkdir()
    with refused("thumos14"):
        synthesize(root, seed=SEED, size="tiny", sets=("thumos14",), workers=1)
    assert list((root / "thumos14").iterdir()) == []


def test_the_tiny_set_is_tiny() -> None:
    assert sum(split.subjects * split.per_subject for split in SIZES["tiny"].thumos14.values()) <= 8
