"""A step of multitask training against plain PyTorch and the machine's limits: `python benchmarks/multitask_step.py`.

step    action recognition, latent consistency and the privacy term as the trainer computes them, against the same
        objective written out plainly, and against the floor: the step's matrix products alone, at the speed that this
        machine reaches at exactly their shapes, and the optimizer's bytes at its bandwidth
epoch   the same two with their data, from stores on disk
gpu     both on a CUDA device, and the share of an epoch in which it computes; without a device, one line says so

The plain version is no straw man: NT-Xent by one matrix product, attention without weights to return, worker processes
that read. It maps what each term reads, as the terms are written (clips twice, either static view), by
nn.MultiheadAttention on sequences of one step, and updates by torch's default AdamW. Nothing is printed unless both
versions agree on three steps of losses. They take turns, so that a machine that slows down slows both. Threads that
share their cores with other work wait for each other at every product: mind the load, or give --threads 1 and compare
processor time.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from splavu.anonymizers import build_anonymizer
from splavu.data.clips import ClipBatch, FeatureDataset
from splavu.data.loader import BatchLoader
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli
from splavu.runtime.distributed import Processes
from splavu.stores import open_features
from splavu.training.engine import Engine, EngineParams
from splavu.training.heads import LinearHead
from splavu.training.learners import Learner, adamw
from splavu.training.multitask import MultitaskTrainer
from splavu.training.objectives import OBJECTIVES, Term, latent_consistency
from splavu.training.tasks import ActionRecognition

WEIGHTS = {"ar": 1.0, "latent": 1.0, "privacy": 0.1}
LEARNING_RATE, WEIGHT_DECAY, TEMPERATURE = 1e-4, 1e-2, 0.1
BYTES_A_PARAMETER = 28
"""What an update of AdamW moves: weight, gradient and two moments in, weight and moments out, float32."""


@dataclass
class Times:
    """Repeated measurements of one thing, in seconds; each statistic of a sum is the sum of its parts'."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, run: Callable[[], object], device: torch.device) -> None:
        _wait(device)
        wall, processor = time.perf_counter(), time.process_time()
        run()
        _wait(device)
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)

    @property
    def statistics(self) -> NDArray:  # [3]
        """Best, median, median of processor time."""
        return np.array([min(self.wall), statistics.median(self.wall), statistics.median(self.processor)])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Product:
    """A matrix product of the step, [m, k] by [k, n]; `layout` says which operand is stored transposed, as in BLAS."""

    what: str
    m: int
    k: int
    n: int
    layout: str
    count: int = 1

    @property
    def operations(self) -> int:
        return 2 * self.m * self.k * self.n

    def runner(self, device: torch.device) -> Callable[[], object]:
        left, right = torch.randn(self.m, self.k, device=device), torch.randn(self.k, self.n, device=device)
        if self.layout[0] == "t":
            left = left.T.contiguous().T
        if self.layout[1] == "t":
            right = right.T.contiguous().T
        out = torch.empty(self.m, self.n, device=device)
        return lambda: torch.mm(left, right, out=out)


def products(batch: int, width: int, layers: int, classes: int) -> list[Product]:
    """Every matrix product of our step, forward and backward.

    A block on lone features is two products, rows by values and by output. Of more rows than the features are wide
    it's cheaper to multiply the 2L matrices together and apply them once. What enters is data and needs no gradient.
    """
    rows, stacked = 3 * batch, 2 * batch
    if rows > width:
        adapter = [
            Product("blocks together", width, width, width, "nn", 2 * layers - 1),
            Product("rows", rows, width, width, "nt"),
            Product("gradient of the map", width, rows, width, "tn"),
            Product("gradients of left factors", width, width, width, "nt", 2 * layers - 1),
            Product("gradients of right factors", width, width, width, "tn", 2 * layers - 1),
        ]
    else:
        adapter = [
            Product("rows", rows, width, width, "nt", 2 * layers),
            Product("gradients of rows", rows, width, width, "nn", 2 * layers - 1),
            Product("gradients of weights", width, rows, width, "tn", 2 * layers),
        ]
    return [
        *adapter,
        Product("head", batch, width, classes, "nt"),
        Product("gradient of its input", batch, classes, width, "nn"),
        Product("gradient of its weight", classes, batch, width, "tn"),
        Product("similarities", stacked, width, stacked, "nt"),
        Product("gradient of the views", stacked, stacked, width, "nn"),
    ]


