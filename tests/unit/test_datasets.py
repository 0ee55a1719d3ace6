import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import WIDTH
from refusals import refused
from torch.utils.data import DataLoader

import feature_dl
from feature_dl import HMDBFeaturesDataset
from splavu.data import feature_cache
from splavu.data.datasets import BatchLoader, EvenClips, FeatureDataset, RandomClip, matched, uniform
from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.stores import FeatureStore, StoreWriter
from study.datasets.catalog import CATALOGUE
from study.datasets.loading import dataset_spec, open_dataset, privacy_rows


@pytest.fixture
def store(tmp_path):
    """Clip k of video v holds the number 100 v + k in every column."""
    path = tmp_path / "store.h5"
    with StoreWriter(path, attributes={"encoder": "made up"}) as writer:
        for video, num_clips in enumerate((1, 2, 3, 7, 12)):
            rows = 100 * video + np.arange(num_clips, dtype=np.float32)
            writer.add(f"v{video}", np.repeat(rows[:, None], 4, axis=1))
    return FeatureStore(path)


def drawn(dataset, indices):
    return dataset.batch(indices).clips[..., 0].numpy()


def test_random_clips_are_uniform_and_a_function_of_seed_epoch_and_video(store):
    dataset = FeatureDataset(store, store.keys(), seed=3)
    counts = Counter()
    for epoch in range(700):
        dataset.set_epoch(epoch)
        counts[int(drawn(dataset, [3])[0])] += 1
    assert set(counts) == {300 + k for k in range(7)}
    assert max(counts.values()) < 150  # 100 expected, standard deviation 9
    dataset.set_epoch(5)
    together = drawn(dataset, [0, 1, 2, 3, 4])
    assert [drawn(dataset, [i])[0] for i in range(5)] == together.tolist()
    assert drawn(pickle.loads(pickle.dumps(dataset)), [0, 1, 2, 3, 4]).tolist() == together.tolist()


def test_even_clips_cover_a_video_and_repeat_in_short_ones(store):
    dataset = FeatureDataset(store, store.keys(), draw=EvenClips(5))
    assert drawn(dataset, [4])[0].tolist() == [400, 403, 406, 408, 411]
    assert drawn(dataset, [1])[0].tolist() == [100, 100, 100, 101, 101]
    assert drawn(FeatureDataset(store, store.keys(), draw=EvenClips(1)), [2])[0].tolist() == [201]


def test_static_pairs_are_two_different_frames_of_one_video(store):
    dataset = FeatureDataset(store, ["v3", "v4"], static=store, seed=1)
    seen = Counter()
    for epoch in range(400):
        dataset.set_epoch(epoch)
        pairs = dataset.batch([0, 1]).static_pairs[..., 0]
        for video, (first, second) in zip((3, 4), pairs.tolist(), strict=True):
            assert first != second
            assert first // 100 == second // 100 == video
            seen[first, second] += 1
    assert len([pair for pair in seen if pair[0] < 400]) == 7 * 6  # every ordered pair occurs


def test_a_pair_needs_two_static_clips(store):
    with refused("store.h5"):
        FeatureDataset(store, store.keys(), static=store)


def test_items_are_what_the_reference_gave(store):
    dataset = FeatureDataset(store, ["v3", "v4"], labels={"v3": 5, "v4": 6}, static=store)
    features, label, name, pair = dataset[1]
    assert (features.shape, int(label), name, pair.shape) == ((4,), 6, "v4", (2, 4))
    assert len(FeatureDataset(store, ["v3"], labels={"v3": 5})[0]) == 3


