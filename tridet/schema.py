"""The sections of TriDet's configuration: names, types, defaults, and what a value may be.

Names, nesting and defaults are those of the public TriDet configuration; options that it doesn't have are marked
"ours". A range stands at its field, and is checked where a configuration is read (`tridet.config`); what relates
several fields is checked whenever a `Config` is made. Nothing here needs more than this folder.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Predicate

from tridet.errors import InputError

logger = logging.getLogger(__name__)


def _is_odd(number: int) -> bool:
    """odd"""
    return number % 2 == 1


Count = Annotated[int, Ge(1), Le(2**31 - 1)]
NonNegativeInt = Annotated[int, Ge(0), Le(2**31 - 1)]
Few = Annotated[int, Interval(ge=1, le=1024)]
FewOrNone = Annotated[int, Interval(ge=0, le=1024)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, lt=1)]
Ranges = tuple[tuple[float, Annotated[float, "may be infinite"]], ...]
KernelSize = Annotated[int, Ge(1), Predicate(_is_odd)]


@dataclass(frozen=True)
class DatasetConfig:
    """Annotations and features; see `tridet.thumos14`."""

    json_file: str | None = None
    feat_folder: str | None = None
    file_prefix: str | None = None
    file_ext: str = ".npy"
    feat_stride: Count = 16
    """Frames between two features."""
    num_frames: Count = 32
    """Frames a feature sees."""
    default_fps: Positive | None = None
    """Overrides the annotation file's fps."""
    input_dim: Count = 2304
    num_classes: Count = 97
    downsample_rate: Count = 1
    """Keep every so many-th feature."""
    max_seq_len: Count = 2304
    trunc_thresh: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """A segment stays in a window that covers this share of it."""
    crop_ratio: tuple[float, float] | None = None
    force_upsampling: bool = False
    """Inert, as published for THUMOS14."""


@dataclass(frozen=True)
class LoaderConfig:
    batch_size: Count = 8
    """Videos a training step."""
    num_workers: FewOrNone = 4


@dataclass(frozen=True)
class ModelConfig:
    """The network; parameter names and shapes depend on nothing else (and on train_cfg.droppath)."""

    backbone_type: Literal["SGP", "conv"] = "SGP"
    fpn_type: Literal["identity", "fpn"] = "identity"
    backbone_arch: tuple[int, int, int] = (2, 2, 5)
    """Embedding convolutions, stem layers, branch layers."""
    scale_factor: Annotated[int, Ge(2)] = 2
    regression_range: Ranges = (
        (0, 4),
        (4, 8),
        (8, 16),
        (16, 32),
        (32, 64),
        (64, 10000),
    )
    n_sgp_win_size: int | tuple[int, ...] = 1
    """Window of the SGP layers, odd; one number, or one a level. (Published: -1, which is invalid.)"""
    embd_kernel_size: KernelSize = 3
    embd_dim: Count = 512
    embd_with_ln: bool = True
    fpn_dim: Count = 512
    sgp_mlp_dim: Count | None = None
    """Hidden width of an SGP layer; None is 4 embd_dim."""
    fpn_with_ln: bool = True
    head_dim: Count = 512
    head_kernel_size: KernelSize = 3
    boudary_kernel_size: KernelSize = 3
    """Of the start and end heads. The published spelling; `boundary_kernel_size` is accepted too."""
    head_num_layers: Few = 3
    head_with_ln: bool = True
    max_buffer_len_factor: float = 6.0
    """Inert: points are computed for the length at hand."""
    use_abs_pe: bool = False
    use_trident_head: bool = True
    downsample_type: Literal["max", "avg"] = "max"
    k: Positive = 1.5
    """Ratio of the large kernel to the window."""
    init_conv_vars: NonNegative = 0.0
    """Standard deviation of the SGP layers' depth-wise kernels at the start; 0, as published, leaves them dead."""
    num_bins: Count = 16
    iou_weight_power: float = 1.0
    input_noise: NonNegative = 0.0
    """Standard deviation of the noise on the input in training."""
    mask_padding: bool = False
    """Ours: statistics, pooling and convolutions see valid positions only, so scores don't depend on the padding, and
    sequences are padded to what the batch needs. Changes the scores of published checkpoints, hence off."""


@dataclass(frozen=True)
class TrainConfig:
    center_sample: Literal["radius", "none"] = "radius"
    center_sample_radius: Positive = 1.5
    loss_weight: float = 1.0
    """Of the regression; 0 or less balances it by itself."""
    cls_prior_prob: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    init_loss_norm: Positive = 2000.0
    clip_grad_l2norm: float = -1.0
    """0 or less doesn't clip."""
    head_empty_cls: tuple[int, ...] = ()
    dropout: float = 0.0
    """Inert, as published."""
    droppath: Share = 0.1
    label_smoothing: Share = 0.0


@dataclass(frozen=True)
class TestConfig:
    pre_nms_thresh: float = 0.001
    pre_nms_topk: Count = 5000
    """Candidates a pyramid level."""
    iou_threshold: float = 0.1
    """Of hard NMS."""
    min_score: float = 0.01
    max_seg_num: Count = 1000
    nms_method: Literal["soft", "hard", "none"] = "soft"
    nms_sigma: Positive = 0.5
    duration_thresh: float = 0.05
    """In steps of the feature grid."""
    multiclass_nms: bool = True
    ext_score_file: str | None = None
    voting_thresh: float = 0.75
    """Of boundary voting, which class-agnostic NMS alone does."""


