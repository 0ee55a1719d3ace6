import json
import logging
import random

import numpy as np
import pytest
import torch
from refusals import refused

from tridet.annotations import read_annotations
from tridet.config import DatasetConfig
from tridet.errors import InputError
from tridet.thumos14 import Batches, ThumosDataset, ground_truth

WIDTH = 4
LENGTHS = {"a": 50, "b": 7, "c": 120, "d": 30, "e": 16}


@pytest.fixture
def made(tmp_path):
    """Five training videos, one without annotations, and a test video; value t in column 0 of row t."""
    rng = np.random.default_rng(0)
    database = {}
    for number, (name, length) in enumerate(LENGTHS.items()):
        annotations = [
            {"segment": [0.5, 2.0], "label": "Run", "label_id": 0},
            {"segment": [2.0 + number, 3.5 + number], "label": "Jump", "label_id": 1},
        ]
        duration = length * 16 / 30
        database[name] = {"subset": "Validation", "fps": 30.0, "duration": duration, "annotations": annotations}
        feats = rng.normal(size=(length, WIDTH)).astype(np.float32)
        feats[:, 0] = np.arange(length)
        np.save(tmp_path / f"{name}.npy", feats)
    database["d"]["annotations"] = []
    database["t"] = {**database["a"], "subset": "Test"}
    np.save(tmp_path / "t.npy", np.ones((9, WIDTH), np.float16))
    (tmp_path / "annotations.json").write_text(json.dumps({"database": database}))
    return tmp_path


def config(folder, **changes):
    values = {"json_file": str(folder / "annotations.json"), "feat_folder": str(folder), "input_dim": WIDTH}
    return DatasetConfig(**{**values, "num_classes": 2, "num_frames": 16, "max_seq_len": 64, **changes})


def training_set(folder, *, seed=0, cache=None, **changes):
    changes.setdefault("crop_ratio", (0.5, 1.0))
    return ThumosDataset(config(folder, **changes), ["validation"], training=True, seed=seed, cache=cache)


def windows(batches, epoch=0):
    """Video, first and last step of each item, in order."""
    return [
        [(item["video_id"], item["feats"][0, 0].item(), item["feats"][0, -1].item()) for item in batch]
        for batch in batches.epoch(epoch)
    ]


def test_whole_videos_in_evaluation(made):
    dataset = ThumosDataset(config(made), ["validation", "test"], training=False)
    assert [(item["video_id"], item["feats"].shape[1]) for item in dataset] == [*LENGTHS.items(), ("t", 9)]
    item = dataset[0]
    assert item["feats"].dtype == dataset[5]["feats"].dtype == torch.float32
    assert item["feats"].is_contiguous()
    torch.testing.assert_close(item["feats"].T, torch.from_numpy(np.load(made / "a.npy")), rtol=0, atol=0)
    torch.testing.assert_close(item["segments"][0], torch.tensor([(15 - 8) / 16, (60 - 8) / 16]))
    assert item["labels"].tolist() == [0, 1]


def test_videos_without_annotations_have_no_segments(made):
    item = training_set(made).item(3)
    assert item["segments"].shape == (0, 2)
    assert item["labels"].shape == (0,)
    assert 15 <= item["feats"].shape[1] <= 30


def test_downsampling_keeps_every_other_feature(made):
    dataset = ThumosDataset(config(made, downsample_rate=2), ["validation"], training=False)
    item = dataset[1]
    assert item["feats"][0].tolist() == [0, 2, 4, 6]
    assert item["feat_stride"] == 32
    assert dataset.lengths[:2] == (25, 4)
    torch.testing.assert_close(item["segments"][0], torch.tensor([(15 - 8) / 32, (60 - 8) / 32]))


