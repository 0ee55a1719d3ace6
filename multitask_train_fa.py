"""Train the anonymizer (AAM) with its tasks and the privacy term on precomputed features.

L = w_LC MSE(h, f_A(h)) + w_AR L_AR(f_A(h)) - w_B NT-Xent(f_A(static clip 1), f_A(static clip 2))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

import config
from feature_dl import open_dataset
from model_loaders import load_fa, load_ft
from splavu import cli, loop, params, runs, runtime
from splavu.datasets import EvenClips, Stream
from splavu.errors import UserError
from splavu.multitask import EpochLength, MultitaskTrainer
from splavu.tasks import ActionRecognition, Learner


@dataclass(frozen=True)
class AnonymizerParams:
    """Parameters of anonymizer training; see params/params_fa.py for a commented example."""

    run_id: str
    """Name of the run folder below config.RUNS."""
    ar_dataset: str
    """Data set of clips, labels and static clips; a row of feature_dl.CATALOGUE."""
    ft_arch: str
    """Frozen encoder whose features are read; a row of splavu.encoders.ENCODERS."""
    seed: int = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: int | None = None
    """Looked up from ft_arch; may be stated, must agree."""
    num_classes: int | None = None
    """Looked up from ar_dataset; may be stated, must agree."""

    fa_arch: Literal["transformer", "mlp"] = "transformer"
    num_layers_fa: int = 3
    num_heads: int = 8
    batch_as_sequence: bool = False
    """The reference's mode: a batch is one sequence. Its numbers don't hold for a feature served alone."""
    saved_fa_model: str | None = None
    """Checkpoint to start from; None starts at the identity."""
    saved_ft_model: str | None = None
    """Checkpoint of the head to start from."""

    num_epochs: int = 100
    batch_size_ar: int = 512
    v_batch_size: int = 512
    val_split: str = "val"
    val_freq: int = 2
    """Epochs between validations."""
    num_modes: int = 5
    """Evenly spaced clips a video in validation."""
    num_workers: int = 0
    epoch_length: EpochLength = "longest"
    precision: Literal["fp32", "bf16"] = "fp32"

    learning_rate_fa: float = 1e-4
    learning_rate_ft: float = 1e-4
    weight_decay: float = 0.01

    fa_loss_weight: float = 100.0
    """w_LC, latent consistency."""
    ft_ar_loss_weight: float = 1.0
    ft_tad_loss_weight: float = 0.0
    ft_ad_loss_weight: float = 0.0
    fb_loss_weight: float = 1.0
    """w_B, privacy budget; 0 opens no static-clip store."""
    fb_frame_pool: int = 10
    """Static clips a video in the store."""
    fb_frame_sample: int = 2
    """Of which so many are drawn; NT-Xent compares two."""
    temperature: float = 0.1

    def __post_init__(self) -> None:
        for name in (
            "fa_loss_weight",
            "ft_ar_loss_weight",
            "ft_tad_loss_weight",
            "ft_ad_loss_weight",
            "fb_loss_weight",
        ):
            if getattr(self, name) < 0:
                raise UserError(name, f"{getattr(self, name)} is negative", "weights are 0 or more")
        if self.ft_tad_loss_weight or self.ft_ad_loss_weight:
            raise UserError("ft_tad_loss_weight, ft_ad_loss_weight", "only action recognition can join yet", "set 0")
        if not (self.fa_loss_weight or self.ft_ar_loss_weight or self.fb_loss_weight):
            raise UserError("fa_loss_weight", "every loss weight is 0", "give at least one term a weight")
        if self.fb_frame_sample != 2:
            raise UserError("fb_frame_sample", f"{self.fb_frame_sample}, but NT-Xent compares two", "set 2")
        for name in ("num_epochs", "batch_size_ar", "v_batch_size", "val_freq", "num_modes"):
            if getattr(self, name) < 1:
                raise UserError(name, f"{getattr(self, name)} is less than 1", "give at least 1")


def build(p: AnonymizerParams, device: torch.device) -> MultitaskTrainer:
    """The experiment: networks, data, terms and their weights."""
    runtime.seed_everything(p.seed)
    static_frames = p.fb_frame_pool if p.fb_loss_weight else 0
    anonymizer = load_fa(p, p.saved_fa_model).to(device)
    source = Stream(
        open_dataset(
            p.ar_dataset,
            "train",
            encoder=p.ft_arch,
            data_root=p.data_root,
            with_labels=bool(p.ft_ar_loss_weight),
            static_frames=static_frames,
            seed=p.seed,
        ),
        batch_size=p.batch_size_ar,
        seed=p.seed,
        num_workers=p.num_workers,
    )
    validation = Stream(
        open_dataset(
            p.ar_dataset,
            p.val_split,
            encoder=p.ft_arch,
            data_root=p.data_root,
            with_labels=bool(p.ft_ar_loss_weight),
            draw=EvenClips(p.num_modes if p.ft_ar_loss_weight else 1),
            static_frames=0 if p.ft_ar_loss_weight else static_frames,
        ),
        batch_size=p.v_batch_size,
        shuffle=False,
    )
    tasks = []
    if p.ft_ar_loss_weight:
        head = load_ft(p, p.saved_ft_model).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=p.learning_rate_ft, weight_decay=p.weight_decay)
        task = ActionRecognition(Learner("ft_ar", head, optimizer), source, validation, device)
        tasks.append((task, p.ft_ar_loss_weight))
    optimizer = torch.optim.AdamW(anonymizer.parameters(), lr=p.learning_rate_fa, weight_decay=p.weight_decay)
    return MultitaskTrainer(
        Learner("fa", anonymizer, optimizer),
        tasks,
        source,
        validation=validation,
        consistency_weight=p.fa_loss_weight,
        privacy_weight=p.fb_loss_weight,
        temperature=p.temperature,
        epoch_length=p.epoch_length,
        device=device,
        precision=p.precision,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params="params/params_fa.py")
    parser.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, AnonymizerParams, args.set)
    if p.batch_as_sequence:
        print("batch_as_sequence: every feature is mixed with its batch, as in the reference. Not for release.")
    run = runs.RunFolder(config.RUNS, p.run_id)
    trainer = build(p, runtime.pick_device(args.device))
    best = loop.fit(trainer, run, p, inputs=trainer.clips.dataset.provenance, restart=args.restart)
    run.write_json("results.json", best)
    print(f"best epoch {best['epoch']} ({best['score']:.4f}): {best['checkpoint']}")
    return 0


if __name__ == "__main__":
    cli.run(main)
