"""How TriDet joins co-training, and how an anonymizer joins TriDet: the one module here that imports `splavu`.

Each video is one sequence to the anonymizer, in training, in validation and with `--aam`; what it gives therefore holds
for videos released whole. For features that are served alone, `serving='alone'` says so and is measured as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from splavu.anonymize import load_anonymizer
from splavu.anonymizers import Anonymizer, one_by_one
from splavu.errors import UserError, as_user_errors
from splavu.stores import FeatureFolder
from splavu.tasks import Learner
from tridet.average_precision import Segments
from tridet.checkpoints import find, load_weights
from tridet.config import load
from tridet.detector import TriDet
from tridet.errors import InputError
from tridet.eval import evaluate
from tridet.optim import LearningRate, MovingAverage, build_optimizer
from tridet.thumos14 import Batches, ThumosDataset, ground_truth


def anonymizing(
    checkpoint: str | Path,
    *,
    feature_dim: int,
    serving: Literal["video", "alone"] = "video",
    device: torch.device | str = "cpu",
) -> Callable[[Tensor], Tensor]:
    """A trained anonymizer as a function of one video's features, `[T, D] -> [T, D]`, for `ThumosDataset`.

    Args:
        checkpoint: With `fa_model_state_dict`.
        feature_dim: D of the features it will see.
        serving: 'video': the steps of a video see one another; 'alone': each feature as if it came alone.

    Raises:
        InputError: No such checkpoint, or one of another width.
    """
    try:
        anonymizer = load_anonymizer(checkpoint).to(device).eval()
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error
    if (width := anonymizer.architecture["feature_dim"]) != feature_dim:
        raise InputError(checkpoint, f"anonymizes features {width} wide, these are {feature_dim}", "use its encoder's")

    @torch.no_grad()
    def anonymize(features: Tensor) -> Tensor:  # [T, D] -> [T, D]
        moved = features.to(device)
        return one_by_one(anonymizer, moved) if serving == "alone" else anonymizer(moved[None])[0]

    return anonymize


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
    """Batches of training videos without end; a `splavu.tasks.BatchSource`."""

    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the feature folder says of its making."""
        return dict(FeatureFolder(self.batches.dataset.config.feat_folder).attributes)

    def epoch(self, epoch: int, *, num_steps: int | None = None) -> Iterator[VideoBatch]:
        """`num_steps` batches (one pass if None); a data set too short for them starts over in a new order."""
        with as_user_errors(InputError):
            yield from map(VideoBatch, self.batches.epoch(epoch, num_steps=num_steps))


class DetectorLearner(Learner):
    """A learner with TriDet's schedule and its running loss normaliser, which the published weights don't hold."""

    def plan(self, *, num_epochs: int, steps_per_epoch: int) -> None:
        """TriDet's schedule, stretched over a whole co-training; the warm-up keeps its share of it."""
        opt = self.network.config.opt
        warmup = opt.warmup_epochs if opt.warmup else 0
        warmup = round(num_epochs * warmup / (warmup + opt.epochs))
        epochs = max(num_epochs - warmup, 1)
        steps = tuple(round(step * epochs / opt.epochs) for step in opt.schedule_steps)
        stretched = replace(opt, warmup_epochs=warmup, epochs=epochs, schedule_steps=steps)
        self.schedule = LearningRate(self.optimizer, stretched, iters_per_epoch=steps_per_epoch)

    def state(self) -> dict[str, Any]:
        return super().state() | {f"loss_normaliser_{self.name}": self.network.loss_normaliser}

    def load_state(self, state: dict[str, Any]) -> None:
        try:
            super().load_state(state)
        except InputError as error:
            problem = f"the detector's learning rate was planned for another length ({error.problem})"
            raise UserError("num_epochs", problem, "keep it and the videos, or start anew with --restart") from error
        self.network.loss_normaliser = state[f"loss_normaliser_{self.name}"]


@dataclass
class TemporalActionDetection:
    """TriDet on anonymized videos; a `splavu.tasks.Task`. Validation gives the average mAP of the averaged weights."""

    learner: DetectorLearner
    source: Videos
    validation: Batches
    truth: Segments
    device: torch.device
    name: str = "tad"
    checkpoint_key: str = "ft_model_tad_state_dict"
    score: str = field(default="average_map", init=False)

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
        norm = config.train_cfg.clip_grad_l2norm
        learner = DetectorLearner(
            "ft_tad",
            network,
            build_optimizer(network, config.opt),
            clip_norm=norm if norm > 0 else None,
            average=MovingAverage(network, decay=config.opt.ema_decay),
            schedule_every="step",
        )
        return TemporalActionDetection(
            learner,
            Videos(Batches(training, config.loader.batch_size, config.loader.num_workers)),
            Batches(validation),
            ground_truth(training.annotations, config.val_split[0]),
            device,
        )
