"""The configuration: a YAML file over the published defaults, typed and checked before anything is built.

Names, nesting and defaults are those of the public TriDet configuration, so its files load as they are; a key that
doesn't exist is an error here, not a silent default. Options that the public release doesn't have are marked "ours".
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from tridet.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetConfig:
    """Annotations and features; see `tridet.thumos14`."""

    json_file: str | None = None
    feat_folder: str | None = None
    file_prefix: str | None = None
    file_ext: str = ".npy"
    feat_stride: int = 16
    """Frames between two features."""
    num_frames: int = 32
    """Frames a feature sees."""
    default_fps: float | None = None
    """Overrides the annotation file's fps."""
    input_dim: int = 2304
    num_classes: int = 97
    downsample_rate: int = 1
    """Keep every so many-th feature."""
    max_seq_len: int = 2304
    trunc_thresh: float = 0.5
    """A segment stays in a window that covers this share of it."""
    crop_ratio: tuple[float, float] | None = None
    force_upsampling: bool = False
    """Inert, as published for THUMOS14."""


@dataclass(frozen=True)
class LoaderConfig:
    batch_size: int = 8
    """Videos a training step."""
    num_workers: int = 4


@dataclass(frozen=True)
class ModelConfig:
    """The network; parameter names and shapes depend on nothing else (and on train_cfg.droppath)."""

    backbone_type: Literal["SGP", "conv"] = "SGP"
    fpn_type: Literal["identity", "fpn"] = "identity"
    backbone_arch: tuple[int, int, int] = (2, 2, 5)
    """Embedding convolutions, stem layers, branch layers."""
    scale_factor: int = 2
    regression_range: tuple[tuple[float, float], ...] = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10000))
    n_sgp_win_size: int | tuple[int, ...] = 1
    """Window of the SGP layers, odd; one number, or one a level. (Published: -1, which is invalid.)"""
    embd_kernel_size: int = 3
    embd_dim: int = 512
    embd_with_ln: bool = True
    fpn_dim: int = 512
    sgp_mlp_dim: int | None = None
    """Hidden width of an SGP layer; None is 4 embd_dim."""
    fpn_with_ln: bool = True
    head_dim: int = 512
    head_kernel_size: int = 3
    boudary_kernel_size: int = 3
    """Of the start and end heads. The published spelling; `boundary_kernel_size` is accepted too."""
    head_num_layers: int = 3
    head_with_ln: bool = True
    max_buffer_len_factor: float = 6.0
    """Inert: points are computed for the length at hand."""
    use_abs_pe: bool = False
    use_trident_head: bool = True
    downsample_type: Literal["max", "avg"] = "max"
    k: float = 1.5
    """Ratio of the large kernel to the window."""
    init_conv_vars: float = 0.0
    """Standard deviation of the SGP layers' depth-wise kernels at the start; 0, as published, leaves them dead."""
    num_bins: int = 16
    iou_weight_power: float = 1.0
    input_noise: float = 0.0
    """Standard deviation of the noise on the input in training."""
    mask_padding: bool = False
    """Ours: statistics, pooling and convolutions see valid positions only, so scores don't depend on the padding, and
    sequences are padded to what the batch needs. Changes the scores of published checkpoints, hence off."""


@dataclass(frozen=True)
class TrainConfig:
    center_sample: Literal["radius", "none"] = "radius"
    center_sample_radius: float = 1.5
    loss_weight: float = 1.0
    """Of the regression; 0 or less balances it by itself."""
    cls_prior_prob: float = 0.01
    init_loss_norm: float = 2000.0
    clip_grad_l2norm: float = -1.0
    """0 or less doesn't clip."""
    head_empty_cls: tuple[int, ...] = ()
    dropout: float = 0.0
    """Inert, as published."""
    droppath: float = 0.1
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class TestConfig:
    pre_nms_thresh: float = 0.001
    pre_nms_topk: int = 5000
    """Candidates a pyramid level."""
    iou_threshold: float = 0.1
    """Of hard NMS."""
    min_score: float = 0.01
    max_seg_num: int = 1000
    nms_method: Literal["soft", "hard", "none"] = "soft"
    nms_sigma: float = 0.5
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
    weight_decay: float = 0.0
    learning_rate: float = 0.001
    epochs: int = 30
    """Without the warm-up's."""
    warmup: bool = True
    warmup_epochs: int = 5
    schedule_type: Literal["cosine", "multistep"] = "cosine"
    eta_min: float = 1e-8
    schedule_steps: tuple[int, ...] = ()
    """Epochs after the warm-up."""
    schedule_gamma: float = 0.1
    early_stop_epochs: int | None = None
    ema_decay: float = 0.999
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
    accumulate: int = 1
    """Batches whose gradients are averaged into one update; the schedule counts updates."""
    compile: bool = False
    """torch.compile the network."""
    deterministic: bool = False
    """Only deterministic kernels, slower on a GPU. On a CPU a seed fixes everything anyhow."""
    checkpoint_freq: int = 1
    """Epochs between two writings of model_temp.pth, which is what a killed run goes on from."""


