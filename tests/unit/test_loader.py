"""Batches: what a slow loop would draw, in whichever pieces they are asked for."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from splavu.data import feature_cache
from splavu.data import loader as loading
from splavu.data.datasets import BatchLoader, EvenClips, FeatureDataset
from splavu.runtime.environment import derived_seed
from splavu.stores import FeatureStore, StoreWriter

NUM_VIDEOS = 13


@pytest.fixture
def store(tmp_path):
    """13 videos of 2 to 8 clips."""
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store.h5", attributes={"encoder": "made up"}) as writer:
        for video in range(NUM_VIDEOS):
            writer.add(f"v{video:02d}", rng.normal(size=(2 + video % 7, 4)))
    return FeatureStore(tmp_path / "store.h5")


@pytest.fixture(params=["in memory", "mapped"])
def dataset(store, request, monkeypatch):
    if request.param == "mapped":
        monkeypatch.setattr(feature_cache, "IN_MEMORY_BYTES", 0)
    return made(store)


def made(store):
    labels = {key: (int(key[1:]) % 2, int(key[1:]) % 3) for key in store}
    return FeatureDataset(store, store.keys(), labels=labels, static=store, seed=5)


def assert_same(one, other):
    assert one.names == other.names
    assert one.num_total == other.num_total
    for name in ("clips", "labels", "static_pairs"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def splitmix(seed, counter):
    """The number in [0, 1) of Steele et al. 2014, in Python's integers."""
    mask = 2**64 - 1
    z = (seed + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return ((z ^ z >> 31) >> 11) / 2**53


def test_a_pass_is_what_a_loop_over_its_videos_draws(dataset, store):
    keys = store.keys()
    order = np.random.default_rng(derived_seed(1, 6, 0)).permutation(NUM_VIDEOS)
    batches = list(BatchLoader(dataset, batch_size=5, seed=1).epoch(6))
    assert [len(batch) for batch in batches] == [5, 5, 3]
    assert [batch.num_total for batch in batches] == [5, 5, 3]
    at = 0
    for batch in batches:
        for row in range(len(batch)):
            video = order[at]
            features, noise = (
                store[keys[video]],
                [splitmix(derived_seed(5, 6, stream), int(video)) for stream in range(3)],
            )
            num_clips = len(features)
            first = int(noise[1] * num_clips)
            second = (first + 1 + int(noise[2] * (num_clips - 1))) % num_clips
            assert batch.names[row] == keys[video]
            np.testing.assert_array_equal(batch.clips[row], features[int(noise[0] * num_clips)])
            np.testing.assert_array_equal(batch.static_pairs[row], features[[first, second]])
            assert batch.labels[row].tolist() == [video % 2, video % 3]
            at += 1
    assert at == NUM_VIDEOS


def test_it_is_what_the_data_set_itself_draws(dataset):
    dataset.set_epoch(4)
    for batch in BatchLoader(dataset, batch_size=5).epoch(4):
        assert_same(batch, dataset.batch(batch.videos))
        clip, label, name, pair = dataset[int(batch.videos[0])]
        assert torch.equal(clip, batch.clips[0])
        assert torch.equal(label, batch.labels[0])
        assert torch.equal(pair, batch.static_pairs[0])
        assert name == batch.names[0]


def test_a_position_gives_the_same_batch_however_it_is_reached(dataset):
    loader = BatchLoader(dataset, batch_size=5, seed=1)
    whole = list(loader.steps(0, 20))
    assert len(whole) == 20
    pieces = [
        batch for first, count in ((0, 2), (2, 0), (2, 5), (7, 1), (8, 12)) for batch in loader.steps(first, count)
    ]
    again = [batch for epoch in range(7) for batch in BatchLoader(dataset, batch_size=5, seed=1).epoch(epoch)]
    for one, piece, pass_ in zip(whole, pieces, again[:20], strict=True):
        assert_same(one, piece)
        assert_same(one, pass_)
    for start in range(0, 18, 3):  # each pass has all of them, in an order of its own
        assert sorted(name for batch in whole[start : start + 3] for name in batch.names) == dataset.keys
    assert len({batch.names for batch in whole}) == 20
    assert loader.dataset.epoch == 0, "reading changes nothing"


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_make_up_the_global_batch(dataset, world):
    whole = list(BatchLoader(dataset, batch_size=5, seed=1).steps(1, 5))
    shares = [BatchLoader(dataset, batch_size=5, seed=1, share=(rank, world)).steps(1, 5) for rank in range(world)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert {part.num_total for part in parts} == {batch.num_total}
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert all(part.static_pairs.shape == (len(part), 2, 4) for part in parts), "also of no rows"
        for name in ("clips", "labels", "static_pairs"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
        assert sum((part.names for part in parts), ()) == batch.names


def test_even_clips_without_labels_in_file_order(store):
    dataset = FeatureDataset(store, store.keys(), draw=EvenClips(3))
    batches = list(BatchLoader(dataset, batch_size=4, shuffle=False).epoch(9))
    assert [name for batch in batches for name in batch.names] == store.keys()
    assert batches[0].clips.shape == (4, 3, 4)
    assert batches[0].labels is None
    assert batches[0].static_pairs is None
    np.testing.assert_array_equal(batches[1].clips[1, 1], store["v05"][3])  # the middle of 7


def test_what_is_read_ahead_ends_with_its_reader(store, monkeypatch):
    monkeypatch.setattr(feature_cache, "IN_MEMORY_BYTES", 0)
    before = threading.active_count()
    reader = BatchLoader(made(store), batch_size=2).steps(0, 10**6)
    next(reader)
    assert threading.active_count() == before + 1
    reader.close()
    assert threading.active_count() == before
    dataset = made(store)
    monkeypatch.setattr(dataset, "drawn", lambda videos, epoch: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        next(BatchLoader(dataset, batch_size=2).epoch(0))
    assert threading.active_count() == before


def test_gathers_agree():
    rng = np.random.default_rng(0)
    for table in (rng.normal(size=(9, 4)).astype(np.float32), rng.integers(0, 9, 9)):
        for rows in (rng.integers(0, 9, 5), rng.integers(0, 9, (5, 3)), np.zeros(0, dtype=np.int64)):
            expected = torch.from_numpy(table[rows])
            assert torch.equal(loading._gather_on_host(table, rows), expected)
            assert torch.equal(loading._gather_on_device(torch.from_numpy(table), torch.from_numpy(rows)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_gpu_gets_the_same_from_its_memory_and_from_the_host(dataset, monkeypatch, share):
    monkeypatch.setattr(loading, "GPU_SHARE", share)
    device = torch.device("cuda")
    for one, other in zip(
        BatchLoader(dataset, batch_size=5).steps(0, 50),
        BatchLoader(dataset, batch_size=5, device=device).steps(0, 50),
        strict=True,
    ):
        assert other.clips.device.type == other.static_pairs.device.type == other.labels.device.type == "cuda"
        assert_same(one, other.to(torch.device("cpu")))