def test_windows_cut_features_and_segments_alike(made):
    dataset = training_set(made, max_seq_len=32)
    for epoch in range(10):
        item = dataset.item(2, epoch=epoch)
        steps = item["feats"][0]
        assert item["feats"].shape == (WIDTH, 32)
        assert len(item["segments"]) > 0
        whole = torch.from_numpy(dataset.on_grid(dataset.videos[2].segments, 30.0))
        shifted = item["segments"] + steps[0]
        for segment, label in zip(shifted, item["labels"], strict=True):
            clipped = whole[label].clamp(steps[0], steps[0] + 32)
            torch.testing.assert_close(segment, clipped)


@pytest.mark.parametrize("cache", [True, False])
def test_the_same_seed_gives_the_same_epochs(made, cache):
    batches = Batches(training_set(made, cache=cache), 2)
    random.seed(1)
    torch.manual_seed(1)
    first = [windows(batches, epoch) for epoch in range(3)]
    random.seed(2)
    torch.manual_seed(2)
    resumed = windows(Batches(training_set(made), 2), 2)  # without epochs 0 and 1 before it
    assert resumed == first[2]
    assert first[0] != first[1]
    assert windows(Batches(training_set(made, seed=1), 2)) != first[0]


def test_a_part_of_an_epoch_is_what_the_whole_has_there(made):
    batches = Batches(training_set(made), 2)
    whole, part = (
        [[(item["video_id"], item["feats"].shape[1]) for item in batch] for batch in batches.epoch(3, **which)]
        for which in ({}, {"first": 1, "count": 1})
    )
    assert len(whole) == 2
    assert part == whole[1:]


def test_workers_change_nothing(made):
    alone = Batches(training_set(made, cache=False), 2, num_workers=0)
    helped = Batches(training_set(made, cache=False), 2, num_workers=2)
    assert windows(helped, 3) == windows(alone, 3)


