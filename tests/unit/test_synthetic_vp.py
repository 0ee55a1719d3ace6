"""VP-HMDB51 and VP-UCF101 of the synthetic world: the label files' format and what the five attributes mean."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from splavu.data.labels import VISPR_ATTRIBUTES, read_vector_csv
from splavu.data.private_labels import read_private_table
from splavu.synthetic.world import synthesize

pytest.importorskip("cv2")

SEED = 3
LABELLED = ("hmdb51", "ucf101")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return synthesize(folder, seed=SEED, size="tiny", sets=(*LABELLED, "vp"), workers=1)


def as_five(seven: np.ndarray) -> list[float]:
    of = dict(zip(VISPR_ATTRIBUTES, seven, strict=True))
    face = float(of["complete_face"] or of["partial_face"])
    return [of["skin_color"], face, of["gender"], of["semi_nudity"], of["personal_relationship"]]


@pytest.mark.parametrize("name", LABELLED)
def test_every_video_of_every_split_is_named_by_its_path(world: Path, name: str) -> None:
    videos = world / name / "videos"
    labels = read_vector_csv(world / "vp" / f"vp{name}_labels_num.csv")
    assert sorted(labels) == sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.avi"))


@pytest.mark.parametrize("name", LABELLED)
def test_labels_follow_from_the_private_labels_of_the_videos(world: Path, name: str) -> None:
    labels = read_vector_csv(world / "vp" / f"vp{name}_labels_num.csv")
    seven = read_private_table(world / name / "private_labels.csv", attributes=VISPR_ATTRIBUTES).of(labels).values
    for path, five in labels.items():
        assert five.tolist() == as_five(seven[path])


def test_label_text_is_that_of_a_printed_float_array(world: Path) -> None:
    with (world / "vp" / "vphmdb51_labels_num.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["filename", "label"]
    for row in rows:
        assert row["label"] == str(np.array([float(n) for n in re.findall(r"[01]", row["label"])]))
        assert len(row["label"]) == len("[0. 1. 0. 1. 1.]")


def test_the_same_world_gives_the_same_labels_without_the_videos(world: Path, tmp_path: Path) -> None:
    alone = synthesize(tmp_path, seed=SEED, size="tiny", sets=("vp",), workers=2)
    for name in LABELLED:
        table = f"vp/vp{name}_labels_num.csv"
        assert (alone / table).read_bytes() == (world / table).read_bytes()
        assert not (alone / name).exists()
    card = " ".join((alone / "README.md").read_text().split())
    assert "1 means: dark skin, a complete or partial face, presents as female, bare, a companion" in card
