"""How TriDet joins co-training, and how an anonymizer joins TriDet.

Each video is one sequence to the anonymizer, in training, in validation and with `--aam`; what it gives therefore holds
for videos released whole. For features that are released one at a time, use `serving='alone'`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from splavu.anonymizers import Anonymizer
from splavu.errors import as_user_errors
from splavu.stores import FeatureFolder
from splavu.training.tasks import passes
from tridet.average_precision import Segments
from tridet.checkpoints import find, load_weights
from tridet.config import load
from tridet.detector import TriDet
from tridet.errors import InputError
from tridet.eval import evaluate
from tridet.learner import DetectorLearner, detector_learner
from tridet.thumos14 import Batches, ThumosDataset, ground_truth


def load_detector(
    config_file: str | Path, checkpoint: str | Path | None = None, *, prefer: Literal["ema", "trained"] = "ema"
) -> TriDet:
    """The network of a configuration file, with a checkpoint's weights if given.

    Raises:
        UserError: A fault in the file, or a checkpoint of another configuration.
    """
    with as_user_errors(InputError):
        network = TriDet(load(config_file))
        if checkpoint is not None:
            load_weights(network, find(checkpoint), prefer=prefer)
        return network


class VideoBatch(list):
    """Videos as TriDet takes them, and their move to a device."""

    def to(self, device: torch.device) -> VideoBatch:
        return VideoBatch({**video, "feats": video["feats"].to(device, non_blocking=True)} for video in self)


@dataclass(frozen=True)
class Videos:
    """Batches of training videos without end; a `splavu.training.tasks.BatchSource`."""

    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the feature folder says of its making."""
        return dict(FeatureFolder(self.batches.dataset.config.feat_folder).attributes)

    def steps(self, first: int, count: int) -> Iterator[VideoBatch]:
        """Batches number `first` to `first + count - 1` of pass after pass, each in another order and other windows."""
        with as_user_errors(InputError):
            for number, start, taken in passes(first, count, len(self)):
                yield from map(VideoBatch, self.batches.epoch(number, first=start, count=taken))


@dataclass
class TemporalActionDetection:
    """TriDet on anonymized videos; a `splavu.training.tasks.Task`.

    Validation gives the average mAP of the averaged weights.
    """

    learner: DetectorLearner
    source: Videos
    validation: Batches
    truth: Segments
    device: torch.device
    name: str = "tad"
    checkpoint_key: str = "ft_model_tad_state_dict"
    score: str = field(default="average_map", init=False)
    splits_batches: bool = field(default=False, init=False)
    """A batch is two videos, whose loss is divided by what both hold: each process takes all of it."""

    def loss(self, anonymizer: nn.Module, batch: VideoBatch) -> Tensor:
        videos = [{**video, "feats": _anonymized(anonymizer, video["feats"])} for video in batch]
        with as_user_errors(InputError):
            return self.learner.network(videos)["final_loss"]

    @torch.no_grad()
    def evaluate(self, anonymizer: Anonymizer) -> dict[str, float]:
        anonymizer.eval()
        with as_user_errors(InputError):
            result = evaluate(
                self.learner.evaluated,
                self.validation,
                self.truth,
                device=self.device,
                transform=lambda feats: _anonymized(anonymizer, feats),
            )
        at = {f"map@{tiou:.1f}": float(value) for tiou, value in zip(result.tious, result.per_tiou, strict=True)}
        return {"average_map": float(result.average), **at}


def _anonymized(anonymizer: nn.Module, feats: Tensor) -> Tensor:  # [D, T] -> [D, T]
    return anonymizer(feats.T[None])[0].T


def temporal_action_detection(
    config_file: str | Path,
    *,
    json_file: Path,
    feat_folder: Path,
    feature_dim: int,
    seed: int,
    device: torch.device,
    saved_model: str | Path | None = None,
) -> TemporalActionDetection:
    """The task that a TriDet configuration describes, on a study's data.

    Args:
        config_file: Network, losses, optimizer; gradients are clipped to its norm.
        json_file: Annotations, in place of the configuration's.
        feat_folder: Features, in place of the configuration's.
        feature_dim: D of the study's encoder; the configuration must agree.
        seed: Of windows and batches.
        saved_model: A TriDet checkpoint to start from, or a run folder, whose last epoch is taken; the paper starts
            from the raw-feature baseline.

    Raises:
        UserError: Anything wrong with the configuration, the data or the checkpoint.
    """
    with as_user_errors(InputError):
        paths = {"json_file": str(json_file), "feat_folder": str(feat_folder)}
        config = load(config_file, {"dataset": paths})
        if config.dataset.input_dim != feature_dim:
            raise InputError(
                config_file,
                f"dataset.input_dim is {config.dataset.input_dim}, ft_arch gives {feature_dim}",
                "correct it",
            )
        training = ThumosDataset(config.dataset, config.train_split, training=True, seed=seed)
        validation = ThumosDataset(
            config.dataset, config.val_split[:1], training=False, annotations=training.annotations
        )
        network = TriDet(config)
        if saved_model is not None:
            load_weights(network, find(saved_model))
        network.to(device)
        return TemporalActionDetection(
            detector_learner(network, name="ft_tad"),
            Videos(Batches(training, config.loader.batch_size, config.loader.num_workers)),
            Batches(validation),
            ground_truth(training.annotations, config.val_split[0]),
            device,
        )
