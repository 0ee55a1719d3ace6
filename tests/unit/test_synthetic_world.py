"""The synthetic world: layouts, labels, splits, determinism, manifests."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from splavu.synthetic.world import MANIFEST, SIZES, UNDER_WAY, plan_world, synthesize

pytest.importorskip("cv2")
av = pytest.importorskip("av")

SEED = 3


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world"), seed=SEED, size="tiny", workers=1)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    assert contents(synthesize(tmp_path / "again", seed=SEED, size="tiny", workers=2)) == contents(world)


def test_another_seed_gives_other_people(world: Path) -> None:
    ours, theirs = (plan_world(seed, "tiny")["hmdb51"]["train"][0].subject for seed in (SEED, SEED + 1))
    assert ours.skin != theirs.skin
    assert ours.gait != theirs.gait


def test_hmdb_labels_name_every_video_once_with_the_class_of_its_folder(world: Path) -> None:
    folder = world / "hmdb51"
    videos = {path.name: path.parent.name for path in (folder / "videos").rglob("*.avi")}
    classes = json.loads((folder / "hmdb51_classes.json").read_text())["classes"]
    rows = table(folder / "hmdb51_labels.csv")
    assert list(rows[0]) == ["filename", "label"]
    assert sorted(classes.values()) == list(range(len(SIZES["tiny"].actions)))
    assert {row["filename"]: int(row["label"]) for row in rows} == {k: classes[v] for k, v in videos.items()}
    parts = [table(folder / f"hmdb51_{split}_labels.csv") for split in ("train", "val", "test")]
    assert sorted(row["filename"] for part in parts for row in part) == sorted(videos)
    assert all({row["label"] for row in part} == {"0", "1", "2"} for part in parts)


def test_no_person_is_in_two_splits_or_two_sets() -> None:
    groups = [
        {plan.subject.skin for plan in plans} for splits in plan_world(0, "small").values() for plans in splits.values()
    ]
    assert len(set.union(*groups)) == sum(len(group) for group in groups) == 50 + 16 + 34 + 100 + 50


def test_side_table_agrees_with_split_files(world: Path) -> None:
    folder = world / "hmdb51"
    for split in ("train", "val", "test"):
        named = {row["filename"] for row in table(folder / f"hmdb51_{split}_labels.csv")}
        assert named == {r["filename"] for r in table(folder / "private_labels.csv") if r["split"] == split}


def test_vispr_labels_are_a_plain_pickle_of_binary_vectors(world: Path) -> None:
    for split, count in (("train", 24), ("test", 12)):
        labels = pickle.loads((world / "vispr" / f"{split}_labels.pkl").read_bytes())
        images = {path.stem for path in (world / "vispr" / f"{split}2017").glob("2017_????????.jpg")}
        assert set(labels) == images
        assert len(images) == count
        for vector in labels.values():
            assert vector.shape == (7,)
            assert vector.dtype == np.float64
            assert set(vector) <= {0.0, 1.0}
            assert not (vector[2] and vector[3]), "a face cannot be complete and partial"


def test_both_readers_decode_every_rendered_frame(world: Path) -> None:
    decord = pytest.importorskip("decord")
    rows = table(world / "hmdb51" / "private_labels.csv")
    for row in rows[::5]:
        path = str(world / "hmdb51" / "videos" / row["action"] / row["filename"])
        with av.open(path) as container:
            first = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        reader = decord.VideoReader(path)
        assert len(first) == len(reader) == int(row["num_frames"])
        assert first[0].shape == (120, 160, 3)
        last = reader[len(reader) - 1].asnumpy().astype(float)
        assert np.abs(last - first[-1]).mean() < 2.0, "readers differ by rounding of the colour conversion only"


def test_attributes_are_balanced_and_independent_of_the_action() -> None:
    plans = plan_world(0, "small")["hmdb51"]["train"]
    values = np.array([plan.attributes for plan in plans], float)
    assert np.allclose(values.mean(axis=0), (0.5, 0.5, 0.4, 0.35, 0.25, 0.3, 0.25), atol=0.002)
    actions = np.array([plan.action for plan in plans])
    rates = np.array([values[actions == action].mean(axis=0) for action in np.unique(actions)])
    # 50 videos per action: 4 standard errors of a share of one half is 0.28.
    assert np.abs(rates - values.mean(axis=0)).max() < 0.28
    correlation = np.corrcoef(values.T)[np.triu_indices(7, 1)]
    # Complete and partial face exclude each other (pair 11 of the upper triangle); 600 videos of 50 subjects.
    assert np.abs(np.delete(correlation, 11)).max() < 0.2


def test_scene_bias_ties_the_backdrop_to_the_action() -> None:
    for bias, expected in ((0.0, 12), (1.0, 1)):
        plans = plan_world(0, "small", scene_bias=bias)["hmdb51"]["train"]
        assert len({plan.kind for plan in plans if plan.action == "wave"}) == pytest.approx(expected, abs=1)


def test_a_finished_world_is_left_alone(world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    synthesize(world, seed=SEED, size="tiny", workers=1)
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before


def test_an_interrupted_world_is_completed_to_the_same_bytes(world: Path, tmp_path: Path) -> None:
    for name, content in contents(world).items():
        if name not in (MANIFEST, "README.md") and not name.endswith(("_labels.csv", "0.avi")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    (tmp_path / UNDER_WAY).write_bytes((world / MANIFEST).read_bytes())
    assert contents(synthesize(tmp_path, seed=SEED, size="tiny", workers=1)) == contents(world)


def test_another_world_in_the_folder_is_refused(world: Path) -> None:
    with refused(world, naming=(str(SEED), "8")):
        synthesize(world, seed=8, size="tiny")


def test_a_set_drawn_by_other_code_is_refused(world: Path, tmp_path: Path) -> None:
    manifest = json.loads((world / MANIFEST).read_text())
    manifest["sets"]["vispr"]["generator"] = "of long ago"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with refused("test_a_set_drawn_by_other_code0"):
        synthesize(tmp_path, seed=SEED, size="tiny")


def test_a_folder_with_other_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hmdb51").mkdir()
    with refused("hmdb51"):
        synthesize(tmp_path, seed=0, size="tiny")
    assert list(tmp_path.iterdir()) == [tmp_path / "hmdb51"]


@pytest.mark.parametrize(
    ("wrong", "culprit"),
    [
        ({"size": "smal"}, "size 'smal'"),
        ({"seed": -1}, "seed -1"),
        ({"scene_bias": 1.5}, "scene bias 1.5"),
        ({"sets": ("thumos",)}, "set 'thumos'"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(tmp_path: Path, wrong: dict, culprit: str) -> None:
    with refused(culprit):
        synthesize(tmp_path / "out", **{"seed": 0, "size": "tiny", **wrong})
    assert not (tmp_path / "out").exists()