@dataclass(frozen=True)
class Config:
    """Everything; build with `load` or `from_dict`."""

    init_rand_seed: int = 1234567891
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
        _check(self)

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


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in a YAML file over the defaults; a key `base` names another file to lie below this one.

    Args:
        path: YAML file.
        overrides: Nested like the file, laid over it.

    Raises:
        InputError: No such file, no YAML mapping, an unknown key, a value of the wrong type or out of range.
    """
    return from_dict(_laid_over(_read(Path(path)), overrides or {}), source=path)


def from_dict(content: Mapping[str, Any], *, source: object = "config") -> Config:
    """The configuration in a nested dictionary, which may be the public release's merged one.

    Merged dictionaries repeat facts below `model` (input_dim, num_classes, max_seq_len, train_cfg, test_cfg); they fill
    what is missing elsewhere and must otherwise agree.

    Raises:
        InputError: As `load`; `source` is named.
    """
    content = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    model = content.get("model")
    if isinstance(model, dict):
        if "boundary_kernel_size" in model:
            _take(model, "boudary_kernel_size", model.pop("boundary_kernel_size"), f"{source}: model.")
        for name in ("input_dim", "num_classes", "max_seq_len"):
            if name in model:
                _take(content.setdefault("dataset", {}), name, model.pop(name), f"{source}: dataset.")
        for name in ("train_cfg", "test_cfg"):
            if name in model:
                _take(content, name, model.pop(name), f"{source}: ")
    return _build(Config, content, str(source), "")


def to_dict(config: Config) -> dict[str, Any]:
    """The merged dictionary, as plain lists and numbers; `from_dict` reads it back."""
    return _plain(dataclasses.asdict(config))


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, laid over its base's, if it names one."""
    if path.resolve() in above:
        raise InputError(path, "is its own base", "remove the key 'base' from one of the files")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise InputError(path, "doesn't exist", "give a YAML file such as tridet/thumos_videoMAE.yaml") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(path, f"is no YAML file ({error})") from None
    if not isinstance(content, Mapping):
        raise InputError(path, "holds no mapping", "see tridet/thumos_videoMAE.yaml")
    content = dict(content)
    base = content.pop("base", None)
    return content if base is None else _laid_over(_read(path.parent / base, (*above, path.resolve())), content)


def _take(section: dict[str, Any], name: str, value: Any, where: str) -> None:
    if section.setdefault(name, value) != value:
        raise InputError(f"{where}{name}", f"is given twice, as {section[name]!r} and {value!r}", "give it once")


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _laid_over(merged[key], value) if nested else value
    return merged


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _build(kind: type, content: Any, source: str, prefix: str) -> Any:
    if not isinstance(content, Mapping):
        raise InputError(source, f"{prefix.rstrip('.')} must be a mapping, not {content!r}")
    hints = typing.get_type_hints(kind)
    known = {item.name for item in fields(kind)}
    values = {}
    for key, value in content.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(sorted(known))}"
            raise InputError(source, f"unknown key '{prefix}{key}'", remedy)
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            values[key] = _build(hint, value, source, f"{prefix}{key}.")
        else:
            values[key] = _typed(hint, value, source, prefix + key)
    return kind(**values)


