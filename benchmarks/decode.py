"""Frames decoded per second by each reader: `python benchmarks/decode.py FOLDER [--processes 2] [--repeats 5]`.

Every process decodes all videos of the folder on one thread, as decoding workers do; with one process a core the figure
is the machine's. The readers take turns within a repeat, so that a machine that slows down slows them all; the best
repeat counts. Where other work shares the machine, frames per second of processor time are the figure to compare by.
Pixels are compared as well; a difference is printed, not hidden.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splavu.extraction.videos import BACKENDS, list_videos, open_video, usable_backends
from splavu.runtime import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--readers", nargs="+", choices=BACKENDS, help="default: all that work here")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    readers, paths = args.readers or usable_backends(), list_videos(args.folder)
    wall, processor = (dict.fromkeys(readers, float("inf")) for _ in range(2))
    pools = {reader: multiprocessing.get_context("spawn").Pool(args.processes) for reader in readers}
    for repeat in range(args.repeats + 1):
        for reader in readers:
            started = time.perf_counter()
            done = pools[reader].starmap(_decode, [(paths, reader)] * args.processes, chunksize=1)
            if repeat:  # libraries load in the first
                wall[reader] = min(wall[reader], time.perf_counter() - started)
                processor[reader] = min(processor[reader], *(seconds for _, seconds in done))
    num_frames = done[0][0]
    for reader in readers:
        print(
            f"{reader}: {args.processes * num_frames / wall[reader]:.0f} frames/s with {args.processes} processes, "
            f"{num_frames / processor[reader]:.0f} frames in a second of processor time"
        )
    for pool in pools.values():
        pool.terminate()
    for path in paths:
        _compare(path, readers)
    return 0


def _decode(paths: Sequence[Path], reader: str) -> tuple[int, float]:
    """Number of frames, and the seconds that the threads of this process computed."""
    num_frames, started = 0, time.process_time()
    for path in paths:
        with open_video(path, reader) as video:
            num_frames += sum(len(batch) for batch in video.frames())
    return num_frames, time.process_time() - started


def _compare(path: Path, readers: Sequence[str]) -> None:
    first, *others = ([*open_video(path, reader).frames()] for reader in readers)
    for reader, batches in zip(readers[1:], others, strict=True):
        expected, found = np.concatenate(first), np.concatenate(batches)
        length = min(len(expected), len(found))
        gap = np.abs(expected[:length].astype(int) - found[:length]).max()
        frames = f"{len(expected)} and {len(found)} frames"
        print(f"{path.name}: {readers[0]} and {reader}: {frames}, largest difference of a pixel {gap} of 255")


if __name__ == "__main__":
    cli.run(main)
