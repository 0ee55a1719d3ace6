"""Data sets of clip features: which videos, which of their clips, with which labels.

A draw is a pure function of (seed, epoch, video), so there is no generator whose state a resumed run would have to
restore, and the order in which videos are read doesn't matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from splavu.encoders import encoder_spec
from splavu.errors import UserError
from splavu.labels_private import PrivateLabels, read_side_table
from splavu.runtime import derived_seed
from splavu.stores import FeatureReader, FeatureStore

IN_MEMORY_BYTES = 4 * 2**30
"""Stores up to this size are read once and kept; larger ones are read clip by clip."""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk and how much of it there should be: what `check-data` goes by."""

    videos: str
    """Folder below the data root; `{split}` stands for a split."""
    label_files: tuple[str, ...]
    """Below the data root, `{split}` again; none where names say it all."""
    key: str
    """In words: what a store calls a video."""
    num_videos: Mapping[str, int] = field(default_factory=dict)
    """Official number a split; of 'all' where only the sum is known; empty where we are not sure of any."""
    num_subjects: int | None = None
    note: str = ""
    """What a reader of the counts should know."""


@dataclass(frozen=True)
class DatasetSpec:
    """One row of the catalogue: everything that tells one data set from another."""

    name: str
    """As in params: `ar_dataset = 'hmdb51'`."""
    store_stem: str
    """Feature stores are called `{store_stem}_{split}_{file tag}.h5`, static clips `..._fb10.h5`."""
    folder: str
    """Where its label files lie, below the data root."""
    num_classes: int
    """Classes C, or attributes A."""
    read_labels: Callable[[Path, str, Sequence[str]], Mapping[str, Any]]
    """(label folder, split, the store's keys) -> {key: class or attribute vector}."""
    splits: tuple[str, ...] = ("train", "test")
    multi_label: bool = False
    is_images: bool = False
    """Stores hold views of still images instead of clips."""
    keep: Callable[[Path, str, Sequence[str]], Sequence[str]] | None = None
    """(label folder, split, the store's keys) -> those that belong to the split; None keeps all."""
    read_private: Callable[[Path, str, Sequence[str]], PrivateLabels] = (
        lambda folder, split, keys: read_side_table(folder / "private_labels.csv")
    )  # fmt: skip
    """(label folder, split, the store's keys) -> what an attacker is after, of some of the keys at least."""
    layout: Layout | None = None

    def keys(self, labels_root: str | Path, split: str, stored: Sequence[str]) -> list[str]:
        """The keys of a store that belong to the split.

        Raises:
            UserError: None does.
        """
        kept = list(stored) if self.keep is None else list(self.keep(Path(labels_root) / self.folder, split, stored))
        if not kept:
            raise UserError(self.name, f"no video of the split '{split}' among {len(stored)} features", "extract it")
        return kept

    def check_split(self, split: str, *, name: str = "split", remedy: str = "") -> None:
        """Refuse what is no split of this data set, under the name of the parameter that asks for it."""
        if split not in self.splits:
            known = f"known: {', '.join(self.splits)}"
            raise UserError(name, f"'{split}' is no split of {self.name}", "; ".join(filter(None, (known, remedy))))

    def store_path(self, root: str | Path, split: str, encoder: str, *, static_frames: int = 0) -> Path:
        """The store of a split; `static_frames` asks for the one of so many static clips a video."""
        self.check_split(split)
        suffix = f"_fb{static_frames}" if static_frames else ""
        return Path(root) / f"{self.store_stem}_{split}_{encoder_spec(encoder).file_tag}{suffix}.h5"


@dataclass(frozen=True)
class RandomClip:
    """Training: one clip of each video, drawn anew each epoch."""

    def choose(self, num_clips: NDArray, noise: Callable[[int], NDArray]) -> NDArray:  # [B] -> [B]
        return (noise(0) * num_clips).astype(np.int64)


@dataclass(frozen=True)
class EvenClips:
    """Evaluation: `count` evenly spaced clips ("modes") of each video; short videos repeat some."""

    count: int = 5

    def choose(self, num_clips: NDArray, noise: Callable[[int], NDArray]) -> NDArray:  # [B] -> [B, M]
        places = np.linspace(0.0, 1.0, self.count) if self.count > 1 else np.array([0.5])
        return np.rint(places * (num_clips[:, None] - 1)).astype(np.int64)