@dataclass(frozen=True)
class OptConfig:
    type: Literal["AdamW", "SGD"] = "AdamW"
    momentum: float = 0.9
    weight_decay: NonNegative = 0.0
    learning_rate: Positive = 0.001
    epochs: Count = 30
    """Without the warm-up's."""
    warmup: bool = True
    warmup_epochs: NonNegativeInt = 5
    schedule_type: Literal["cosine", "multistep"] = "cosine"
    eta_min: float = 1e-8
    schedule_steps: tuple[int, ...] = ()
    """Epochs after the warm-up."""
    schedule_gamma: float = 0.1
    early_stop_epochs: NonNegativeInt | None = None
    ema_decay: Share = 0.999
    """Ours: of the moving average of the weights; a training of a thousand steps wants a smaller one."""

    @property
    def num_epochs(self) -> int:
        """Epochs that are trained."""
        warmup = self.warmup_epochs if self.warmup else 0
        return self.early_stop_epochs or self.epochs + warmup


@dataclass(frozen=True)
class EngineConfig:
    """How steps are computed; ours. The defaults are the published way; clipping and average are TriDet's own."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the network's products; losses, weights and evaluation are fp32."""
    accumulate: Few = 1
    """Batches whose gradients are averaged into one update; the schedule counts updates."""
    compile: bool = False
    """torch.compile the network."""
    deterministic: bool = False
    """Only deterministic kernels, slower on a GPU. On a CPU a seed fixes everything anyhow."""
    checkpoint_freq: Count = 1
    """Epochs between two writings of model_temp.pth, from which an interrupted run resumes."""


@dataclass(frozen=True)
class Config:
    """Everything; read one with `tridet.config.load` or `from_dict`."""

    init_rand_seed: Annotated[int, Interval(ge=0, lt=2**32)] = 1234567891
    dataset_name: str = "thumos"
    devices: tuple[str, ...] = ("cuda:0",)
    """Inert: the command line chooses the device."""
    train_split: tuple[str, ...] = ("training",)
    val_split: tuple[str, ...] = ("validation",)
    model_name: str = "TriDet"
    output_folder: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train_cfg: TrainConfig = field(default_factory=TrainConfig)
    test_cfg: TestConfig = field(default_factory=TestConfig)
    opt: OptConfig = field(default_factory=OptConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        _check_relations(self)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each pyramid level on the feature grid."""
        return tuple(self.model.scale_factor**level for level in range(self.model.backbone_arch[2] + 1))

    @property
    def windows(self) -> tuple[int, ...]:
        """SGP window of each pyramid level."""
        given = self.model.n_sgp_win_size
        return (given,) * len(self.strides) if isinstance(given, int) else given

    @property
    def divisor(self) -> int:
        """Sequences longer than max_seq_len are padded to a multiple of this."""
        widest = max(s * w if w > 1 else s for s, w in zip(self.strides, self.windows, strict=True))
        return math.lcm(widest, self.strides[-1])


def to_dict(config: Config) -> dict[str, Any]:
    """The merged dictionary, as plain lists and numbers; `from_dict` reads it back."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _check_relations(config: Config) -> None:
    """Where fields don't go together (defects D7, D12 of the public release: it fails later)."""
    model, data = config.model, config.dataset

    def require(holds: bool, key: str, problem: str, remedy: str = "") -> None:
        if not holds:
            raise InputError(key, problem, remedy)

    if model.backbone_type == "SGP":
        require(model.embd_dim % 16 == 0, "model.embd_dim", f"{model.embd_dim} is not a multiple of 16")
    levels = model.backbone_arch[2] + 1
    require(
        len(model.regression_range) == levels,
        "model.regression_range",
        f"has {len(model.regression_range)} rows, the pyramid {levels} levels",
        "give one row a level (backbone_arch[2] + 1)",
    )
    if model.downsample_type == "max":
        require(model.scale_factor % 2 == 0, "model.scale_factor", "max pooling needs an even one", "use 2")
    require(
        len(config.windows) == levels and all(w > 0 and w % 2 for w in config.windows),
        "model.n_sgp_win_size",
        f"{model.n_sgp_win_size} isn't one odd number, or one for each of {levels} levels",
        "use 1",
    )
    if model.fpn_type == "identity":
        require(model.fpn_dim == model.embd_dim, "model.fpn_dim", "must equal embd_dim in an identity neck")
    require(
        data.max_seq_len % config.strides[-1] == 0,
        "dataset.max_seq_len",
        f"{data.max_seq_len} is not a multiple of {config.strides[-1]}, the stride of the coarsest level",
        f"use {math.ceil(data.max_seq_len / config.strides[-1]) * config.strides[-1]}",
    )
    low, high = data.crop_ratio or (1.0, 1.0)
    require(
        0 < low <= high <= 1,
        "dataset.crop_ratio",
        f"{[low, high]} must be two shares in (0, 1], the smaller one first",
        "use null",
    )
    _report_inert(config)


def _report_inert(config: Config) -> None:
    """Log settings that were made and change nothing (defect D17)."""
    test, usual = config.test_cfg, TestConfig()
    for key, inert in {
        "dataset.force_upsampling": config.dataset.force_upsampling,
        "train_cfg.dropout": config.train_cfg.dropout,
    }.items():
        if inert:
            logger.warning("%s = %s has no effect", key, inert)
    if test.nms_method != "hard" and test.iou_threshold != usual.iou_threshold:
        logger.info("test_cfg.iou_threshold = %s has no effect: it is hard suppression's", test.iou_threshold)
    if (test.multiclass_nms or test.nms_method == "none") and test.voting_thresh != usual.voting_thresh:
        logger.info("test_cfg.voting_thresh = %s has no effect: class-agnostic suppression votes", test.voting_thresh)
