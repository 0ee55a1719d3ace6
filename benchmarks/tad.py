"""Temporal action detection against plain loops, as ratios: `python benchmarks/tad.py [--repeats 3] [--only NAME]`.

Each loop does the same work a candidate at a time, on Python numbers, and is no slower than need be: it skips what
doesn't overlap and looks things up in dictionaries. A ratio is printed only if both results agree. The best of the
repeats counts, for both. Last, a training step of the published network, and how much of it is spent elsewhere.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from splavu.runtime import cli
from tridet.average_precision import THUMOS_TIOUS, Segments, mean_average_precision
from tridet.config import Config, load
from tridet.detector import TriDet
from tridet.learner import DetectorLearner, detector_learner
from tridet.nms import suppress, vote
from tridet.thumos14 import Batches, ThumosDataset

SIGMA, MIN_SCORE, VOTING_THRESHOLD = 0.5, 0.001, 0.7


@dataclass(frozen=True)
class Row:
    """One line of the report: ours against a loop."""

    what: str
    seconds: float
    plain_seconds: float
    note: str

    def __str__(self) -> str:
        ratio = self.plain_seconds / self.seconds
        return f"{self.what}: {ratio:.0f} x ({self.seconds:.3f} s, loop {self.plain_seconds:.2f} s); {self.note}"


def suppression(args: argparse.Namespace) -> Row:
    """Soft-NMS in every class and a vote on what it keeps: 2,000 candidates x 20 classes on a grid of 2304 steps.

    Centres are uniform, lengths log-uniform from 1 to 60 steps, and scores those of a detector above its threshold:
    sigmoid of N(-4, 1.5), more than half of them below 0.02.
    """
    rng = np.random.default_rng(args.seed)
    count = args.candidates * args.classes
    centres, halves = rng.uniform(0, 2304, count), np.exp(rng.uniform(0, math.log(60), count)) / 2
    segments = torch.from_numpy(np.stack([centres - halves, centres + halves], axis=1)).float()
    scores = torch.from_numpy(1 / (1 + np.exp(-rng.normal(-4, 1.5, count)))).float().clamp(min=MIN_SCORE * 1.01)
    labels = torch.arange(args.classes).repeat_interleave(args.candidates)

    def ours() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        options = {"sigma": SIGMA, "min_score": MIN_SCORE, "multiclass": True, "max_segments": 0}
        kept, kept_scores, kept_labels = suppress(segments, scores, labels, **options)
        by_class = kept_labels.argsort(stable=True)
        counts = kept_labels.bincount(minlength=args.classes).tolist()
        parts = (part[by_class].split(counts) for part in (kept, kept_scores))
        candidates = (part.split(args.candidates) for part in (segments, scores))
        return [
            (mine, my_scores, vote(mine, *voters, threshold=VOTING_THRESHOLD))
            for mine, my_scores, *voters in zip(*parts, *candidates, strict=True)
        ]

    def loop() -> list[tuple[list, list, list]]:
        classes = []
        for boundaries, confidence in zip(segments.split(args.candidates), scores.split(args.candidates), strict=True):
            pairs = zip(boundaries.tolist(), confidence.tolist(), strict=True)
            candidates = [(start, end, score) for (start, end), score in pairs]
            kept = _soft_nms_loop(candidates)
            classes.append(([row[:2] for row in kept], [row[2] for row in kept], _vote_loop(kept, candidates)))
        return classes

    result, seconds = _best(ours, args.repeats)
    plain, plain_seconds = _best(loop, args.repeats)
    gaps = np.zeros(3)
    for got, expected in zip(result, plain, strict=True):
        # By start, because float32 and the loop's float64 may order two scores differently that are all but equal.
        first, second = (np.argsort(np.asarray(kept)[:, 0], kind="stable") for kept in (got[0], expected[0]))
        for part, (mine, others) in enumerate(zip(got, expected, strict=True)):
            gaps[part] = max(gaps[part], np.abs(np.asarray(mine)[first] - np.asarray(others)[second]).max())
    if gaps[0] > 0 or gaps[1] > 1e-5 or gaps[2] > 1e-2:
        raise SystemExit(f"suppression: the results differ (segments, scores, votes) by {gaps}")
    kept = sum(len(part[0]) for part in result)
    return Row("soft-NMS and voting", seconds, plain_seconds, f"{count} candidates, the same {kept} kept")


def precision(args: argparse.Namespace) -> Row:
    """mAP of 213 videos x 200 detections at five thresholds: THUMOS14's size, about 16 true segments a video.

    A third of the detections is near a true segment; two thirds have the class of their video.
    """
    rng = np.random.default_rng(args.seed)
    videos, detections = args.videos, args.detections
    num_true = rng.integers(1, 32, videos)
    true_video = np.repeat(np.arange(videos), num_true)
    true_starts = rng.uniform(0, 200, len(true_video))
    true_segments = np.stack([true_starts, true_starts + rng.uniform(0.5, 10, len(true_video))], axis=1)
    classes = rng.integers(0, args.classes, videos)
    names = np.array([f"video_test_{n:07d}" for n in range(videos)])
    truth = Segments(names[true_video], true_segments, classes[true_video])

    video = np.repeat(np.arange(videos), detections)
    starts = rng.uniform(0, 200, len(video))
    segments = np.stack([starts, starts + rng.uniform(0.5, 10, len(video))], axis=1)
    model = rng.integers(0, num_true[video]) + (num_true.cumsum() - num_true)[video]
    near = rng.random(len(video)) < 1 / 3
    segments[near] = np.sort(true_segments[model[near]] + rng.normal(0, 0.7, (near.sum(), 2)), axis=1)
    label = np.where(rng.random(len(video)) < 2 / 3, classes[video], rng.integers(0, args.classes, len(video)))
    predictions = Segments(names[video], segments, label, rng.random(len(video)))

    result, seconds = _best(lambda: mean_average_precision(truth, predictions), args.repeats)
    plain, plain_seconds = _best(lambda: _average_precision_loop(truth, predictions), args.repeats)
    if not np.allclose(result.ap, plain, rtol=0, atol=1e-9):
        raise SystemExit(f"average precision: the results differ by {np.abs(result.ap - plain).max()}")
    note = f"{len(predictions)} detections, {len(truth)} true segments, the same average mAP {result.average:.4f}"
    return Row("mean average precision", seconds, plain_seconds, note)


@dataclass(frozen=True)
class Shares:
    """Where a step's time goes, the median of several steps."""

    what: str
    seconds: dict[str, float]
    network: tuple[str, ...]
    """The parts that are the network's own."""

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        outside = 1 - sum(self.seconds[part] for part in self.network) / total
        parts = ", ".join(f"{part} {100 * seconds / total:.1f} %" for part, seconds in self.seconds.items())
        return f"{self.what}: {total:.2f} s, {100 * outside:.1f} % of it outside the network ({parts})"