@dataclass(frozen=True)
class ClipBatch:
    """What a step reads. Fields that nobody asked for are None."""

    clips: Tensor
    """[B, D] or, for evenly spaced clips, [B, M, D], float32."""
    labels: Tensor | None
    """[B] int64 classes or [B, A] float32 attributes."""
    names: tuple[str, ...]
    static_pairs: Tensor | None = None
    """[B, 2, D]: two different static clips of each video."""

    def to(self, device: torch.device) -> ClipBatch:
        moved = {
            name: value.to(device, non_blocking=True)
            for name in ("clips", "labels", "static_pairs")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)


class FeatureDataset(Dataset):
    """Videos with features, labels and, on demand, pairs of static clips.

    An item is `(features, label, name)`, with static clips `(features, label, name, pair [2, D])`.

    Args:
        store: Clip features, [K, D] or [D] a video.
        keys: The videos, in the order of the data set.
        labels: Class or attribute vector by key; None where nobody reads labels.
        draw: Which clips of a video.
        static: Static-clip features, [P, D] a video with P >= 2.
        seed: Seed of the draws.

    Attributes:
        provenance: What the store says of its making.
    """

    def __init__(
        self,
        store: FeatureReader,
        keys: Sequence[str],
        *,
        labels: Mapping[str, Any] | None = None,
        draw: RandomClip | EvenClips = RandomClip(),
        static: FeatureReader | None = None,
        seed: int = 0,
    ) -> None:
        self.keys = list(keys)
        self.draw, self.seed, self.epoch = draw, seed, 0
        self.provenance = dict(store.attributes)
        self._clips = ClipTable(store, self.keys)
        self._static = None if static is None else ClipTable(static, self.keys)
        if self._static is not None and (self._static.num_clips < 2).any():
            video = self.keys[int(np.argmin(self._static.num_clips))]
            raise UserError(static.path, f"'{video}' has one static clip, a pair takes two", "extract 10 a video")
        self.labels = None if labels is None else _as_array([labels[key] for key in self.keys])  # [V] or [V, A]

    @property
    def feature_dim(self) -> int:
        """D."""
        return self._clips.feature_dim

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of `epoch`, as with torch's DistributedSampler."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple:
        batch = self.batch([index])
        item = (batch.clips[0], None if batch.labels is None else batch.labels[0], batch.names[0])
        return item if batch.static_pairs is None else (*item, batch.static_pairs[0])

    def batch(self, indices: Sequence[int]) -> ClipBatch:
        """The videos at `indices`, drawn and stacked in one go."""
        videos = np.asarray(indices, dtype=np.int64)  # [B]

        def noise(stream: int) -> NDArray:  # [B] in [0, 1)
            return uniform(derived_seed(self.seed, self.epoch, stream), videos)

        clips = self._clips.take(videos, self.draw.choose(self._clips.num_clips[videos], noise))
        pairs = None
        if self._static is not None:
            pool = self._static.num_clips[videos]  # [B]
            first = (noise(1) * pool).astype(np.int64)
            second = (first + 1 + (noise(2) * (pool - 1)).astype(np.int64)) % pool  # any but the first
            pairs = torch.from_numpy(self._static.take(videos, np.stack([first, second], axis=1)))
        labels = None if self.labels is None else torch.from_numpy(self.labels[videos])
        return ClipBatch(torch.from_numpy(clips), labels, tuple(self.keys[i] for i in videos), pairs)


class ClipTable:
    """The features of many videos as one table of rows, in memory if they fit, else read when asked for."""

    def __init__(self, store: FeatureReader, keys: Sequence[str]) -> None:
        self.feature_dim = store.feature_dim
        self.num_clips = np.array([store.num_rows(key) for key in keys], dtype=np.int64)  # [V]
        self._store, self._keys = store, list(keys)
        self._start = np.concatenate([[0], np.cumsum(self.num_clips)[:-1]])  # [V]
        self._rows: NDArray | None = None  # [sum K, D]
        if self.num_clips.sum() * self.feature_dim * 4 <= IN_MEMORY_BYTES:
            store.verify(keys)
            self._rows = np.concatenate([np.atleast_2d(store[key]) for key in keys])

    def take(self, videos: NDArray, clips: NDArray) -> NDArray:  # [B], [B] or [B, M] -> [B, D] or [B, M, D]
        """Clip `clips[b]` of video `videos[b]`."""
        if self._rows is not None:
            start = self._start[videos]
            return self._rows[start.reshape(-1, *[1] * (clips.ndim - 1)) + clips]
        return np.stack([np.atleast_2d(self._store[self._keys[v]])[c] for v, c in zip(videos, clips, strict=True)])


