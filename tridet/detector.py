"""The detector: features of videos to losses while training, to scored segments while evaluating.

A video is a dictionary: `video_id`, `feats` [D, T], `segments` [N, 2] on the feature grid and `labels` [N] (both may be
None: nothing happens in it), `fps`, `duration` in seconds, `feat_stride` and `feat_num_frames` in frames. Gradients
reach `feats` that ask for them: the adapter that makes the features can be trained through the detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import is_autocast_available

from tridet.errors import InputError
from tridet.heads import ClassHead, OffsetHead
from tridet.losses import batch_losses
from tridet.nms import suppress
from tridet.predictions import Detections, Level, candidates
from tridet.pyramid import Backbone, build_neck
from tridet.schema import Config
from tridet.targets import Targets, assign, pyramid_points

Video = Mapping[str, Any]
MOMENTUM = 0.9  # of the loss normaliser


class TriDet(nn.Module):
    """The network with its losses and its reading of detections.

    Attributes:
        loss_normaliser: Running number of positive points a batch, by which losses are divided. As in the public
            program it isn't in the state dict; a checkpoint that is to be trained on keeps it beside (defect D6).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.neck = build_neck(config)
        self.cls_head = ClassHead(config, kernel=config.model.head_kernel_size)
        if config.model.use_trident_head:
            self.start_head = ClassHead(config, kernel=config.model.boudary_kernel_size)
            self.end_head = ClassHead(config, kernel=config.model.boudary_kernel_size)
        self.reg_head = OffsetHead(config, kernel=config.model.head_kernel_size)
        self.loss_normaliser = config.train_cfg.init_loss_norm

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, video_list: Sequence[Video]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Training: `cls_loss`, `reg_loss`, `final_loss`. Evaluation: `video_id`, `segments` (seconds), `scores` and
        `labels` of each video, on the CPU, best first; any number of videos of any length, each as if it were alone.

        Raises:
            InputError: Features of another width or, in training, longer than `max_seq_len`; a label that is no class.
        """
        if self.training:
            return self.losses(self.predict(*self.preprocess(video_list)), video_list)
        results: list[dict[str, Any]] = [{} for _ in video_list]
        with torch.no_grad():
            for group in self.groups(video_list):
                videos = [video_list[index] for index in group]
                found = self.candidates(self.predict(*self.preprocess(videos)))
                for index, result in zip(group, self.detections(found, videos), strict=True):
                    results[index] = result
        return results

    def compile(self, *args: Any, **options: Any) -> None:
        """`torch.compile` the network; around it are lists of videos and targets, of another size each time."""
        for part in self.children():
            part.compile(*args, **options)

    def groups(self, video_list: Sequence[Video]) -> list[list[int]]:
        """Indices of videos that may share an evaluation batch without changing each other's scores."""
        by_length: dict[int, list[int]] = {}
        limit = self.config.dataset.max_seq_len
        for index, video in enumerate(video_list):
            length = self._padded_length(_steps(video))
            if self.config.model.mask_padding and not (self.config.model.use_abs_pe and length > limit):
                length = 0  # padding doesn't matter; only a stretched position table would
            by_length.setdefault(length, []).append(index)
        return list(by_length.values())

    def preprocess(self, video_list: Sequence[Video]) -> tuple[Tensor, Tensor]:  # -> [B, D, M], [B, 1, M]
        """The padded features and their mask, where the model is; in training with the configured noise."""
        width, limit = self.config.dataset.input_dim, self.config.dataset.max_seq_len
        for video in video_list:
            feats = video["feats"]
            if feats.ndim != 2 or feats.shape[0] != width or feats.shape[1] == 0:
                raise InputError(
                    video["video_id"],
                    f"features have shape {tuple(feats.shape)}, the model takes ({width}, time steps)",
                    "set dataset.input_dim to their width",
                )
            if self.training and _steps(video) > limit:
                raise InputError(
                    video["video_id"],
                    f"{_steps(video)} steps are longer than dataset.max_seq_len = {limit}",
                    "cut a window of it, as tridet.thumos14 does",
                )
        steps = [_steps(video) for video in video_list]
        padded = max(map(self._padded_length, steps))
        feats = [video["feats"].to(self.device, torch.float32, non_blocking=True) for video in video_list]
        batch = torch.stack([F.pad(each, (0, padded - each.shape[1])) for each in feats])
        ends = torch.tensor(steps).to(self.device, non_blocking=True)
        mask = torch.arange(padded, device=self.device) < ends[:, None, None]
        if self.training and self.config.model.input_noise > 0:
            batch = batch + torch.randn_like(batch) * self.config.model.input_noise  # on the padding too, as published
        return batch, mask

    def predict(self, batch: Tensor, mask: Tensor) -> tuple[Level, ...]:  # [B, D, M], [B, 1, M]
        """The network's outputs at each level of the pyramid, fine to coarse."""
        levels, masks = self.backbone(batch, mask)
        levels = self.neck(levels, masks)
        classes = self.cls_head(levels, masks)
        offsets = self.reg_head(levels, masks)
        starts = ends = [None] * len(levels)
        if self.config.model.use_trident_head:
            apart = [level.detach() for level in levels]  # boundaries don't shape the pyramid
            starts, ends = self.start_head(apart, masks), self.end_head(apart, masks)
        levels = zip(self.config.strides, masks, classes, offsets, starts, ends, strict=True)
        return tuple(Level(stride, mask, *map(_single, parts)) for stride, mask, *parts in levels)

    def losses(self, outputs: Sequence[Level], video_list: Sequence[Video]) -> dict[str, Tensor]:
        """`cls_loss`, `reg_loss` and `final_loss`; in evaluation mode, the same as a validation loss.

        In training the loss normaliser follows the number of positive points, before it is used. Decoding and losses
        are float32, whatever `torch.autocast` says: a boundary is a sum over bins.
        """
        train = self.config.train_cfg
        targets = self.targets(outputs, video_list)
        if self.training:
            positive = max(targets.num_points, 1)
            self.loss_normaliser = MOMENTUM * self.loss_normaliser + (1 - MOMENTUM) * positive
        with _without_autocast(self.device):
            return batch_losses(
                outputs,
                targets.to(self.device),
                normaliser=self.loss_normaliser,
                label_smoothing=train.label_smoothing,
                iou_power=self.config.model.iou_weight_power,
                regression_weight=train.loss_weight,
            )

    def targets(self, outputs: Sequence[Level], video_list: Sequence[Video]) -> Targets:
        """The positive points of the batch, on the CPU."""
        num_classes = self.config.dataset.num_classes
        segments, labels = [], []
        for video in video_list:
            has_none = video["segments"] is None or len(video["segments"]) == 0
            segment = torch.empty(0, 2) if has_none else video["segments"].to("cpu", torch.float32)
            label = torch.empty(0, dtype=torch.int64) if has_none else video["labels"].to("cpu", torch.int64)
            if not has_none and not (label.min() >= 0 and label.max() < num_classes):
                raise InputError(
                    video["video_id"],
                    f"has labels {int(label.min())} to {int(label.max())}, the model {num_classes} classes",
                    "set dataset.num_classes, or mend the annotations",
                )
            segments.append(segment)
            labels.append(label)
        lengths = [len(level) for level in outputs]
        return assign(
            pyramid_points(lengths, self.config.strides, self.config.model.regression_range),
            segments,
            labels,
            num_classes=num_classes,
            radius=self.config.train_cfg.center_sample_radius
            if self.config.train_cfg.center_sample == "radius"
            else None,
            lengths=[_steps(video) for video in video_list],
        )

    def candidates(self, outputs: Sequence[Level]) -> list[Detections]:
        """Each video's candidate segments, on the feature grid, before suppression."""
        test = self.config.test_cfg
        return candidates(
            outputs, min_score=test.pre_nms_thresh, per_level=test.pre_nms_topk, min_length=test.duration_thresh
        )

    def detections(self, found: Sequence[Detections], video_list: Sequence[Video]) -> list[dict[str, Any]]:
        """The candidates that survive suppression, in seconds, within each video; on the CPU."""
        test = self.config.test_cfg
        results = []
        for each, video in zip(found, video_list, strict=True):
            segments, scores, labels = suppress(
                each.segments,
                each.scores,
                each.labels,
                method=test.nms_method,
                iou_threshold=test.iou_threshold,
                min_score=test.min_score,
                max_segments=test.max_seg_num,
                sigma=test.nms_sigma,
                multiclass=test.multiclass_nms,
                voting_threshold=test.voting_thresh,
            )
            frames = segments * float(video["feat_stride"]) + 0.5 * float(video["feat_num_frames"])
            seconds = (frames / float(video["fps"])).clamp(0.0, float(video["duration"]))
            results.append(
                {
                    "video_id": video["video_id"],
                    "segments": seconds.cpu(),
                    "scores": scores.cpu(),
                    "labels": labels.cpu(),
                }
            )
        return results

    def _padded_length(self, steps: int) -> int:
        config = self.config
        if config.model.mask_padding:
            multiple = config.strides[-1]
        elif steps <= config.dataset.max_seq_len:
            return config.dataset.max_seq_len
        else:
            multiple = config.divisor
        return -(-steps // multiple) * multiple


def build_model(config: Config | Mapping[str, Any]) -> TriDet:
    """A freshly initialised detector.

    Args:
        config: The configuration, or its merged dictionary, which may be the public release's.

    Raises:
        InputError: The dictionary is no valid configuration.
    """
    if not isinstance(config, Config):
        from tridet.config import from_dict  # reading needs splavu, which the network doesn't

        config = from_dict(config)
    return TriDet(config)


def _single(logits: Tensor | None) -> Tensor | None:
    """In float32, which `torch.autocast` may have left; the same tensor where it hasn't."""
    return None if logits is None else logits.float()


def _without_autocast(device: torch.device) -> AbstractContextManager:
    return torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext()


def _steps(video: Video) -> int:
    return video["feats"].shape[1]
