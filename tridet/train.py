"""Train TriDet on precomputed features; killed, it goes on when the same command is started again.

  python tridet/train.py tridet/thumos_videoMAE.yaml --output raw
  python tridet/train.py tridet/thumos_videoMAE.yaml --output anonymized --aam saved_models/RUN/model_temp.pth

Writes OUTPUT_FOLDER/CONFIG_NAME/: epoch_NNN.pth.tar (weights, their moving average, optimizer, schedule), config.txt,
params.json, versions.json, metrics.jsonl and TensorBoard files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import pprint
import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tridet import checkpoints, cli
from tridet.assignment import assignment_report
from tridet.checkpoints import write_json
from tridet.config import Config, to_dict
from tridet.detector import TriDet
from tridet.errors import InputError
from tridet.eval import evaluate
from tridet.layers import dead_parameters
from tridet.optim import LearningRate, MovingAverage, build_optimizer, clip
from tridet.thumos14 import Batches, ThumosDataset, ground_truth

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = ("output_folder", "devices", "loader")
"""Parts of the configuration that may differ between a run and its continuation."""


@dataclass
class Training:
    """Everything that a checkpoint holds, and one step of it."""

    config: Config
    network: TriDet
    iters_per_epoch: int

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.network, self.config.opt)
        self.schedule = LearningRate(self.optimizer, self.config.opt, iters_per_epoch=self.iters_per_epoch)
        self.average = MovingAverage(self.network, decay=self.config.opt.ema_decay)

    def step(self, videos: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """One update on a batch; returns its losses, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.network(videos)
        losses["final_loss"].backward()
        clip(self.network.parameters(), self.config.train_cfg.clip_grad_l2norm)
        self.optimizer.step()
        self.schedule.step()
        self.average.update(self.network)
        return {name: value.detach() for name, value in losses.items()}


def train(
    config: Config,
    folder: Path,
    *,
    device: torch.device,
    anonymizer: Callable[[Tensor], Tensor] | None = None,
    described: dict[str, Any] | None = None,
    resume: Path | None = None,
    restart: bool = False,
    print_freq: int = 10,
    ckpt_freq: int = 5,
    eval_freq: int = 0,
) -> Path:
    """Train as `config` says and return the last checkpoint.

    Args:
        folder: The run folder.
        anonymizer: `[T, D] -> [T, D]`, applied to the features as they are read.
        described: What the run reads beside the configuration, kept in params.json; a run isn't continued on another.
        resume: Checkpoint to go on from; None takes the newest in `folder`, if there is one.
        restart: Begin anew although there is one; the folder's checkpoints go once the input is found to be sound.
        print_freq: Iterations between two records of the losses.
        ckpt_freq: Epochs between two checkpoints; the last epoch always gives one.
        eval_freq: Epochs between two evaluations on the test split; for curves, nothing is chosen by them. 0 is never.

    Raises:
        InputError: Anything wrong with configuration, data or checkpoint; a loss or a weight that isn't finite.
    """
    seed_everything(config.init_rand_seed)
    dataset = ThumosDataset(
        config.dataset, config.train_split, training=True, seed=config.init_rand_seed, anonymizer=anonymizer
    )
    batches = Batches(dataset, config.loader.batch_size, config.loader.num_workers)
    training = Training(config, TriDet(config).to(device), len(batches))
    _describe(training, dataset)
    monitor = None
    if eval_freq:
        shown = ThumosDataset(
            config.dataset, config.val_split[:1], training=False, anonymizer=anonymizer, annotations=dataset.annotations
        )
        monitor = Batches(shown), ground_truth(dataset.annotations, config.val_split[0])
    params = {**to_dict(config), **(described or {})}
    if resume is None and not restart:
        resume = checkpoints.newest(folder)
    first_epoch = 0
    if resume is not None:
        _refuse_other(folder, params)
        first_epoch = checkpoints.resume(resume, training) + 1
        logger.info("%s: going on at epoch %d", resume, first_epoch)
    if restart:
        checkpoints.remove_all(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "params.json", params)
    write_json(folder / "versions.json", checkpoints.versions())
    with checkpoints.written(folder / "config.txt") as file:
        file.write((pprint.pformat(to_dict(config)) + "\n").encode())

    last = config.opt.num_epochs - 1
    checkpoint = resume
    with closing(Log(folder, first_epoch * len(batches))) as log:
        for epoch in range(first_epoch, last + 1):
            seed_everything(config.init_rand_seed, epoch)
            _train_epoch(training, batches, epoch, log, print_freq)
            if monitor is not None and ((epoch + 1) % eval_freq == 0 or epoch == last):
                result = evaluate(training.average.network, *monitor, device=device)
                log.write((epoch + 1) * len(batches), {"test/average_map": result.average})
            if epoch == last or (ckpt_freq > 0 and epoch > 0 and epoch % ckpt_freq == 0):
                _refuse_non_finite(_extremes(training.network), epoch)
                checkpoint = checkpoints.save(folder / f"epoch_{epoch:03d}.pth.tar", training, epoch)
    if checkpoint is None:
        raise InputError("opt.epochs", "leaves nothing to train", "give at least 1")
    return checkpoint


