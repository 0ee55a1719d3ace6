"""Parameters of pretrain_fa.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from splavu.runtime.schema import Count, Few, FewOrNone, NonNegative, RunName, Seed
from splavu.training.engine import EngineParams


@dataclass(frozen=True)
class PretrainParams(EngineParams):
    """Parameters of reconstruction pre-training; see params/params_pretrain.py."""

    run_id: RunName
    ar_dataset: str
    ft_arch: str
    seed: Seed = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: Count | None = None
    fa_arch: Literal["transformer", "mlp"] = "transformer"
    num_layers_fa: Few = 3
    num_heads: Few = 8
    batch_as_sequence: bool = False
    num_epochs: Count = 500
    batch_size: Count = 512
    v_batch_size: Count = 512
    val_split: str = "val"
    val_freq: Count = 10
    num_workers: FewOrNone = 0
    """Accepted for old files; features are gathered from memory, which takes no workers."""
    learning_rate: NonNegative = 1e-4
    weight_decay: NonNegative = 0.01
    loss: Literal["mse", "l1"] = "mse"
    """The paper names l1 (lr 2e-5, 100 epochs), the reference trains with mse (1e-4, 500 epochs)."""
