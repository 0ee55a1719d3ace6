"""Frames decoded per second by each backend on one thread: `python benchmarks/decode.py FOLDER [--repeats 3]`.

The best of the repeats counts. Pixels are compared as well; a difference is printed, not hidden.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feature_extraction.videos import BACKENDS, list_videos, open_video
from splavu import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    for path in list_videos(args.folder):
        decoded = {}
        for backend in BACKENDS:
            seconds = []
            for _ in range(args.repeats):
                started = time.perf_counter()
                with open_video(path, backend) as video:
                    batches = list(video.frames())
                seconds.append(time.perf_counter() - started)
            decoded[backend] = np.concatenate(batches)
            num_frames = len(decoded[backend])
            print(f"{path.name}: {backend} {num_frames} frames, {num_frames / min(seconds):.0f} frames/s")
        first, second = decoded.values()
        length = min(len(first), len(second))
        gap = np.abs(first[:length].astype(int) - second[:length]).max()
        print(f"{path.name}: largest difference of a pixel {gap} of 255")
    return 0


if __name__ == "__main__":
    cli.run(main)