def _typed(hint: Any, value: Any, source: str, key: str) -> Any:
    """`value` as the annotation asks; lists become tuples, whole numbers floats, and '1e-4' (text in YAML) a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = InputError(source, f"{key} = {value!r}, expected {_described(hint)}")
    if origin is Literal:
        if value not in arguments:
            raise wrong
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _typed(option, value, source, key)
            except InputError:
                continue
        raise wrong
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise wrong
        inner = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise wrong
        return tuple(_typed(each, item, source, key) for each, item in zip(inner, value, strict=True))
    if hint is float and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise wrong from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise wrong
    return value


def _described(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(option) for option in arguments)
    if origin is tuple:
        count = "any number of" if arguments[-1] is Ellipsis else str(len(arguments))
        return f"a list of {count} x {_described(arguments[0])}"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _check(config: Config) -> None:
    """What the types don't say (defects D7, D12 of the public release: it fails later, or trains at no rate at all)."""
    model, data, opt = config.model, config.dataset, config.opt

    def require(holds: bool, key: str, problem: str, remedy: str = "") -> None:
        if not holds:
            raise InputError(key, problem, remedy)

    positive = {
        "dataset": ("feat_stride", "num_frames", "input_dim", "num_classes", "downsample_rate", "max_seq_len"),
        "loader": ("batch_size",),
        "model": ("embd_dim", "fpn_dim", "head_dim", "head_num_layers", "num_bins", "k"),
        "train_cfg": ("center_sample_radius", "init_loss_norm", "cls_prior_prob"),
        "test_cfg": ("pre_nms_topk", "nms_sigma"),
        "opt": ("learning_rate", "epochs"),
        "engine": ("accumulate", "checkpoint_freq"),
    }
    for section, names in positive.items():
        for name in names:
            value = getattr(getattr(config, section), name)
            require(value > 0, f"{section}.{name}", f"{value} must be more than 0")
    if model.backbone_type == "SGP":
        require(model.embd_dim % 16 == 0, "model.embd_dim", f"{model.embd_dim} is no multiple of 16")
    levels = model.backbone_arch[2] + 1
    require(
        len(model.regression_range) == levels,
        "model.regression_range",
        f"has {len(model.regression_range)} rows, the pyramid {levels} levels",
        "give one row a level (backbone_arch[2] + 1)",
    )
    require(model.scale_factor > 1, "model.scale_factor", f"{model.scale_factor} makes no pyramid", "use 2")
    if model.downsample_type == "max":
        require(model.scale_factor % 2 == 0, "model.scale_factor", "max pooling needs an even one", "use 2")
    require(
        len(config.windows) == levels and all(w > 0 and w % 2 for w in config.windows),
        "model.n_sgp_win_size",
        f"{model.n_sgp_win_size} isn't one odd number, or one for each of {levels} levels",
        "use 1",
    )
    for name in ("embd_kernel_size", "head_kernel_size", "boudary_kernel_size"):
        require(getattr(model, name) % 2 == 1, f"model.{name}", f"{getattr(model, name)} is even", "use 3")
    if model.fpn_type == "identity":
        require(model.fpn_dim == model.embd_dim, "model.fpn_dim", "must equal embd_dim in an identity neck")
    require(
        data.max_seq_len % config.strides[-1] == 0,
        "dataset.max_seq_len",
        f"{data.max_seq_len} is no multiple of {config.strides[-1]}, the stride of the coarsest level",
        f"use {math.ceil(data.max_seq_len / config.strides[-1]) * config.strides[-1]}",
    )
    low, high = data.crop_ratio or (1.0, 1.0)
    require(0 < low <= high <= 1, "dataset.crop_ratio", f"{[low, high]} are no shares from small to large", "use null")
    require(0 < data.trunc_thresh <= 1, "dataset.trunc_thresh", f"{data.trunc_thresh} is not in (0, 1]", "use 0.5")
    train = config.train_cfg
    for key, share in {
        "train_cfg.cls_prior_prob": train.cls_prior_prob,
        "train_cfg.droppath": train.droppath,
        "train_cfg.label_smoothing": train.label_smoothing,
        "opt.ema_decay": opt.ema_decay,
    }.items():
        require(0 <= share < 1, key, f"{share} is not in [0, 1)")
    for key, count in {"loader.num_workers": config.loader.num_workers, "opt.warmup_epochs": opt.warmup_epochs}.items():
        require(count >= 0, key, f"{count} is negative")
    _tell_inert(config)


def _tell_inert(config: Config) -> None:
    """Settings that were made and change nothing (defect D17)."""
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