def _train_epoch(training: Training, batches: Batches, epoch: int, log: Log, print_freq: int) -> None:
    training.network.train()
    sums: dict[str, Tensor] = {}
    count, started = 0, time.perf_counter()
    epochs = training.config.opt.num_epochs
    bar = tqdm(batches.epoch(epoch), total=len(batches), desc=f"epoch {epoch + 1}/{epochs}", leave=False)
    for number, videos in enumerate(bar, start=1):
        for name, value in training.step(videos).items():
            sums[name] = sums.get(name, 0) + value
        count += 1
        if count == print_freq or number == len(batches):
            means = {name: float(value) / count for name, value in sums.items()}
            _refuse_non_finite(means, epoch)
            seconds, started = time.perf_counter() - started, time.perf_counter()
            log.write(
                epoch * len(batches) + number,
                {f"loss/{name.removesuffix('_loss')}": value for name, value in means.items()}
                | {"learning_rate": training.schedule.current, "seconds_per_step": seconds / count},
            )
            bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
            sums, count = {}, 0


class Log:
    """metrics.jsonl and TensorBoard; `step` counts iterations. Records past `step` are dropped: they come again."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to load, and only training needs it

        self._path = folder / "metrics.jsonl"
        if self._path.is_file():
            records = [_record(line) for line in self._path.read_text().splitlines()]
            kept = [json.dumps(record) + "\n" for record in records if record and record["step"] <= step]
            with checkpoints.written(self._path) as file:
                file.write("".join(kept).encode())
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _record(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None for one that a kill cut off."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _describe(training: Training, dataset: ThumosDataset) -> None:
    """Say at the start what would otherwise be found out late: sizes, dead kernels, levels without targets."""
    count = sum(parameter.numel() for parameter in training.network.parameters())
    logger.info(
        "%d videos, %d steps an epoch, %d epochs, %.1f M parameters",
        len(dataset),
        training.iters_per_epoch,
        training.config.opt.num_epochs,
        count / 1e6,
    )
    if dead := dead_parameters(training.network):
        logger.info("%d parameters of the SGP layers can't learn (model.init_conv_vars = 0, as published)", dead)
    logger.info("%s", assignment_report(dataset, training.config))


def _extremes(network: TriDet) -> dict[str, float]:
    """The largest absolute value of each weight: a step may spoil them after the last loss that was still finite."""
    return {name: float(value.detach().abs().max()) for name, value in network.named_parameters()}


def _refuse_non_finite(values: dict[str, float], epoch: int) -> None:
    for name, value in values.items():
        if not np.isfinite(value):
            raise InputError(
                name, f"is {value} in epoch {epoch + 1}", "lower opt.learning_rate and train anew with --restart"
            )


def _refuse_other(folder: Path, params: dict[str, Any]) -> None:
    recorded = folder / "params.json"
    if not recorded.is_file():
        return
    before = json.loads(recorded.read_text())
    for name in sorted(before.keys() | params.keys()):
        if name not in FREE_TO_CHANGE and before.get(name) != json.loads(json.dumps(params.get(name))):
            raise InputError(
                folder, f"was trained with another '{name}'", "choose another --output, or start anew with --restart"
            )


def seed_everything(*parts: int) -> None:
    """Seed Python's, NumPy's and torch's global generators from `parts`."""
    seed = int(np.random.SeedSequence([len(parts), *parts]).generate_state(1, np.uint64)[0]) & 0x7FFFFFFFFFFFFFFF
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def run_folder(config: Config, path: Path, name: str) -> Path:
    """`OUTPUT_FOLDER/CONFIG_NAME`; without a name, the time of day as the public release has it.

    Raises:
        InputError: The configuration has no `output_folder`.
    """
    if config.output_folder is None:
        raise InputError(path, "has no output_folder", "add one, such as saved_models/tridet")
    return Path(config.output_folder) / f"{path.stem}_{name or time.strftime('%Y-%m-%d %H:%M:%S')}"


def _described(args: argparse.Namespace) -> dict[str, str]:
    """Which anonymizer is applied, if one is: its file, what it sees, and which bytes it had."""
    if args.aam is None:
        return {}
    digest = hashlib.sha256(args.aam.read_bytes()).hexdigest()
    return {"aam": str(args.aam), "aam_serving": args.aam_serving, "aam_sha256": digest}


def main(argv: Sequence[str] | None = None) -> int:
    made = cli.parser(__doc__)
    made.add_argument("-p", "--print-freq", type=int, default=10, help="iterations between records (default 10)")
    made.add_argument("-c", "--ckpt-freq", type=int, default=5, help="epochs between checkpoints (default 5)")
    made.add_argument("--output", default="", metavar="NAME", help="names the run folder (default: the time)")
    begin = made.add_mutually_exclusive_group()
    begin.add_argument("--resume", type=Path, metavar="PATH", help="checkpoint to go on from (default: the newest)")
    begin.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    made.add_argument(
        "--eval-freq", type=int, default=0, help="epochs between mAP curves on the test split (default: none)"
    )
    args = made.parse_args(argv)
    config, device, anonymizer = cli.start(args)
    folder = run_folder(config, args.config, args.output)
    last = train(
        config,
        folder,
        device=device,
        anonymizer=anonymizer,
        described=_described(args),
        resume=args.resume,
        restart=args.restart,
        print_freq=args.print_freq,
        ckpt_freq=args.ckpt_freq,
        eval_freq=args.eval_freq,
    )
    print(last)
    return 0


if __name__ == "__main__":
    cli.run(main)