class PlainAdapter(nn.Module):
    """The AAM as its description reads: each feature a sequence of one, three times x + MultiHeadAttention(x)."""

    def __init__(self, width: int, layers: int, heads: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(layers))

    def forward(self, features: Tensor) -> Tensor:  # [B, D] -> [B, D]
        sequences = features[:, None]
        for layer in self.layers:
            sequences = sequences + layer(sequences, sequences, sequences, need_weights=False)[0]
        return sequences[:, 0]


def plain_nt_xent(z0: Tensor, z1: Tensor) -> Tensor:  # [B, D], [B, D] -> []
    rows = F.normalize(torch.cat([z0, z1]), dim=1)
    similarities = (rows @ rows.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarities, torch.arange(len(rows), device=rows.device).roll(len(z0)))


class Plain:
    """A training loop as a researcher writes it."""

    def __init__(self, ours: Ours, device: torch.device) -> None:
        blocks = ours.anonymizer.self_attn_blocks
        width = ours.anonymizer.architecture["feature_dim"]
        self.device, self.adapter = device, PlainAdapter(width, len(blocks)).to(device)
        for layer, block in zip(self.adapter.layers, blocks, strict=True):
            layer.load_state_dict(block.self_attn.state_dict())
        self.head = nn.Linear(width, ours.head.out_features, device=device)
        self.head.load_state_dict(ours.head.state_dict())
        parameters = [*self.adapter.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(self, clips: Tensor, labels: Tensor, pairs: Tensor) -> dict[str, Tensor]:  # [B, D], [B], [B, 2, D]
        terms = {
            "ar": F.cross_entropy(self.head(self.adapter(clips)), labels),
            "latent": F.mse_loss(self.adapter(clips), clips),
            "privacy": -plain_nt_xent(self.adapter(pairs[:, 0]), self.adapter(pairs[:, 1])),
        }
        self.optimizer.zero_grad()
        sum(WEIGHTS[name] * term for name, term in terms.items()).backward()
        self.optimizer.step()
        return terms

    def epoch(self, loader: DataLoader) -> None:
        for batch in loader:
            self.step(*(part.to(self.device, non_blocking=True) for part in batch))


class Ours:
    """The trainer of the study, with the parts that a script would give it."""

    def __init__(self, source: Any, study: Study, layers: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.anonymizer = build_anonymizer("transformer", study.width, num_layers=layers, identity=False).to(device)
        self.head = LinearHead(study.width, study.classes).to(device)
        adapter, head = (
            Learner(name, network, adamw(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY))
            for name, network in (("fa", self.anonymizer), ("ft", self.head))
        )
        processes = Processes(device)
        terms = [
            Term.of_task(ActionRecognition(head, source, source, device), WEIGHTS["ar"]),
            Term("latent", WEIGHTS["latent"], latent_consistency),
            Term.of_objective("privacy", WEIGHTS["privacy"], OBJECTIVES["nt_xent"]),
        ]
        self.trainer = MultitaskTrainer(
            adapter,
            terms,
            source,
            temperature=TEMPERATURE,
            processes=processes,
        )
        self.engine = Engine(EngineParams(), processes)

    def epoch(self, number: int = 0) -> dict[str, float]:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar for each of many short epochs
            return self.engine.epoch(self.trainer, number)


@dataclass(frozen=True)
class OneBatch:
    """A source that gives the same batch again and again."""

    batch: ClipBatch
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return 1

    def steps(self, first: int, count: int) -> Iterator[ClipBatch]:
        return iter([self.batch] * count)


@dataclass(frozen=True)
class Study:
    """Made-up features on disk: `clips` a video, ten static clips, a class each."""

    root: Path
    num_videos: int
    width: int
    classes: int
    clips: int = 4
    static: int = 10

    @property
    def stores(self) -> tuple[Path, Path]:
        """Of clips and of static clips."""
        return self.root / "clips.h5", self.root / "static.h5"

    @property
    def keys(self) -> list[str]:
        return [f"video{index:06d}" for index in range(self.num_videos)]

    @property
    def labels(self) -> dict[str, int]:
        return {key: index % self.classes for index, key in enumerate(self.keys)}

    def write(self) -> None:
        rng = np.random.default_rng(0)
        for path, count in zip(self.stores, (self.clips, self.static), strict=True):
            with h5py.File(path, "w") as store:
                store.attrs["encoder"] = "made up"
                for key in self.keys:
                    store[key] = rng.standard_normal((count, self.width), dtype=np.float32)

    def dataset(self) -> FeatureDataset:
        clips, static = (open_features(path) for path in self.stores)
        return FeatureDataset(clips, self.keys, labels=self.labels, static=static)


class PlainDataset(Dataset):
    """A video at a time: a random clip, its class, two static clips; files are opened once a process."""

    def __init__(self, study: Study) -> None:
        self.study, self.keys, self.labels = study, study.keys, study.labels
        self.files: list[h5py.File] = []

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        self.files = self.files or [h5py.File(path, "r") for path in self.study.stores]
        clips, static = (file[self.keys[index]][()] for file in self.files)
        pair = torch.randperm(len(static))[:2]
        clip = torch.from_numpy(clips[int(torch.randint(len(clips), ()))])
        return clip, self.labels[self.keys[index]], torch.from_numpy(static)[pair]


def step(args: argparse.Namespace, study: Study, device: torch.device) -> None:
    """Print the time of a step, of the plain one, and of the floor."""
    batch = study.dataset().batch(range(args.batch)).to(device)
    parts = (batch.clips, batch.labels, batch.static_pairs)
    ours = Ours(OneBatch(batch), study, args.layers, device)
    plain = Plain(ours, device)
    for _ in range(3):
        losses, expected = ours.epoch(), plain.step(*parts)
        for name, term in expected.items():
            if abs(losses[name] - float(term.detach())) > 1e-4 * max(1.0, abs(losses[name])):
                raise SystemExit(f"the versions disagree on '{name}': {losses[name]} and {float(term.detach())}")

    listed = products(args.batch, study.width, args.layers, study.classes)
    runners = [product.runner(device) for product in listed]
    num_parameters = sum(p.numel() for network in (ours.anonymizer, ours.head) for p in network.parameters())
    arrays = torch.randn(4, num_parameters, device=device)
    movers = {
        "copy": (8, lambda: arrays[1].copy_(arrays[0])),
        "triad": (12, lambda: torch.add(arrays[0], arrays[1], alpha=2, out=arrays[2])),
        "scaling in place": (8, lambda: arrays[3].mul_(1.0)),
    }
    times = {name: Times() for name in ("ours", "plain", *movers)}
    of_products = [Times() for _ in listed]
    for _ in range(args.repeats):
        times["ours"].add(ours.epoch, device)
        times["plain"].add(lambda: plain.step(*parts), device)
        for measured, runner in zip(of_products, runners, strict=True):
            measured.add(runner, device)
        for name, (_, mover) in movers.items():
            times[name].add(mover, device)

    multiplied = sum(product.count * t.statistics for product, t in zip(listed, of_products, strict=True))
    speeds = {name: size * num_parameters / times[name].statistics for name, (size, _) in movers.items()}
    moved = BYTES_A_PARAMETER * num_parameters / np.max(list(speeds.values()), axis=0)
    operations = sum(product.count * product.operations for product in listed)
    counted, counted_plain = (_operations(run) for run in (ours.epoch, lambda: plain.step(*parts)))
    print(
        f"step on {device.type}: batch {args.batch}, D = {study.width}, {args.layers} blocks, {study.classes} classes, "
        f"{num_parameters / 1e6:.2f} M parameters\n"
        f"operations in products: {operations / 1e9:.2f} G ({counted / 1e9:.2f} G counted by torch), plain "
        f"{counted_plain / 1e9:.2f} G; bytes of the optimizer: {BYTES_A_PARAMETER * num_parameters / 1e6:.0f} MB\n"
        f"reached here: {operations / multiplied[1] / 1e9:.0f} GFLOP/s; "
        + ", ".join(f"{name} {speed[1] / 1e9:.0f} GB/s" for name, speed in speeds.items())
    )
    rows = {
        "ours": times["ours"].statistics,
        "plain": times["plain"].statistics,
        "floor": multiplied + moved,
        "- products": multiplied,
        "- optimizer": moved,
    }
    header = ("ms", "best", "median", "processor")
    print(
        markdown_table(header, [[name, *(f"{1000 * value:.1f}" for value in row)] for name, row in rows.items()]),
        end="",
    )
    faster, above = rows["plain"] / rows["ours"], rows["ours"] / rows["floor"]
    print(f"plain / ours: {_ratios(faster)}; ours / floor: {_ratios(above)} (best, median, processor time)")
    if args.verbose:
        for product, measured in zip(listed, of_products, strict=True):
            speed = product.operations / measured.statistics[1] / 1e9
            shape = f"[{product.m}, {product.k}] [{product.k}, {product.n}]"
            print(f"  {product.count} x {shape} {product.layout}, {product.what}: {speed:.0f} GFLOP/s")


def _ratios(values: NDArray) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _operations(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def epoch(args: argparse.Namespace, study: Study, device: torch.device) -> None:
    """Print the time of an epoch from stores on disk, and on a GPU how much of it the device computes."""
    dataset = study.dataset()
    ours = Ours(BatchLoader(dataset, batch_size=args.batch, device=device), study, args.layers, device)
    plain = Plain(ours, device)
    loader = DataLoader(
        PlainDataset(study),
        batch_size=args.batch,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        pin_memory=device.type == "cuda",
    )
    times = {"ours": Times(), "plain": Times()}
    for repeat in range(-1, args.epochs):
        if repeat == 0:
            times = {name: Times() for name in times}  # the first warmed up
        times["ours"].add(lambda number=repeat + 1: ours.epoch(number), device)
        times["plain"].add(lambda: plain.epoch(loader), device)
    mine, theirs = (times[name].statistics for name in ("ours", "plain"))
    print(
        f"epoch on {device.type}: {study.num_videos} videos, ours {mine[1]:.3f} s, plain {theirs[1]:.3f} s with "
        f"{args.workers} workers, ratio {_ratios((theirs / mine)[:2])} (best, median)"
    )
    if device.type == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            ours.epoch()
            _wait(device)
        computed = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
        print(f"the device computes {computed / mine[1]:.0%} of it: {computed:.3f} s in kernels and copies")


def _refuse_waiting(args: argparse.Namespace, study: Study, device: torch.device) -> None:
    """Fail if the host waits for the device anywhere between a batch and the updated weights."""
    batch = study.dataset().batch(range(args.batch)).to(device)
    ours = Ours(OneBatch(batch), study, args.layers, device)
    ours.epoch()  # optimizers make their state in the first step
    torch.cuda.set_sync_debug_mode("error")
    objective, _ = ours.trainer.objective({"clips": batch, "ar": batch})
    objective.backward()
    for learner in ours.trainer.learners:
        learner.step(ours.engine.scaler)
    torch.cuda.set_sync_debug_mode("default")
    print("no wait for the device inside a step")


def gpu(args: argparse.Namespace, study: Study) -> None:
    """Both on the first CUDA device."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here, not measured")
        return
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(device))
    _refuse_waiting(args, study, device)
    step(args, study, device)
    epoch(args, study, device)


BENCHMARKS: dict[str, Callable[[argparse.Namespace, Study], None]] = {
    "step": lambda args, study: step(args, study, torch.device("cpu")),
    "epoch": lambda args, study: epoch(args, study, torch.device("cpu")),
    "gpu": gpu,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, help="one of the parts")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=int, default=768, help="D")
    parser.add_argument("--layers", type=int, default=3, help="blocks of the adapter")
    parser.add_argument("--classes", type=int, default=51)
    parser.add_argument("--repeats", type=int, default=15, help="of the step")
    parser.add_argument("--epochs", type=int, default=3, help="that are measured")
    parser.add_argument("--videos", type=int, default=3570, help="of an epoch; HMDB51 trains on as many")
    parser.add_argument("--workers", type=int, default=2, help="processes that read for the plain version")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--verbose", action="store_true", help="every product with its speed")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as root:
        study = Study(Path(root), max(args.videos, args.batch), args.width, args.classes)
        study.write()
        for name, benchmark in BENCHMARKS.items():
            if args.only in (None, name):
                benchmark(args, study)
    return 0


if __name__ == "__main__":
    cli.run(main)