def training_step(args: argparse.Namespace) -> Shares:
    """A training step of the published network: two windows of 2304 steps, 768 wide, 20 classes, from files to weights.

    The backward pass is cut at the network's outputs, so that the share of targets, decoding and losses can be told;
    otherwise the step is that of `tridet.train`.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = _made_up_thumos(Path(folder), seed=args.seed, num_videos=4)
        torch.manual_seed(args.seed)
        device = torch.device(args.device)
        batches = Batches(ThumosDataset(config.dataset, config.train_split, training=True), config.loader.batch_size)
        learner = detector_learner(TriDet(config).to(device).train(), name="tridet")
        learner.schedule_as_configured(updates_per_epoch=len(batches))
        steps = [_timed_step(learner, batches.epoch(epoch), device) for epoch in range(args.repeats + 1)][1:]
    parts = {part: float(np.median([step[part] for step in steps])) for part in steps[0]}
    return Shares("training step, T = 2304, D = 768, batch 2", parts, ("forward", "backward"))


def _timed_step(learner: DetectorLearner, batches: Iterator[list], device: torch.device) -> dict[str, float]:
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(part: str) -> None:
        nonlocal clock
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds[part], clock = time.perf_counter() - clock, time.perf_counter()

    network = learner.network
    videos = next(batches)
    lap("reading")
    batch = network.preprocess(videos)
    lap("padding and noise")
    levels = network.predict(*batch)
    lap("forward")
    outputs = [value for level in levels for value in vars(level).values() if _has_gradient(value)]
    leaves = [value.detach().requires_grad_() for value in outputs]
    swap = dict(zip(map(id, outputs), leaves, strict=True))
    cut = [replace(level, **{k: swap.get(id(v), v) for k, v in vars(level).items()}) for level in levels]
    network.losses(cut, videos)["final_loss"].backward()
    lap("targets, decoding, losses")
    torch.autograd.backward(outputs, [leaf.grad for leaf in leaves])
    lap("backward")
    learner.step()
    lap("clipping, optimizer, average")
    return seconds


def _has_gradient(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def _made_up_thumos(folder: Path, *, seed: int, num_videos: int) -> Config:
    """Videos a little longer than the network takes, fifteen actions each; the published configuration."""
    rng = np.random.default_rng(seed)
    database = {}
    for number in range(num_videos):
        name = f"video_validation_{number:07d}"
        np.save(folder / f"{name}.npy", rng.standard_normal((2400, 768), dtype=np.float32))
        starts = rng.uniform(0, 1200, 15)
        actions = [
            {"segment": [start, start + length], "label": f"class {label:02d}", "label_id": int(label)}
            for start, length, label in zip(starts, rng.uniform(1, 20, 15), rng.integers(0, 20, 15), strict=True)
        ]
        # Every class must have a name, also those that no action here is of.
        database[name] = {"subset": "validation", "fps": 30.0, "duration": 1280.0, "annotations": actions}
    every = [{"segment": [0.0, 1.0], "label": f"class {label:02d}", "label_id": label} for label in range(20)]
    database["video_test_0000000"] = {"subset": "test", "fps": 30.0, "duration": 1280.0, "annotations": every}
    (folder / "thumos14.json").write_text(json.dumps({"database": database}))
    published = Path(__file__).resolve().parents[1] / "tridet/thumos_videoMAE.yaml"
    return load(published, {"dataset": {"json_file": str(folder / "thumos14.json"), "feat_folder": str(folder)}})


BENCHMARKS: dict[str, Callable[[argparse.Namespace], Row | Shares]] = {
    "suppression": suppression,
    "precision": precision,
    "step": training_step,
}


def _soft_nms_loop(candidates: list[tuple[float, float, float]]) -> list[tuple[float, float, float, float]]:
    """Kept (start, end, lowered score), best first; one pass lowers, removes and finds the next best."""
    kept, left = [], list(candidates)
    best = max(range(len(left)), key=lambda row: left[row][2])
    while left:
        start, end, score = left.pop(best)
        kept.append((start, end, score))
        length, survivors, best_score = end - start + 1e-6, [], -1.0
        for other in left:
            other_start, other_end, other_score = other
            overlap = (end if end < other_end else other_end) - (start if start > other_start else other_start)
            if overlap > 0:
                iou = overlap / (length + other_end - other_start + 1e-6 - overlap)
                other_score *= math.exp(-iou * iou / SIGMA)
                other = (other_start, other_end, other_score)
            if other_score >= MIN_SCORE:
                if other_score > best_score:
                    best, best_score = len(survivors), other_score
                survivors.append(other)
        left = survivors
    return kept


def _vote_loop(
    kept: list[tuple[float, ...]], candidates: list[tuple[float, float, float]]
) -> list[tuple[float, float]]:
    voted = []
    for start, end, _ in kept:
        total = start_sum = end_sum = 0.0
        for other_start, other_end, score in candidates:
            overlap = (end if end < other_end else other_end) - (start if start > other_start else other_start)
            if overlap > 0 and overlap >= VOTING_THRESHOLD * (end - start + other_end - other_start - overlap):
                total += score
                start_sum += score * other_start
                end_sum += score * other_end
        voted.append((start_sum / total, end_sum / total) if total else (start, end))
    return voted


def _average_precision_loop(truth: Segments, predictions: Segments) -> np.ndarray:  # [thresholds, classes]
    """The protocol a prediction at a time, with a table of the true segments of each video and class."""
    true_of = defaultdict(list)
    for video, (start, end), label in _rows(truth.video, truth.segments, truth.label):
        true_of[video, label].append((start, end))
    rows = list(_rows(predictions.video, predictions.segments, predictions.label, predictions.score))
    rows.sort(key=lambda row: -row[3])
    classes = sorted(set(truth.label.tolist()))
    ap = np.zeros((len(THUMOS_TIOUS), len(classes)))
    for column, label in enumerate(classes):
        num_true = sum(len(segments) for (_, other), segments in true_of.items() if other == label)
        right = [[] for _ in THUMOS_TIOUS]
        taken = [set() for _ in THUMOS_TIOUS]
        for video, (start, end), other, _ in rows:
            if other != label:
                continue
            tious = []
            for row, (true_start, true_end) in enumerate(true_of.get((video, label), ())):
                overlap = max(0.0, min(end, true_end) - max(start, true_start))
                tious.append((overlap / (end - start + true_end - true_start - overlap), row))
            tious.sort(reverse=True)
            for threshold, hits, gone in zip(THUMOS_TIOUS, right, taken, strict=True):
                hit = False
                for tiou, row in tious:
                    if tiou < threshold:
                        break
                    if (video, row) not in gone:
                        gone.add((video, row))
                        hit = True
                        break
                hits.append(hit)
        for row, hits in enumerate(right):
            found, precisions = 0, []
            for rank, hit in enumerate(hits, start=1):
                found += hit
                precisions.append(found / rank)
            best, area = 0.0, 0.0
            for hit, value in zip(reversed(hits), reversed(precisions), strict=True):
                best = max(best, value)
                area += best * hit
            ap[row, column] = area / num_true
    return ap


def _rows(*columns: np.ndarray) -> zip:
    return zip(*(column.tolist() for column in columns), strict=True)


def _best(work: Callable, repeats: int) -> tuple[object, float]:
    """The result and the shortest time, in seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, help="one of the parts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of the training step")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--candidates", type=int, default=2000, help="of each class")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--videos", type=int, default=213)
    parser.add_argument("--detections", type=int, default=200, help="of each video")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(
        f"torch {torch.__version__}, numpy {np.__version__}, {args.threads} threads on {os.cpu_count()} cores, "
        f"seed {args.seed}, best of {args.repeats}"
    )
    for name, benchmark in BENCHMARKS.items():
        if args.only in (None, name):
            print(benchmark(args), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main)