class Stream:
    """Endless batches of a data set: a new order each epoch, then as many steps as are asked for.

    Args:
        dataset: What is read.
        batch_size: Videos a batch.
        seed: Seed of the order.
        shuffle: False keeps the file order, as evaluation does.
        num_workers: Processes that read ahead; 0 is fastest for a store held in memory.
    """

    def __init__(
        self, dataset: FeatureDataset, *, batch_size: int, seed: int = 0, shuffle: bool = True, num_workers: int = 0
    ) -> None:
        self.dataset, self.batch_size, self.seed, self.shuffle = dataset, batch_size, seed, shuffle
        self.num_workers = num_workers

    @property
    def provenance(self) -> dict[str, Any]:
        """What the store says of its making."""
        return self.dataset.provenance

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int, *, num_steps: int | None = None) -> Iterator[ClipBatch]:
        """`num_steps` batches (one pass if None); a data set that is too short for them starts over in a new order."""
        self.dataset.set_epoch(epoch)
        batches: list[NDArray] = []
        for lap in range(-(-(num_steps or len(self)) // len(self))):
            order = np.arange(len(self.dataset))
            if self.shuffle:
                order = np.random.default_rng(derived_seed(self.seed, epoch, lap)).permutation(order)
            batches += np.array_split(order, range(self.batch_size, len(order), self.batch_size))
        loader = DataLoader(
            _ByBatch(self.dataset),
            sampler=batches[: num_steps or len(self)],
            batch_size=None,  # the sampler gives whole batches
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)


class _ByBatch(Dataset):
    """A data set whose index is a whole batch of indices."""

    def __init__(self, dataset: FeatureDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: NDArray) -> ClipBatch:
        return self.dataset.batch(indices)


def open_split(
    spec: DatasetSpec,
    split: str,
    *,
    features_root: str | Path,
    labels_root: str | Path,
    encoder: str,
    with_labels: bool = True,
    static_frames: int = 0,
    draw: RandomClip | EvenClips = RandomClip(),
    seed: int = 0,
) -> FeatureDataset:
    """The data set of one catalogue row and split; opens only the files that are asked for.

    Raises:
        UserError: A store or label file is missing or damaged, has another width than the encoder, or labels and
            features don't name the same videos.
    """
    width = encoder_spec(encoder).feature_dim
    store = FeatureStore(spec.store_path(features_root, split, encoder), feature_dim=width)
    static = None
    if static_frames:
        path = spec.store_path(features_root, split, encoder, static_frames=static_frames)
        static = FeatureStore(path, feature_dim=width)
    keys, labels = spec.keys(labels_root, split, store.keys()), None
    if with_labels:
        labels = spec.read_labels(Path(labels_root) / spec.folder, split, keys)
        source = f"the {split} labels of {spec.name}"
        keys = matched(labels, keys, label_source=source, store_source=store.path)
        if not spec.multi_label and (beyond := [key for key in keys if labels[key] >= spec.num_classes]):
            problem = f"'{beyond[0]}' has class {labels[beyond[0]]}, but there are {spec.num_classes}, counted from 0"
            raise UserError(source, problem, "check the label file")
    if static is not None:
        for key in keys:
            if key not in static:
                raise UserError(static.path, f"no static clips for '{key}'", f"extract them (--static {static_frames})")
    return FeatureDataset(store, keys, labels=labels, draw=draw, static=static, seed=seed)


def uniform(seed: int, counters: NDArray) -> NDArray:  # [B] int -> [B] float64 in [0, 1)
    """A random number for each counter, by hashing rather than by drawing in turn (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def matched(
    labels: Mapping[str, object], keys: Sequence[str], *, label_source: object, store_source: object
) -> list[str]:
    """The common keys of labels and features, in the labels' order.

    Raises:
        UserError: A label without features, or features without a label; one is named, and how many there are.
    """
    stored = set(keys)
    if absent := [key for key in labels if key not in stored]:
        raise UserError(
            store_source,
            f"no features for '{absent[0]}' ({len(absent)} of {len(labels)} in {label_source} have none)",
            "extract them, or take them out of the label file",
        )
    if surplus := sorted(stored.difference(labels)):
        raise UserError(
            store_source,
            f"'{surplus[0]}' is not in {label_source} ({len(surplus)} of {len(stored)} features have no label)",
            "label them, or extract this split alone",
        )
    return list(labels)


def _as_array(labels: list[Any]) -> NDArray:
    array = np.asarray(labels)
    return array.astype(np.float32 if array.ndim > 1 else np.int64)
