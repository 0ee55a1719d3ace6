"""Pre-train the anonymizer to reproduce its input, the start that the paper gives it.

A transformer of ours starts at the exact identity and doesn't need this; an `mlp` without residual does, and so does
whoever wants the paper's own start (a network that was trained to be the identity, with live queries and keys).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F

from splavu.data.datasets import BatchLoader, EvenClips
from splavu.runtime import environment
from splavu.runtime.distributed import SINGLE, Processes
from splavu.training.engine import EngineParams
from splavu.training.learners import Learner, moving_average
from splavu.training.multitask import MultitaskTrainer
from splavu.training.optimizers import adamw
from study.datasets.loading import open_dataset
from study.models import load_fa

LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss}


@dataclass(frozen=True)
class PretrainParams(EngineParams):
    """Parameters of reconstruction pre-training; see params/params_pretrain.py."""

    run_id: str
    ar_dataset: str
    ft_arch: str
    seed: int = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: int | None = None
    fa_arch: Literal["transformer", "mlp"] = "transformer"
    num_layers_fa: int = 3
    num_heads: int = 8
    batch_as_sequence: bool = False
    num_epochs: int = 500
    batch_size: int = 512
    v_batch_size: int = 512
    val_split: str = "val"
    val_freq: int = 10
    num_workers: int = 0
    """Accepted for old files; features are gathered from memory, which takes no workers."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    loss: Literal["mse", "l1"] = "mse"
    """The paper names l1 (lr 2e-5, 100 epochs), the reference trains with mse (1e-4, 500 epochs)."""


def build(p: PretrainParams, processes: Processes = SINGLE) -> MultitaskTrainer:
    """Reconstruction is the multitask objective with the consistency term alone."""
    environment.seed_everything(p.seed)
    device = processes.device
    anonymizer = load_fa(p, identity=False).to(device)
    optimizer = adamw(anonymizer.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    clips, validation = (
        open_dataset(
            p.ar_dataset, split, encoder=p.ft_arch, data_root=p.data_root, with_labels=False, seed=p.seed, **draw
        )
        for split, draw in (("train", {}), (p.val_split, {"draw": EvenClips(1)}))
    )
    return MultitaskTrainer(
        Learner("fa", anonymizer, optimizer, clip_norm=p.clip_norm, average=moving_average(anonymizer, p.ema_decay)),
        [],
        BatchLoader(clips, batch_size=p.batch_size, seed=p.seed, device=device, share=processes.share),
        validation=BatchLoader(validation, batch_size=p.v_batch_size, shuffle=False, device=device),
        consistency_weight=1.0,
        privacy_weight=0.0,
        processes=processes,
        consistency=LOSSES[p.loss],
    )
