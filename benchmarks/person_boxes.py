"""How much of the synthetic world's people the boxes of `splavu.extraction.person_boxes.HogDetector` cover.

python benchmarks/person_boxes.py

The renderer knows where everybody's joints are, so nothing is labelled by hand. Those outside the frame don't count.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import time
from collections.abc import Sequence

import cv2
import numpy as np

from splavu.extraction.obfuscation import blackened
from splavu.extraction.person_boxes import GROUP, HogDetector
from splavu.runtime import cli
from splavu.synthetic.drawing.render import FPS, locate, render
from splavu.synthetic.plans import generator, sample_plans, sample_subjects, stage


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.ArgumentParser(description="Measure what the person detector covers, on one core.")
    parser.add_argument("--videos", type=int, default=40, help="four groups of frames that share boxes are from each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    subjects = sample_subjects(options.seed, "benchmark", options.videos)
    detector, seconds, joints, heads, areas = HogDetector(), 0.0, [], [], []
    for plan in sample_plans(options.seed, "benchmark", subjects, per_subject=1):
        shot = stage(plan, generator(options.seed, "benchmark", plan.index))
        moments = np.arange(4 * GROUP) / FPS
        frames = render(shot.scene, shot.people, moments).frames
        started = time.perf_counter()
        boxes = detector.boxes(frames, key="", first=0)
        seconds += time.perf_counter() - started
        covered = np.stack([blackened(np.ones_like(f), b)[..., 0] == 0 for f, b in zip(frames, boxes, strict=True)])
        areas.append(covered.mean())
        height, width = frames.shape[1:3]
        for person in shot.people:
            columns, rows = np.moveaxis(locate(shot.scene, person, moments)[0].astype(int), -1, 0)  # [T, 13]
            inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
            frame = np.arange(len(frames))[:, None]
            hit = covered[frame, rows.clip(0, height - 1), columns.clip(0, width - 1)]
            shown = inside.sum(axis=1) >= 4
            joints += ((hit & inside).sum(axis=1)[shown] / inside.sum(axis=1)[shown]).tolist()
            heads += hit[:, 0][inside[:, 0]].tolist()
    print(
        f"{len(areas)} videos, {len(joints)} people in frames: {np.mean(joints):.1%} of their joints and "
        f"{np.mean(heads):.1%} of their heads covered, {np.mean(np.array(joints) < 0.5):.1%} of the people less than "
        f"half; boxes take up {np.mean(areas):.1%} of a frame, {1000 * seconds / (len(areas) * 4 * GROUP):.1f} ms a "
        "frame"
    )


if __name__ == "__main__":
    cli.run(main)