def test_the_global_generators_are_left_alone(made):
    torch.manual_seed(0)
    random.seed(0)
    before = torch.get_rng_state(), random.getstate()
    windows(Batches(training_set(made), 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_training_drops_what_is_no_full_batch_and_evaluation_does_not(made):
    training = Batches(training_set(made), 2)
    names = [[item["video_id"] for item in batch] for batch in training.epoch()]
    assert [len(batch) for batch in names] == [2, 2]
    assert len(training) == 2
    assert len({name for batch in names for name in batch}) == 4
    seen = {name for epoch in range(8) for batch in windows(training, epoch) for name, *_ in batch}
    assert seen == set(LENGTHS)
    evaluation = Batches(ThumosDataset(config(made), ["validation"], training=False), 2)
    assert len(evaluation) == 3
    assert [[item["video_id"] for item in batch] for batch in evaluation.epoch()] == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("batch_size", [0, 6])
def test_a_batch_that_the_videos_cannot_fill(made, batch_size):
    with refused("loader.batch_size", InputError):
        Batches(training_set(made), batch_size)


def test_missing_features_are_counted_and_named_once(made, caplog):
    for name in "bd":
        (made / f"{name}.npy").unlink()
    with caplog.at_level(logging.WARNING):
        dataset = training_set(made)
    assert dataset.missing == ("b", "d")
    assert [video.name for video in dataset.videos] == ["a", "c", "e"]
    [message] = [message for message in caplog.messages if "(b, d)" in message]
    assert "2 of 5 videos" in message


def test_no_features_at_all(made):
    with refused("test_no_features_at_all0", InputError):
        training_set(made, file_prefix="i3d_", file_ext=".npz")
    with refused("dataset.feat_folder", InputError):
        training_set(made, feat_folder=None)


@pytest.mark.parametrize(
    ("array", "names"),
    [
        (np.zeros((5, WIDTH + 1), np.float32), ("5", "4", "dataset.input_dim")),
        (np.zeros((5, 3, WIDTH), np.float32), "(5, 3, 4)"),
        (np.zeros((5, WIDTH), np.int64), "int64"),
        (np.zeros((0, WIDTH), np.float32), ()),
    ],
)
def test_a_feature_file_of_another_kind_is_found_at_once(made, array, names):
    np.save(made / "c.npy", array)
    with refused(made / "c.npy", InputError, naming=names):
        training_set(made)


@pytest.mark.parametrize("content", [b"", b"no array", "cut short"])
def test_a_damaged_feature_file(made, content):
    path = made / "c.npy"
    path.write_bytes(path.read_bytes()[:-100] if content == "cut short" else content)
    with refused("c.npy", InputError):
        training_set(made)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_names_its_file(made, value, num_workers):
    array = np.load(made / "c.npy")
    array[5, 1] = array[7, 2] = value
    np.save(made / "c.npy", array)
    batches = Batches(ThumosDataset(config(made), ["validation"], training=False, cache=False), 1, num_workers)
    with refused(made / "c.npy", InputError, naming=("2 of 120", "row 5")):
        list(batches.epoch())


def test_features_are_read_once_when_cached(made):
    dataset = training_set(made)
    assert dataset.is_cached
    before = windows(Batches(dataset, 2), 1), windows(Batches(dataset, 1), 0)
    for path in made.glob("*.npy"):
        path.unlink()
    assert (windows(Batches(dataset, 2), 1), windows(Batches(dataset, 1), 0)) == before


def test_the_anonymizer_sees_each_whole_file_once(made):
    calls = []

    def doubled(feats):
        assert not torch.is_grad_enabled()
        calls.append(len(feats))
        return 2 * feats

    dataset = ThumosDataset(
        config(made, downsample_rate=2), ["validation"], training=False, anonymizer=doubled, cache=False
    )
    for _ in range(2):
        for item in dataset:
            raw = torch.from_numpy(np.load(made / f"{item['video_id']}.npy"))
            torch.testing.assert_close(item["feats"], 2 * raw[::2].T)
    assert calls == list(LENGTHS.values())


@pytest.mark.parametrize(
    ("anonymizer", "problem"),
    [(lambda feats: feats[:-1], "anonymizer"), (lambda feats: feats / 0, "anonymized a")],
)
def test_an_anonymizer_that_breaks_features(made, anonymizer, problem):
    dataset = ThumosDataset(config(made), ["validation"], training=False, anonymizer=anonymizer)
    with refused(problem, InputError):
        dataset[0]


def test_lengths_of_the_real_training_videos(shared, tmp_path):
    """Of features cut from the real annotations, none is longer than the published max_seq_len."""
    database = json.loads((shared / "annotations/thumos14.json").read_text())["database"]
    for name, record in database.items():
        if record["subset"] == "Validation":
            np.save(tmp_path / f"{name}.npy", np.zeros((int(record["duration"] * record["fps"] / 16), 1), np.float16))
    data = DatasetConfig(
        json_file=str(shared / "annotations/thumos14.json"), feat_folder=str(tmp_path), input_dim=1, num_classes=20
    )
    dataset = ThumosDataset(data, ["validation"], training=True)
    assert len(dataset) == 200
    assert len(Batches(dataset, 2)) == 100
    assert (min(dataset.lengths), max(dataset.lengths)) == (16, 2202)


def test_the_real_ground_truth(shared):
    annotations = read_annotations(shared / "annotations/thumos14.json")
    truth = ground_truth(annotations, "test")
    assert len(truth) == 3358
    assert len(set(truth.video.tolist())) == 212
    assert sorted(set(truth.label.tolist())) == list(range(20))
    record = json.loads((shared / "annotations/thumos14.json").read_text())["database"]["video_test_0000004"]
    rows = truth.video == "video_test_0000004"
    assert truth.segments[rows].tolist() == [annotation["segment"] for annotation in record["annotations"]]
    assert truth.label[rows].tolist() == [annotation["label_id"] for annotation in record["annotations"]]
    assert len(ground_truth(annotations, "test", keep_outside=False)) == 3358 - 26


def test_videos_without_annotations_add_nothing_to_the_ground_truth(made):
    truth = ground_truth(read_annotations(made / "annotations.json"), "Validation")
    assert sorted(set(truth.video.tolist())) == ["a", "b", "c", "e"]
    assert truth.segments[:2].tolist() == [[0.5, 2.0], [2.0, 3.5]]
