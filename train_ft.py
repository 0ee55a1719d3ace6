"""Train a fresh utility head on raw or anonymized features and report its accuracy on the test split, once.

The epoch is chosen on the validation split; the test split is read after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

import config
from feature_dl import open_dataset
from model_loaders import load_ft
from splavu import cli, loop, params, runs, runtime
from splavu.anonymize import load_anonymizer, weights_hash
from splavu.anonymizers import IdentityAnonymizer
from splavu.datasets import EvenClips, Stream
from splavu.errors import UserError
from splavu.probes import ProbeTrainer, Served, Serving
from splavu.tasks import ActionRecognition, Learner


@dataclass(frozen=True)
class HeadParams:
    """Parameters of utility-head training; see params/params_ft.py."""

    run_id: str
    dataset: str
    ft_arch: str
    seed: int = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: int | None = None
    num_classes: int | None = None
    anon: bool = True
    """Read anonymized features (of saved_fa_model) instead of raw ones."""
    saved_fa_model: str | None = None
    num_heads: int = 8
    """Of a published checkpoint, which doesn't record it."""
    serving: Serving = "alone"
    """How the anonymizer meets features: 'alone' as released, 'batch' as the published numbers were made."""
    saved_ft_model: str | None = None
    num_epochs: int = 250
    batch_size: int = 1024
    v_batch_size: int = 512
    val_split: str = "val"
    test_split: str = "test"
    val_freq: int = 2
    num_modes: int = 5
    num_workers: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if self.anon and self.saved_fa_model is None:
            raise UserError("saved_fa_model", "is None, but anon = True", "name the checkpoint, or set anon = False")


def build(p: HeadParams, device: torch.device) -> tuple[ProbeTrainer, ActionRecognition]:
    """The trainer, and the same task on the test split."""
    runtime.seed_everything(p.seed)
    head = load_ft(p, p.saved_ft_model).to(device)
    anonymizer = (
        load_anonymizer(p.saved_fa_model, num_heads=p.num_heads) if p.anon else IdentityAnonymizer(head.in_features)
    )
    if anonymizer.architecture["feature_dim"] != head.in_features:
        raise UserError(
            p.saved_fa_model,
            f"anonymizes features {anonymizer.architecture['feature_dim']} wide, {p.ft_arch} gives {head.in_features}",
            "name the encoder that the anonymizer was trained for",
        )
    optimizer = torch.optim.AdamW(head.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    learner = Learner("ft_ar", head, optimizer)
    clips = open_dataset(p.dataset, "train", encoder=p.ft_arch, data_root=p.data_root, seed=p.seed)
    source = Stream(clips, batch_size=p.batch_size, seed=p.seed, num_workers=p.num_workers)

    def task(split: str) -> ActionRecognition:
        videos = open_dataset(p.dataset, split, encoder=p.ft_arch, data_root=p.data_root, draw=EvenClips(p.num_modes))
        held_out = Stream(videos, batch_size=p.v_batch_size, shuffle=False)
        return ActionRecognition(learner, source, held_out, device, checkpoint_key="ft_model_state_dict")

    served = Served(anonymizer.to(device), p.serving)
    return ProbeTrainer(served, task(p.val_split)), task(p.test_split)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params="params/params_ft.py")
    parser.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, HeadParams, args.set)
    run = runs.RunFolder(config.RUNS, p.run_id)
    trainer, test = build(p, runtime.pick_device(args.device))
    inputs = {**test.source.dataset.provenance, "anonymizer": weights_hash(trainer.served.anonymizer)}
    best = loop.fit(trainer, run, p, inputs=inputs, restart=args.restart)
    tested = test.evaluate(trainer.served)
    run.write_json("results.json", {**best, "features": _features(p), "test": tested})
    print(f"{_features(p)}: test top-1 {100 * tested['top1']:.2f} % (epoch {best['epoch']}, chosen on {p.val_split})")
    return 0


def _features(p: HeadParams) -> str:
    return f"anonymized, served {'alone' if p.serving == 'alone' else 'in batches'}" if p.anon else "raw"


if __name__ == "__main__":
    cli.run(main)
