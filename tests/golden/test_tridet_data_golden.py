import json
import random

import numpy as np
import pytest
import torch

from tridet.annotations import read_annotations
from tridet.config import DatasetConfig
from tridet.thumos14 import ThumosDataset
from tridet.windows import Window, coverage, cut, random_window


@pytest.fixture
def cases(shared):
    """Rows of the table of windows, each with its segments before and after."""
    golden = np.load(shared / "golden/tridet/truncation.npz")
    rows = [dict(zip(golden["table_columns"].tolist(), row, strict=True)) for row in golden["table"].tolist()]
    sides = {}
    for side in ("in", "out"):
        stops = np.cumsum([int(row[f"n_{side}"]) for row in rows])[:-1]
        columns = [np.split(golden[f"{side}_{name}"], stops) for name in ("segments", "labels")]
        sides[side] = [tuple(map(torch.from_numpy, pair)) for pair in zip(*columns, strict=True)]
    return list(zip(rows, sides["in"], sides["out"], strict=True))


class Counting(random.Random):
    """The standard generator; it counts what is asked of it."""

    num_calls = 0

    def randint(self, a, b):
        self.num_calls += 1
        return super().randint(a, b)


def test_windows_of_the_public_program(cases):
    num_checked = 0
    for row, (segments, labels), (expected_segments, expected_labels) in cases:
        if row["no_trunc"] or not row["has_action"]:
            continue  # modes that THUMOS14 doesn't use; the next test takes their results
        generator = Counting(int(row["seed"]))
        window = random_window(
            int(row["feat_len"]),
            segments,
            max_seq_len=int(row["max_seq_len"]),
            trunc_thresh=row["trunc_thresh"],
            crop_ratio=None if row["crop_lo"] < 0 else (row["crop_lo"], row["crop_hi"]),
            max_trials=int(row["max_trials"]),
            generator=generator,
            around_action=False,
        )
        if window is None:
            window = Window(0, int(row["feat_len"]), torch.ones(len(labels), dtype=torch.bool))
        else:
            segments, labels = cut(segments, labels, window)
        assert (window.start, window.width, generator.num_calls) == (row["start"], row["out_len"], row["randint_calls"])
        np.testing.assert_array_equal(segments, expected_segments)
        np.testing.assert_array_equal(labels, expected_labels)
        num_checked += 1
    assert num_checked == 76


def test_segments_of_published_windows(cases):
    for row, (segments, labels), (expected_segments, expected_labels) in cases:
        if row["out_len"] == row["feat_len"]:
            continue  # untouched
        start, width = int(row["start"]), int(row["out_len"])
        window = Window(start, width, coverage(segments, start, width) >= row["trunc_thresh"])
        segments, labels = cut(segments, labels, window)
        np.testing.assert_array_equal(segments, expected_segments)
        np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("tag", ["val16", "test16", "both_ds2", "test_fps30"])
def test_items_of_the_public_data_set(shared, tmp_path, tag):
    golden = np.load(shared / "golden/tridet/dataset.npz")
    json_file = tmp_path / "annotations.json"
    json_file.write_text(str(golden["annotation_json"]))
    for key in golden.files:
        if key.startswith("feats/"):
            np.save(tmp_path / f"{key.removeprefix('feats/')}.npy", golden[key])
    arguments = json.loads(str(golden[f"{tag}/args_json"]))
    split = arguments.pop("split")
    config = DatasetConfig(
        json_file=str(json_file), feat_folder=str(tmp_path), input_dim=6, num_classes=4, max_seq_len=64, **arguments
    )
    dataset = ThumosDataset(config, split, training=False)
    assert [video.name for video in dataset.videos] == golden[f"{tag}/video_ids"].tolist()
    for index, name in enumerate(golden[f"{tag}/video_ids"]):
        item, prefix = dataset.item(index), f"{tag}/{name}/"
        assert item["feats"].shape == tuple(golden[prefix + "feats_shape"])
        assert dataset.lengths[index] == item["feats"].shape[1]
        assert item["feats"].dtype == torch.float32
        assert item["feats"].double().sum().item() == pytest.approx(float(golden[prefix + "feats_sum"]), abs=1e-4)
        if golden[prefix + "has_segments"]:
            np.testing.assert_array_equal(item["segments"], golden[prefix + "segments"])
            np.testing.assert_array_equal(item["labels"], golden[prefix + "labels"])
        else:
            assert item["segments"].shape == (0, 2)
            assert item["labels"].shape == (0,)
        meta = (item["fps"], item["duration"], item["feat_stride"], item["feat_num_frames"])
        assert meta == tuple(golden[prefix + "meta"])


def test_classes_of_the_public_data_set(shared, tmp_path):
    golden = np.load(shared / "golden/tridet/dataset.npz")
    json_file = tmp_path / "annotations.json"
    json_file.write_text(str(golden["annotation_json"]))
    names, ids = golden["label_names"].tolist(), golden["label_ids"].tolist()
    assert read_annotations(json_file).classes == dict(zip(names, ids, strict=True))
