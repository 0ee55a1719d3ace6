"""Pre-train the anonymizer to reproduce its input, as the paper does before anonymizer training.

This repository's transformer starts at the exact identity and doesn't need it. An `mlp` without residual does, and so
does a reproduction of the paper's start: a network trained to be the identity, with live queries and keys.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F

import config
from splavu.data.datasets import BatchLoader, EvenClips, FeatureDataset
from splavu.runtime import cli, environment, params, run_folder
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes, connect
from splavu.training import loop
from splavu.training.learners import Learner, adamw, moving_average
from splavu.training.multitask import MultitaskTrainer
from splavu.training.objectives import Term, latent_consistency
from study.datasets.loading import open_dataset
from study.models import load_fa
from study.training.pretraining import PretrainParams

LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss}


def build(p: PretrainParams, processes: Processes = NOT_DISTRIBUTED) -> MultitaskTrainer:
    """The experiment: an anonymizer with new weights, and latent consistency as its only term."""
    environment.seed_everything(p.seed)
    device = processes.device

    def clips(split: str, **draw: Any) -> FeatureDataset:
        where = {"encoder": p.ft_arch, "data_root": p.data_root}
        return open_dataset(p.ar_dataset, split, with_labels=False, seed=p.seed, **where, **draw)

    anonymizer = load_fa(p, identity=False).to(device)
    optimizer = adamw(anonymizer.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    average = moving_average(anonymizer, p.ema_decay)
    return MultitaskTrainer(
        Learner("fa", anonymizer, optimizer, clip_norm=p.clip_norm, average=average),
        [Term("latent", 1.0, partial(latent_consistency, distance=LOSSES[p.loss]))],
        BatchLoader(clips("train"), batch_size=p.batch_size, seed=p.seed, device=device, share=processes.share),
        validation=BatchLoader(
            clips(p.val_split, draw=EvenClips(1)), batch_size=p.v_batch_size, shuffle=False, device=device
        ),
        processes=processes,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=config.HERE / "params/params_pretrain.py")
    parser.add_argument("--restart", action="store_true", help="train from scratch although there is a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, PretrainParams, args.set)
    run = run_folder.RunFolder(config.RUNS, p.run_id)
    processes = connect(args.device)
    trainer = build(p, processes)
    best = loop.fit(trainer, run, p, inputs=trainer.provenance, restart=args.restart, processes=processes)
    if processes.is_first:
        run.write_json("results.json", best)
        print(f"best epoch {best['epoch']}, reconstruction error {-best['score']:.3g}: {best['checkpoint']}")
    return 0


if __name__ == "__main__":
    cli.run(main)