def test_memory_and_packed_file_give_the_same(store, monkeypatch):
    indices = [4, 0, 3]
    expected = [drawn(FeatureDataset(store, store.keys(), draw=draw), indices) for draw in (RandomClip(), EvenClips(3))]
    monkeypatch.setattr(feature_cache, "IN_MEMORY_BYTES", 0)
    found = [drawn(FeatureDataset(store, store.keys(), draw=draw), indices) for draw in (RandomClip(), EvenClips(3))]
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stream_sees_every_video_once_an_epoch(store):
    loader = BatchLoader(FeatureDataset(store, store.keys()), batch_size=2, seed=0)
    orders = [[name for batch in loader.epoch(epoch) for name in batch.names] for epoch in range(6)]
    assert all(sorted(order) == store.keys() for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert [name for batch in loader.epoch(2) for name in batch.names] == orders[2]
    in_file_order = BatchLoader(FeatureDataset(store, store.keys()), batch_size=2, shuffle=False)
    assert [batch.names for batch in in_file_order.epoch(9)] == [("v0", "v1"), ("v2", "v3"), ("v4",)]


def test_a_data_loader_with_workers_reads_it_too(store):
    dataset = FeatureDataset(store, store.keys(), labels=dict.fromkeys(store, 1), seed=2)
    dataset.set_epoch(3)
    loader = DataLoader(dataset, batch_size=2, num_workers=1)
    found = torch.cat([clips[:, 0] for clips, _, _ in loader])
    assert found.tolist() == drawn(dataset, range(5)).tolist()


def test_uniform_is_flat_and_independent_of_its_neighbours():
    numbers = uniform(7, np.arange(20_000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    histogram, _ = np.histogram(numbers, bins=20, range=(0, 1))
    assert ((histogram - 1000) ** 2 / 1000).sum() < 45  # chi-squared, 19 degrees of freedom, p ~ 0.0007
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    assert uniform(7, np.array([123]))[0] == numbers[123]


def test_labels_and_features_must_name_the_same_videos():
    assert list(matched({"b": 1, "a": 2}, ["a", "b"], label_source="l", store_source="s")) == ["b", "a"]
    found = matched({"E05": 1, "E06": 2}, ["s/E06.mp4", "s/E05.mp4"], label_source="l", store_source="s")
    assert found == {"s/E05.mp4": 1, "s/E06.mp4": 2}
    with refused("l"):
        matched({"a": 0}, ["a.mp4", "a.avi"], label_source="l", store_source="s")
    with refused("s"):
        matched({"a": 0, "c": 1}, ["a"], label_source="l", store_source="s")
    with refused("s"):
        matched({"a": 0}, ["a", "b"], label_source="l", store_source="s")


def test_catalogue_opens_only_what_is_asked_for(study):
    (study.data / "hmdb51/hmdb51_train_labels.csv").unlink()
    (study.features / "features_hmdb_train_demo_fb10.h5").unlink()
    assert open_dataset("hmdb51", "train", encoder="demo", with_labels=False).feature_dim == WIDTH
    with refused("hmdb51_train_labels.csv"):
        open_dataset("hmdb51", "train", encoder="demo")
    with refused("features_hmdb_train_demo_fb10.h5"):
        open_dataset("hmdb51", "train", encoder="demo", with_labels=False, static_frames=10)


def test_a_split_may_be_opened_for_some_classes(study):
    whole = open_dataset("hmdb51", "train", encoder="demo")
    some = open_dataset("hmdb51", "train", encoder="demo", classes={1, 3}, static_frames=10)
    assert set(some.labels.tolist()) == {1, 3} < set(whole.labels.tolist())
    expected = [key for key, label in zip(whole.keys, whole.labels.tolist(), strict=True) if label in (1, 3)]
    assert list(some.keys) == expected
    places = [list(whole.keys).index(key) for key in expected]
    for number, place in enumerate(places):
        np.testing.assert_array_equal(
            some.clips.rows[some.clips.start[number]], whole.clips.rows[whole.clips.start[place]]
        )


def test_public_class_is_the_catalogue_row(study):
    dataset = HMDBFeaturesDataset("train", encoder="demo", return_fb_frames=True)
    features, label, name, pair = dataset[0]
    assert features.shape == (WIDTH,)
    assert pair.shape == (2, WIDTH)
    assert int(label) == 0
    assert name == "subject00_0"


@pytest.mark.parametrize(("name", "row"), [(r.public_class, n) for n, r in CATALOGUE.items() if r.public_class])
def test_every_public_class_can_be_imported_and_pickled(name, row):
    made = getattr(feature_dl, name)
    assert issubclass(made, feature_dl.CatalogueDataset)
    assert made.row is CATALOGUE[row]
    assert name in feature_dl.__all__
    assert pickle.loads(pickle.dumps(made)) is made


def test_unknown_names_are_answered_with_the_nearest():
    with refused("dataset"):
        dataset_spec("hmdb15")
    with refused("split"):
        CATALOGUE["hmdb51"].store_path("x", "dev", "demo")
    with refused("encoder 'videoMEA'"):
        CATALOGUE["hmdb51"].store_path("x", "train", "videoMEA")


def test_privacy_rows_join_features_attributes_and_subjects(study):
    rows, attributes = privacy_rows("hmdb51", "test", "static", encoder="demo")
    assert attributes == VISPR_ATTRIBUTES
    assert rows.features.shape == (8 * 6 * 10, WIDTH)
    assert rows.labels.shape == (480, 7)
    assert len(set(rows.clusters)) == 8
    assert len(set(rows.videos)) == 48
    assert rows.features.dtype == rows.labels.dtype == np.float32


def test_private_labels_of_some_videos_are_enough_and_of_none_are_not(study):
    path = study.data / "hmdb51/private_labels.csv"
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(header + "".join(line for line in lines if "subject19" in line or "subject20" in line))
    rows, _ = privacy_rows("hmdb51", "test", "temporal", encoder="demo")
    assert set(rows.clusters) == {"p19", "p20"}
    with refused("features_hmdb_train_demo.h5"):
        privacy_rows("hmdb51", "train", "temporal", encoder="demo")
