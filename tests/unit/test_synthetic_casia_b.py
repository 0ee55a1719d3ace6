"""The gait set in Casia-B's layout: its names, its people, and what a walk shows from each view."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splavu.data.keys import file_key
from splavu.data.private_labels import read_private_table
from splavu.data.splits import CASIA_B_REPETITIONS, casia_name, casia_split
from splavu.synthetic.datasets import casia_b
from splavu.synthetic.drawing.render import FPS, render, visible_attributes
from splavu.synthetic.world import SETS, SIZES, plan_world, synthesize

pytest.importorskip("cv2")
av = pytest.importorskip("av")

SEED = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world"), seed=SEED, size="tiny", sets=("casia_b",), workers=1)


@pytest.fixture(scope="module")
def walks() -> dict[str, casia_b.Walk]:
    """The tested subjects of the small world, by video name."""
    return {walk.name: walk for walk in plan_world(SEED, "small", sets=("casia_b",))["casia_b"]["test"]}


def last_frame(walk: casia_b.Walk, **changes: object) -> np.ndarray:
    shot = casia_b.set_stage(replace(walk, **changes), SEED)
    return render(shot.scene, shot.people, np.array([walk.num_frames / FPS])).frames[0]


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # -> [H, W] bool
    return np.abs(first.astype(int) - second).max(axis=-1) > 20


@pytest.mark.slow
def test_names_are_casia_b_s_and_every_subject_walks_ten_times_before_every_camera(world: Path) -> None:
    parts = [casia_name(path.stem) for path in (world / "casia_b" / "videos").iterdir()]
    assert {part.subject for part in parts} == {"001", "002", "075", "076"}
    found = Counter((part.subject, part.walk, part.view) for part in parts)
    assert set(found) == {(s, w, v) for s in ("001", "002", "075", "076") for w in CASIA_B_REPETITIONS for v in (0, 90)}
    assert all(count == CASIA_B_REPETITIONS[walk] for (_, walk, _), count in found.items())


def test_the_split_by_repetitions_finds_each_probe_s_subject_in_the_gallery(walks: dict) -> None:
    split = casia_split(walks)
    assert (len(split.gallery), len(split.probe)) == (14 * 4 * 4, 14 * 6 * 4)
    assert {casia_name(name).walk for name in split.gallery} == {"nm"}
    assert {casia_name(name).subject for name in split.gallery} == {casia_name(name).subject for name in split.probe}


def test_the_side_table_names_every_video_with_its_subject_and_length(world: Path) -> None:
    folder = world / "casia_b"
    keys = sorted(path.stem for path in (folder / "videos").iterdir())
    table = read_private_table(folder / "private_labels.csv")
    assert len(table.names) == len(keys)
    labels = table.of(keys)
    assert list(labels.values) == keys
    assert all(casia_name(key).subject == subject for key, subject in labels.subjects.items())
    with (folder / "private_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows if int(row["subject"]) >= 75} == {"test"}
    for row in rows[::13]:
        with av.open(str(folder / "videos" / row["filename"])) as container:
            assert sum(1 for _ in container.decode(video=0)) == int(row["num_frames"])
        name = casia_name(file_key(row["filename"]))
        assert (row["walk"], int(row["view"])) == (name.walk, name.view)


def test_the_attributes_are_those_that_the_renderer_shows() -> None:
    videos = casia_b.sample_videos(SEED, {"train": 2, "test": 0})["train"]
    assert {walk.view for walk in videos} == set(casia_b.VIEWS)
    for walk in videos:
        visible = visible_attributes(casia_b.set_stage(walk, SEED).people, np.arange(walk.num_frames) / FPS)
        assert np.array_equal(visible, np.tile(walk.attributes, (walk.num_frames, 1))), walk.name


def test_no_person_is_in_two_splits_or_in_another_set() -> None:
    groups = [
        {(video if hasattr(video, "subject") else video.plan).subject.skin for video in videos}
        for name, dataset in SETS.items()
        if name not in ("pa_hmdb51", "vp")
        for videos in dataset.plan(0, SIZES["small"], 0.0).values()
    ]
    assert len(groups) > 10
    assert len(set.union(*groups)) == sum(len(group) for group in groups)


def test_a_walk_is_filmed_by_all_cameras_at_once(walks: dict) -> None:
    """The same pose, light and length, whatever the view; the backdrop depends on the camera alone."""
    front, side = (casia_b.set_stage(walks[f"080-nm-02-{view:03d}"], SEED) for view in (0, 90))
    seconds = np.arange(8) / FPS
    poses = [shot.people[0].pose(seconds) for shot in (front, side)]
    assert np.array_equal(poses[0].hip, poses[1].hip)
    assert side.people[0].azimuth - front.people[0].azimuth == pytest.approx(np.pi / 2)
    assert front.scene.seed != side.scene.seed
    assert {casia_b.set_stage(walk, SEED).scene.seed for walk in walks.values() if walk.view == 90} == {side.scene.seed}


def test_clothes_are_the_subject_s_but_for_bag_and_coat(walks: dict) -> None:
    for subject in ("075", "081", "088"):
        worn = {walk.outfit for walk in walks.values() if walk.subject.name == subject and walk.kind == "nm"}
        assert len(worn) == 1
        normal = worn.pop()
        assert replace(walks[f"{subject}-bg-01-054"].outfit, bag=None) == normal
        coat = walks[f"{subject}-cl-01-054"].outfit
        assert coat.coat
        assert (coat.bottom, coat.shoes, coat.cap) == (normal.bottom, normal.shoes, normal.cap)


@pytest.mark.parametrize("view", [0, 90, 126])
def test_the_bag_is_small_and_the_coat_covers_much_of_the_figure(walks: dict, view: int) -> None:
    bagged = next(w for w in walks.values() if w.kind == "bg" and w.view == view and not w.outfit.bag.in_hand)
    normal = walks[bagged.name.replace("-bg-", "-nm-")].outfit
    coat = walks[bagged.name.replace("-bg-", "-cl-")].outfit
    plain = last_frame(bagged, outfit=normal)
    with_bag, in_coat = (changed(last_frame(bagged, outfit=outfit), plain) for outfit in (bagged.outfit, coat))
    assert 15 < with_bag.sum() < 400
    assert in_coat.sum() > 400
    rows = np.flatnonzero(in_coat.any(axis=1))
    assert np.ptp(rows) > 0.5 * 0.78 * 120, "from the shoulders to below the knees, of a figure 0.78 of 120 rows high"


def test_the_same_seed_gives_the_same_walk_and_another_seed_other_people(walks: dict) -> None:
    walk = walks["075-cl-02-054"]
    again = next(w for w in plan_world(SEED, "small", sets=("casia_b",))["casia_b"]["test"] if w.name == walk.name)
    assert np.array_equal(last_frame(walk), last_frame(again))
    other = plan_world(SEED + 1, "tiny", sets=("casia_b",))["casia_b"]["test"][0]
    assert other.name == "075-nm-01-000"
    assert other.subject.skin != walks["075-nm-01-000"].subject.skin
