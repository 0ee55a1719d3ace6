"""Train a new head on raw or anonymized features and report its metric on the test split, once.

The metric is top-1 accuracy, or cMAP where labels are attributes (VISPR, VP). The epoch is chosen on the validation
split, and the test split is read after that; val_split = None trains a fixed number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from splavu.anonymizers import Anonymizer, IdentityAnonymizer
from splavu.anonymizers.apply import FrozenAnonymizer, Serving
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.data.datasets import BatchLoader, EvenClips, FeatureDataset
from splavu.errors import UserError
from splavu.runtime import environment, run_folder
from splavu.runtime.distributed import Processes
from splavu.runtime.schema import Clips, Count, Few, FewOrNone, NonNegative, RunName, Seed
from splavu.training import loop
from splavu.training.engine import EngineParams
from splavu.training.learners import Learner, adamw, moving_average
from splavu.training.probes import ProbeTrainer
from splavu.training.tasks import ActionRecognition, AttributeRecognition
from study import config
from study.datasets.loading import dataset_spec, open_dataset
from study.models import feature_dim, load_fb, load_ft, num_classes


@dataclass(frozen=True)
class HeadParams(EngineParams):
    """Parameters of utility-head training; see params/params_ft.py."""

    run_id: RunName
    dataset: str
    ft_arch: str
    seed: Seed = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: Count | None = None
    num_classes: Count | None = None
    anon: bool = True
    """Read anonymized features (of saved_fa_model) instead of raw ones."""
    saved_fa_model: str | None = None
    num_heads: Few = 8
    """Of the authors' checkpoints, which don't record it."""
    serving: Serving = "alone"
    """How features reach the anonymizer: 'alone' one at a time, as released; 'batch' as for the paper's numbers."""
    head: Literal["linear", "mlp"] = "linear"
    """'linear', as the paper's utility head; 'mlp' is its privacy head Linear-ReLU-Linear, its outputs unbounded."""
    saved_ft_model: str | None = None
    num_epochs: Count = 250
    batch_size: Count = 1024
    v_batch_size: Count = 512
    val_split: str | None = "val"
    """Chooses the epoch; None takes the last one, for data sets without a validation split."""
    test_split: str = "test"
    val_freq: Count = 2
    num_modes: Clips = 5
    num_workers: FewOrNone = 0
    """Accepted for old files; features are gathered from memory, which takes no workers."""
    learning_rate: NonNegative = 1e-3
    weight_decay: NonNegative = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anon and self.saved_fa_model is None:
            raise UserError("saved_fa_model", "is None, but anon = True", "name the checkpoint, or set anon = False")


HeadTask = ActionRecognition | AttributeRecognition


def build(p: HeadParams, device: torch.device) -> tuple[ProbeTrainer, HeadTask]:
    """The experiment: fixed features, a new head, its loss on the training split; and the same task on the test split.

    Raises:
        UserError: A data set, split or checkpoint is missing, or doesn't fit the others.
    """
    environment.seed_everything(p.seed)
    spec = dataset_spec(p.dataset, data_root=p.data_root)
    if p.val_split is not None:
        spec.check_split(p.val_split, name="val_split", remedy="val_split = None takes the last epoch")
    learner = _head(p, device)
    features = FrozenAnonymizer(_anonymizer(p).to(device), p.serving)  # h -> f_A(h), or h itself

    def clips(split: str, **draw: Any) -> FeatureDataset:
        return open_dataset(p.dataset, split, encoder=p.ft_arch, data_root=p.data_root, **draw)

    kind = AttributeRecognition if spec.multi_label else ActionRecognition
    checkpoint_key = "ft_model_state_dict" if p.head == "linear" else "fb_model_state_dict"
    source = BatchLoader(clips("train", seed=p.seed), batch_size=p.batch_size, seed=p.seed, device=device)

    def task(split: str) -> HeadTask:
        videos = clips(split, draw=EvenClips(p.num_modes))
        held_out = BatchLoader(videos, batch_size=p.v_batch_size, shuffle=False, device=device)
        return kind(learner, source, held_out, device, checkpoint_key=checkpoint_key)

    test = task(p.test_split)
    if p.val_split is None:
        return ProbeTrainer(features, test, chooses=False), test
    return ProbeTrainer(features, task(p.val_split)), test


def _head(p: HeadParams, device: torch.device) -> Learner:
    """The utility head or the privacy head, with its optimizer."""
    if p.head == "linear":
        name, head = "ft_ar", load_ft(p, p.saved_ft_model)
    else:
        classes = num_classes(p, p.dataset)
        name, head = "fb", load_fb(p.saved_ft_model, "mlp", feature_dim(p), classes, normalise=False)
    head = head.to(device)
    optimizer = adamw(head.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    return Learner(name, head, optimizer, clip_norm=p.clip_norm, average=moving_average(head, p.ema_decay))


def _anonymizer(p: HeadParams) -> Anonymizer:
    """The one of the checkpoint; the identity for raw features."""
    width = feature_dim(p)
    if not p.anon:
        return IdentityAnonymizer(width)
    anonymizer = load_anonymizer(p.saved_fa_model, num_heads=p.num_heads)
    if anonymizer.architecture["feature_dim"] != width:
        raise UserError(
            p.saved_fa_model,
            f"anonymizes features {anonymizer.architecture['feature_dim']} wide, {p.ft_arch} gives {width}",
            "name the encoder that the anonymizer was trained for",
        )
    return anonymizer


def train(
    p: HeadParams, *, device: torch.device, restart: bool = False
) -> tuple[dict[str, Any], ProbeTrainer, HeadTask]:
    """Train (or resume) the head in its run folder and test it; the result, which is written there too."""
    run = run_folder.RunFolder(config.RUNS, p.run_id)
    trainer, test = build(p, device)
    inputs = {**test.source.dataset.provenance, "anonymizer": weights_hash(trainer.served.anonymizer)}
    best = loop.fit(trainer, run, p, inputs=inputs, restart=restart, processes=Processes(device))
    result = {**best, "features": described(p), "test": test.evaluate(trainer.served)}
    run.write_json("results.json", result)
    return result, trainer, test


METRIC_NAMES = {"top1": "top-1", "cmap": "cMAP"}


def summary(p: HeadParams, result: Mapping[str, Any]) -> str:
    """The result on one line."""
    metric = next(name for name in METRIC_NAMES if name in result["test"])
    value = f"test {METRIC_NAMES[metric]} {100 * result['test'][metric]:.2f} %"
    how = "fixed" if p.val_split is None else f"chosen on {p.val_split}"
    return f"{described(p)}: {value} (epoch {result['epoch']}, {how})"


def described(p: HeadParams) -> str:
    """Which features a head read, in words."""
    return f"anonymized, served {'alone' if p.serving == 'alone' else 'in batches'}" if p.anon else "raw"
