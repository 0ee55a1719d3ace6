"""Frames per second of the renderer on one core, without the codec.

python benchmarks/render_world.py
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import time
from collections.abc import Sequence

import cv2
import numpy as np

from splavu.runtime import cli
from splavu.synthetic.drawing.render import FPS, render
from splavu.synthetic.plans import generator, sample_plans, sample_subjects, stage


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.ArgumentParser(description="Measure the renderer on one core.")
    parser.add_argument("--videos", type=int, default=48, help="videos of 34 to 90 frames")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    people = sample_subjects(options.seed, "benchmark", options.videos)
    plans = sample_plans(options.seed, "benchmark", people, per_subject=1)
    num_frames, started = 0, time.perf_counter()
    for plan in plans:
        shot = stage(plan, generator(options.seed, "benchmark", plan.index))
        num_frames += len(render(shot.scene, shot.people, np.arange(plan.num_frames) / FPS).frames)
    spent = time.perf_counter() - started
    print(f"{num_frames} frames in {spent:.2f} s: {num_frames / spent:.0f} frames per second")


if __name__ == "__main__":
    cli.run(main)
