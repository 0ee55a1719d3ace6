"""Train TriDet on precomputed features; killed, it goes on when the same command is started again.

  python tridet/train.py tridet/thumos_videoMAE.yaml --output raw
  python tridet/train.py tridet/thumos_videoMAE.yaml --output anonymized --aam saved_models/RUN/model_temp.pth

Writes OUTPUT_FOLDER/CONFIG_NAME/: epoch_NNN.pth.tar (weights, their moving average, optimizer, schedule), config.txt,
params.json, versions.json, metrics.jsonl, TensorBoard files, and model_temp.pth, which a killed run goes on from.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import hashlib
import logging
import pprint
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splavu.errors import as_user_errors
from splavu.runtime.checkpoints import RESUMABLE
from splavu.runtime.cli import run as run_script
from splavu.runtime.distributed import Processes, refuse_several_processes
from splavu.runtime.environment import seed_everything
from splavu.runtime.files import write_text
from splavu.runtime.params import as_dict
from splavu.runtime.run_folder import RunFolder
from splavu.runtime.schema import NonNegativeInt, folder_name
from splavu.training import loop
from splavu.training.engine import EngineParams
from tridet import checkpoints, cli
from tridet.assignment import assignment_report
from tridet.detector import TriDet
from tridet.errors import InputError, first_few
from tridet.eval import evaluate
from tridet.layers import dead_parameters
from tridet.learner import detector_learner
from tridet.schema import Config, to_dict
from tridet.thumos14 import Batches, Item, ThumosDataset, ground_truth

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = loop.FREE_TO_CHANGE | {"config.output_folder", "config.devices", "config.loader.num_workers"}
"""Parameters that may differ between a run and its continuation."""


@dataclass(frozen=True, kw_only=True)
class DetectorParams(EngineParams):
    """What a run is, as the loop records it."""

    num_epochs: int
    seed: int
    config: dict[str, Any]
    """The merged configuration, but its section `engine`, which lies beside it here."""
    aam: str | None = None
    """The anonymizer that the features pass."""
    aam_serving: str | None = None
    """What it sees: a video, or each feature alone."""
    aam_sha256: str | None = None


class DetectorTrainer(loop.Trainer):
    """TriDet on one data set, as its configuration says; trains a fixed number of epochs, as published.

    Args:
        config: Network, losses, optimizer, data.
        folder: Where `end_epoch` writes epoch_NNN.pth.tar.
        device: Of the network.
        anonymizer: `[T, D] -> [T, D]`, applied to the features as they are read.
        ckpt_freq: Epochs between two such checkpoints; the last epoch always gives one.
        eval_freq: Epochs between two evaluations on the test split; for curves, nothing is chosen by them. 0 is never.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        device: torch.device,
        anonymizer: Callable[[Tensor], Tensor] | None = None,
        ckpt_freq: int = 5,
        eval_freq: int = 0,
    ) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.ckpt_freq, self.eval_freq = ckpt_freq, eval_freq
        data = config.dataset
        self.dataset = ThumosDataset(
            data, config.train_split, training=True, seed=config.init_rand_seed, anonymizer=anonymizer
        )
        self.source = Batches(self.dataset, config.loader.batch_size, config.loader.num_workers)
        self.learner = detector_learner(TriDet(config).to(device), name="tridet")
        self.learner.schedule_as_configured(updates_per_epoch=-(-len(self.source) // config.engine.accumulate))
        self.learners = [self.learner]
        if eval_freq:
            annotations = self.dataset.annotations
            shown = ThumosDataset(
                data, config.val_split[:1], training=False, anonymizer=anonymizer, annotations=annotations
            )
            self._monitor = Batches(shown), ground_truth(annotations, config.val_split[0])

    def batches(self, epoch: int) -> Epoch:
        return Epoch(self.source, epoch)

    def objective(self, batch: Sequence[Item]) -> tuple[Tensor, dict[str, Tensor]]:
        losses = self.learner.network(batch)
        return losses["final_loss"], {"cls": losses["cls_loss"], "reg": losses["reg_loss"]}

    def end_epoch(self, epoch: int, *, is_last: bool) -> dict[str, float]:
        if is_last or (self.ckpt_freq > 0 and epoch > 0 and epoch % self.ckpt_freq == 0):
            checkpoints.save(self.folder / f"epoch_{epoch:03d}.pth.tar", self.learner, epoch)
        metrics = {"learning_rate": self.learner.schedule.current}
        if self.eval_freq and (is_last or (epoch + 1) % self.eval_freq == 0):
            result = evaluate(self.learner.evaluated, *self._monitor, device=self.device)
            metrics["test/average_map"] = float(result.average)
        return metrics

    def weights(self) -> dict[str, Any]:
        return checkpoints.weights(self.learner) | {"config": to_dict(self.config)}

    def load_weights(self, content: Mapping[str, Any]) -> None:
        checkpoints.load_weights(self.learner.network, content, prefer="trained")
        checkpoints.load_weights(self.learner.evaluated, content, prefer="ema")

    def describe(self) -> None:
        """Say at the start what would otherwise be found out late: sizes, dead kernels, levels without targets."""
        network, config = self.learner.network, self.config
        logger.info(
            "%d videos, %d steps an epoch, %d epochs, %.1f M parameters",
            len(self.dataset),
            len(self.source),
            config.opt.num_epochs,
            sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        )
        if dead := dead_parameters(network):
            logger.info("%d parameters of the SGP layers can't learn (model.init_conv_vars = 0, as published)", dead)
        logger.info("%s", assignment_report(self.dataset, config))
        annotations = self.dataset.annotations
        learnt = {label for video in self.dataset.videos for label in video.labels.tolist()}
        if unseen := [name for name, label in annotations.classes.items() if label not in learnt]:
            logger.warning(
                "%s: %d of %d classes have no segment in a training video and can't be detected (%s)",
                annotations.source,
                len(unseen),
                len(annotations.classes),
                first_few(unseen),
            )


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch, with their number."""

    source: Batches
    number: int

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[list[Item]]:
        return self.source.epoch(self.number)


@as_user_errors(InputError)
def train(
    config: Config,
    folder: Path,
    *,
    device: torch.device,
    anonymizer: Callable[[Tensor], Tensor] | None = None,
    described: Mapping[str, str] | None = None,
    resume: Path | None = None,
    restart: bool = False,
    ckpt_freq: int = 5,
    eval_freq: int = 0,
) -> Path:
    """Train as `config` says and return the last checkpoint.

    Args:
        folder: The run folder.
        described: Of the anonymizer, as `DetectorParams` has it: aam, aam_serving, aam_sha256.
        resume: An epoch_NNN.pth.tar to go on from, ours or the public release's; None goes on where the folder's
            training was.
        restart: Start again although there is one; the folder's checkpoints go once the input is found to be sound.
        anonymizer, ckpt_freq, eval_freq: As for `DetectorTrainer`.

    Raises:
        UserError: Anything wrong with configuration, data or checkpoint; a loss or a weight that isn't finite.
    """
    seed_everything(config.init_rand_seed)
    trainer = DetectorTrainer(
        config, folder, device=device, anonymizer=anonymizer, ckpt_freq=ckpt_freq, eval_freq=eval_freq
    )
    trainer.describe()
    run, params = RunFolder(folder.parent, folder.name), _params(config, described or {})
    with run.held():
        return _train(trainer, run, params, resume=resume, restart=restart)


def _train(
    trainer: DetectorTrainer, run: RunFolder, params: DetectorParams, *, resume: Path | None, restart: bool
) -> Path:
    """As `train`, in a run folder that no other process writes to."""
    folder, config, device = run.path, trainer.config, trainer.device
    resumable, done = folder / RESUMABLE, None
    if resume is None and not restart and not resumable.is_file():
        resume = checkpoints.newest(folder)
    if resume is not None or (resumable.is_file() and not restart):
        now, before = as_dict(params), run.read_json("params.json") or {}
        before = {name: before.get(name, value) for name, value in now.items()}  # older runs recorded less
        loop.refuse_other(folder, before, now, FREE_TO_CHANGE)
    if resume is not None:
        done = checkpoints.resume(resume, trainer.learner) + 1
        logger.info("%s: going on at epoch %d", resume, done)
        if done >= params.num_epochs:
            return resume
    if restart:
        checkpoints.remove_all(folder)
        resumable.unlink(missing_ok=True)
    write_text(folder / "config.txt", pprint.pformat(to_dict(config)) + "\n")
    loop.fit(trainer, run, params, done=done, processes=Processes(device), free_to_change=FREE_TO_CHANGE)
    return checkpoints.find(folder)


def _params(config: Config, described: Mapping[str, str]) -> DetectorParams:
    merged = to_dict(config)
    del merged["engine"]
    return DetectorParams(
        **asdict(config.engine),
        clip_norm=norm if (norm := config.train_cfg.clip_grad_l2norm) > 0 else None,
        ema_decay=config.opt.ema_decay,
        num_epochs=config.opt.num_epochs,
        seed=config.init_rand_seed,
        config=merged,
        **described,
    )


def run_folder(config: Config, path: Path, name: str) -> Path:
    """`OUTPUT_FOLDER/CONFIG_NAME`; without a name, the time of day as the public release has it.

    Raises:
        InputError: The configuration has no `output_folder`, or the name leads elsewhere.
    """
    if config.output_folder is None:
        raise InputError(path, "has no output_folder", "add one, such as saved_models/tridet")
    name = f"{path.stem}_{name or time.strftime('%Y-%m-%d %H:%M:%S')}"
    if not folder_name(name) or "/" in name:
        raise InputError("--output", f"'{name}' is not the name of a folder", "use letters, digits, '_' and '-'")
    return Path(config.output_folder) / name


def _described(args: argparse.Namespace) -> dict[str, str]:
    """Which anonymizer is applied, if one is: its file, what it sees, and which bytes it had."""
    if args.aam is None:
        return {}
    digest = hashlib.sha256(args.aam.read_bytes()).hexdigest()
    return {"aam": str(args.aam), "aam_serving": args.aam_serving, "aam_sha256": digest}


@as_user_errors(InputError)
def main(argv: Sequence[str] | None = None) -> int:
    made = cli.parser(__doc__)
    made.add_argument("-p", "--print-freq", type=int, default=10, help="accepted; losses are recorded once an epoch")
    made.add_argument(
        "-c", "--ckpt-freq", type=NonNegativeInt, default=5, help="epochs between checkpoints (default 5)"
    )
    made.add_argument("--output", default="", metavar="NAME", help="names the run folder (default: the time)")
    begin = made.add_mutually_exclusive_group()
    begin.add_argument(
        "--resume", type=Path, metavar="PATH", help="epoch_NNN.pth.tar to go on from (default: where this run was)"
    )
    begin.add_argument("--restart", action="store_true", help="start again although the run folder has a checkpoint")
    made.add_argument(
        "--eval-freq",
        type=NonNegativeInt,
        default=0,
        help="epochs between mAP curves on the test split (default: none)",
    )
    args = made.parse_args(argv)
    refuse_several_processes("tridet/train.py")
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
        ckpt_freq=args.ckpt_freq,
        eval_freq=args.eval_freq,
    )
    print(last)
    return 0


if __name__ == "__main__":
    run_script(main)
