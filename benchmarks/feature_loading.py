"""Drawing clips from a feature store, against h5py behind a DataLoader: `python benchmarks/feature_loading.py`.

small  HMDB51's size (3,570 videos, 10 clips and 10 static clips of 768 numbers), batches of 512: a random clip, two
       static clips and a label a sample. The plain side is what one would write: a Dataset that opens the files in its
       worker, a shuffling DataLoader, the default collation; the faster of 0 and 2 workers counts. Both sides make
       whole passes in turn, after one to warm up; the median counts.
large  Kinetics-400's size (240,000 videos, 10 clips), for the same samples: the time to cache the store, to open it
       again, the samples a second from the map, and the memory of the process beyond the page cache (RssAnon, Linux),
       torch and this program included. All of it is written and read with 96 numbers a clip, which takes 2 GB of disk
       rather than 15. For the speed at 768 numbers, the cached rows are then replaced by a file of that width which is
       all holes (7.4 GB that take no disk): the map, the page cache and the gather are the same, the disk isn't read.
       A first pass fills the page cache, and a second finds most of its rows there.

Nothing here fails for being slow.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from splavu.data.datasets import BatchLoader, FeatureDataset
from splavu.data.feature_cache import ClipTable
from splavu.runtime import cli
from splavu.stores import FeatureStore

NUM_CLASSES = 51
CLIPS = 10
"""Of a video; as many static ones."""


class PlainDataset(Dataset):
    """(clip [D], label, pair of static clips [2, D]) of a video, read with h5py when asked for."""

    def __init__(self, clips: Path, static: Path, labels: dict[str, int]) -> None:
        self.paths, self.labels, self.keys = (clips, static), labels, sorted(labels)
        self.files: tuple[h5py.File, h5py.File] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        if self.files is None:  # in each worker process
            self.files = tuple(h5py.File(path, "r") for path in self.paths)
        key = self.keys[index]
        clips, static = (file[key][()] for file in self.files)  # whole: faster than h5py's selections of a row
        pair = random.sample(range(len(static)), 2)
        return torch.from_numpy(clips[random.randrange(len(clips))]), self.labels[key], torch.from_numpy(static[pair])


def small(args: argparse.Namespace, folder: Path) -> None:
    """Samples a second of both sides, and their ratio."""
    clips, static = folder / "clips.h5", folder / "static.h5"
    for path in (clips, static):
        _write_store(path, args.videos, args.width)
    labels = _labels(FeatureStore(clips).keys())
    started = time.perf_counter()
    dataset = FeatureDataset(FeatureStore(clips), sorted(labels), labels=labels, static=FeatureStore(static))
    opened = time.perf_counter() - started
    ours = BatchLoader(dataset, batch_size=args.batch_size)
    plain = PlainDataset(clips, static, labels)
    ways: dict[str, Callable[[int], Iterable]] = {"BatchLoader": lambda lap: ours.steps(lap * len(ours), len(ours))}
    for workers in (0, 2):
        loader = DataLoader(plain, args.batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        ways[f"h5py, DataLoader, {workers} workers"] = lambda lap, loader=loader: loader
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for lap in range(args.repeats + 1):
        for name, way in ways.items():
            # A pass of BatchLoader is so short that one would measure the clock.
            passes = 20 if name == "BatchLoader" else 1
            rate = _rate(batch for n in range(passes) for batch in way(lap * passes + n))
            if lap:  # the first one warms up
                rates[name].append(rate)
    median = {name: statistics.median(some) for name, some in rates.items()}
    print(f"{args.videos} videos, width {args.width}, batch {args.batch_size}; opened and checked in {opened:.2f} s")
    print(f"{'samples a second':28} {'median':>9} {'best':>9}")
    for name, some in rates.items():
        print(f"{name:28} {median[name]:9.0f} {max(some):9.0f}")
    fastest = max(rate for name, rate in median.items() if name != "BatchLoader")
    print(f"ratio to the faster plain one: {median['BatchLoader'] / fastest:.0f}")


def large(args: argparse.Namespace, folder: Path) -> None:
    """Time and memory of a store that isn't read into memory."""
    path = folder / "large.h5"
    _write_store(path, args.large_videos, args.large_width)
    print(f"\n{args.large_videos} videos, width {args.large_width}, a store of {path.stat().st_size / 1e9:.2f} GB")
    labels = _labels(FeatureStore(path).keys())
    for what in ("cached and opened", "opened again"):
        started = time.perf_counter()
        with _Peak() as memory:
            store = FeatureStore(path)
            dataset = FeatureDataset(store, store.keys(), labels=labels, static=store)
        print(f"{what:28} {time.perf_counter() - started:8.1f} s, at most {memory.gigabytes:.2f} GB of memory")
    if dataset.clips.path is None:
        print("too small to be cached: choose more videos")
        return
    _print_large("drawn from the map", dataset, args)
    holes = folder / "holes.f32"
    with holes.open("wb") as file:
        file.truncate(len(dataset.clips.rows) * args.width * 4)
    rows = np.memmap(holes, np.float32, mode="c", shape=(len(dataset.clips.rows), args.width))
    dataset.clips = dataset.static = ClipTable(rows, dataset.clips.start, dataset.clips.num_clips, holes)
    _print_large(f"width {args.width}, of holes", dataset, args)


def _print_large(what: str, dataset: FeatureDataset, args: argparse.Namespace) -> None:
    loader = BatchLoader(dataset, batch_size=args.batch_size)
    for name, first in (("first pass", 0), ("second pass", len(loader))):
        with _Peak() as memory:
            rate = _rate(loader.steps(first, len(loader)))
        print(f"{what + ', ' + name:36} {rate:9.0f} samples/s, at most {memory.gigabytes:.2f} GB of memory")


class _Peak:
    """The most memory beyond the page cache that this process holds within the block, looked at 50 times a second."""

    def __enter__(self) -> _Peak:
        self.gigabytes, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            kilobytes = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
            self.gigabytes = max(self.gigabytes, kilobytes * 1024 / 1e9)
            if self._done.wait(0.02):
                return


def _rate(batches: Iterable) -> float:
    """Samples a second."""
    started, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch[0]) if isinstance(batch, list) else len(batch)
    return count / (time.perf_counter() - started)


def _write_store(path: Path, num_videos: int, width: int) -> None:
    """Random features; with h5py alone, because many videos at once need no journal."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["encoder"] = "random"
        for video in range(num_videos):
            file[f"video_{video:06d}"] = rng.standard_normal((CLIPS, width), dtype=np.float32)


def _labels(keys: Sequence[str]) -> dict[str, int]:
    return {key: index % NUM_CLASSES for index, key in enumerate(keys)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("small", "large"))
    parser.add_argument("--videos", type=int, default=3570)
    parser.add_argument("--width", type=int, default=768, help="of a clip")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large-videos", type=int, default=240_000)
    parser.add_argument("--large-width", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--folder", type=Path, help="for the stores, deleted at the end; default: for temporary files")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if os.getloadavg()[0] > 0.5:
        print("note: other programs are at work on this machine, and times mean little")
    for name, part in (("small", small), ("large", large)):
        if args.only in (None, name):
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                part(args, Path(folder))
    return 0


if __name__ == "__main__":
    cli.run(main)
