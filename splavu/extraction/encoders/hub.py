"""Video models of the transformers library: V-JEPA 2, and any other by its hub name or folder.

The stored feature is the mean of `last_hidden_state` over all tokens, a class token among them where the model has one
(ViViT, TimeSformer); whether these tokens are normalised is the model's own affair (V-JEPA 2, ViViT and TimeSformer end
in a LayerNorm). VideoMAE with mean pooling is refused: its LayerNorm `fc_norm` is not in the base model, so its tokens
are raw, and `--encoder videoMAE` does it right.

Frames and preprocessing come from the configuration and the processor's file, with one liberty: frames are never
squeezed. Where a processor would resize to a square, the short side is resized and the central square cut.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splavu.data.encoders import EncoderSpec, Preprocessing
from splavu.errors import UserError
from splavu.extraction.encoders.frozen import FrozenEncoder
from splavu.runtime import extras

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

VJEPA2_HUB_NAME = "facebook/vjepa2-vitl-fpc64-256"

_PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
_UNUSED_PARTS = {"pooler", "predictor"}
"""Of a base model: they come after `last_hidden_state`, so that a file may lack them."""


class HubEncoder(FrozenEncoder):
    """A model of the library whose output has `last_hidden_state`.

    Args:
        model: The base model, or the part of it that makes the tokens.
        spec: With the frames and preprocessing of the model; its width is found by trying.

    Raises:
        UserError: The model doesn't take a clip, or gives no tokens.
    """

    def __init__(self, model: PreTrainedModel, spec: EncoderSpec, *, input_name: str, source: str) -> None:
        super().__init__()
        self.model, self.input_name, self.spec = model, input_name, spec
        self.origin = hub_origin(source, model.config)
        self.freeze()
        self.spec = dataclasses.replace(spec, feature_dim=self._width(source))

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, D]
        return self.model(**{self.input_name: clips}).last_hidden_state.mean(dim=1)

    def _width(self, source: str) -> int:
        """D, from one black clip."""
        side = self.spec.preprocessing.crop
        clip = torch.zeros(1, self.spec.num_frames, 3, side, side)
        try:
            with torch.inference_mode():
                tokens = getattr(self.model(**{self.input_name: clip}), "last_hidden_state", None)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:  # any model, any complaint
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                source,
                f"{type(self.model).__name__} takes no clip of {self.spec.num_frames} frames of {side} x {side} pixels "
                f"({reason})",
                "use a video model",
            ) from error
        if not isinstance(tokens, Tensor) or tokens.ndim != 3:
            raise UserError(
                source,
                f"{type(self.model).__name__} gives no tokens (last_hidden_state [B, S, D])",
                "use a model that encodes clips to tokens",
            )
        return tokens.shape[-1]


def load_vjepa2(spec: EncoderSpec, weights: str | None) -> HubEncoder:
    """V-JEPA 2 with `weights`: a hub name (default: ViT-L) or a folder. Clips have the row's 16 frames.

    It was trained on 64, but its rotary positions take any even number; frames are as large as its processor says.

    Raises:
        UserError: Not V-JEPA 2, or it can't be loaded.
    """
    source = weights or VJEPA2_HUB_NAME
    model, preprocessing = _load(source, spec)
    if model.config.model_type != "vjepa2":
        raise UserError(source, f"this is a {model.config.model_type}, not V-JEPA 2", "use --encoder hf")
    return HubEncoder(
        model.encoder,  # without the predictor, whose work would be thrown away
        dataclasses.replace(spec, preprocessing=preprocessing),
        input_name=model.main_input_name,
        source=source,
    )


def load_any(spec: EncoderSpec, weights: str | None) -> HubEncoder:
    """Any video model: `weights` is a hub name or a folder. Clips have the frames of its configuration.

    Raises:
        UserError: No weights are given, they can't be loaded, or the model doesn't turn clips into tokens.
    """
    if weights is None:
        raise UserError("--weights", "missing: hf has no weights of its own", "give a hub name or a HuggingFace folder")
    model, preprocessing = _load(weights, spec)
    config = model.config
    num_frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None) or spec.num_frames
    return HubEncoder(
        model.encoder if config.model_type == "vjepa2" else model,
        dataclasses.replace(spec, num_frames=num_frames, preprocessing=preprocessing),
        input_name=model.main_input_name,
        source=weights,
    )


def hub_origin(weights: str, config: PretrainedConfig) -> dict[str, str]:
    """`weights_hub` and `weights_revision` of weights that came from a hub; {} for any other folder.

    A folder of the hub's own cache (`models--OWNER--NAME/snapshots/REVISION`) has them in its path.
    """
    if not Path(weights).is_dir():
        return {"weights_hub": weights, "weights_revision": getattr(config, "_commit_hash", None) or "unknown"}
    repository, kind, revision = ("", "", "", *Path(weights).absolute().parts)[-3:]
    if not repository.startswith("models--") or kind != "snapshots":
        return {}
    return {"weights_hub": repository.removeprefix("models--").replace("--", "/"), "weights_revision": revision}


UNLOADABLE = (OSError, ValueError, RuntimeError, KeyError, ImportError)
"""What transformers raises for weights that it can't load."""


def not_loaded(weights: str, error: Exception) -> UserError:
    """What to say of weights that transformers could not load, by what it raised."""
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    where = "this folder" if Path(weights).is_dir() else "the hub (offline?)"
    remedy = "download it where there is a connection and give its folder with --weights"
    return UserError(weights, f"could not be loaded from {where} ({reason})", remedy)


def _load(weights: str, spec: EncoderSpec) -> tuple[PreTrainedModel, Preprocessing]:
    extras.require("transformers", extra="encoders", why="the encoder is built by it", culprit=f"encoder '{spec.name}'")
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging as transformers_logging

    path = Path(weights)
    if not path.is_dir() and (path.is_file() or path.is_absolute() or weights.startswith(".")):
        raise UserError(weights, "no HuggingFace folder", "give a hub name, or a folder saved by save_pretrained")
    if path.is_dir():
        transformers_logging.disable_progress_bar()  # reading a folder takes no time; a download does
    try:
        config = AutoConfig.from_pretrained(weights, local_files_only=path.is_dir())
        if config.model_type == "videomae" and config.use_mean_pooling:
            raise UserError(
                weights, "a VideoMAE whose fc_norm the base model lacks", "use --encoder videoMAE, -large or -huge"
            )
        model, report = AutoModel.from_pretrained(
            weights, output_loading_info=True, local_files_only=path.is_dir(), dtype=torch.float32
        )
    except UNLOADABLE as error:
        raise not_loaded(weights, error) from error
    lost = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind])
    for name, weight in model.named_parameters():
        if name in lost and _UNUSED_PARTS & set(name.split(".")):
            weight.data.zero_()  # random otherwise, and the hash of all weights another one at every start
            lost.remove(name)
    if lost:
        raise UserError(
            weights, f"{len(lost)} weights were not loaded, for example '{lost[0]}'", "use the files of this very model"
        )
    return model, _preprocessing(_processor(weights), config, spec.preprocessing, weights)


def _processor(weights: str) -> Mapping[str, Any]:
    """What the processor's file says; empty if there is none."""
    from transformers.utils import cached_file

    for name in _PROCESSOR_FILES:
        try:
            values = json.loads(Path(cached_file(weights, name, local_files_only=Path(weights).is_dir())).read_text())
        except OSError:  # this model keeps it under another of the names, or not at all
            continue
        values = values.get("video_processor") or values.get("image_processor") or values
        if "size" in values or "image_mean" in values:
            return values
    return {}


def _preprocessing(
    processor: Mapping[str, Any], config: PretrainedConfig, default: Preprocessing, source: str
) -> Preprocessing:
    """Size, mean and standard deviation; what the processor does not say is the configuration's or the row's."""
    if not processor:
        logger.warning("%s: has no processor's file; frames are normalised with ImageNet's statistics", source)
    own_side = _side(getattr(config, "crop_size", None) or getattr(config, "image_size", None)) or default.crop
    resized = _side(processor.get("size"))
    crop = (_side(processor.get("crop_size")) if processor.get("do_center_crop", True) else resized) or own_side
    short_side = resized or crop * default.short_side // default.crop
    mean, std = default.mean, default.std
    if processor:
        is_normalised = processor.get("do_normalize", True)
        mean = processor.get("image_mean", default.mean) if is_normalised else (0.0,) * 3
        std = processor.get("image_std", default.std) if is_normalised else (1.0,) * 3
        scale, offset = 255 * processor.get("rescale_factor", 1 / 255), float(processor.get("offset", False))
        # (scale * x - offset - mean) / std, written for x in 0..1 minus a mean, over a deviation.
        mean = tuple((offset + m) / scale for m in mean)
        std = tuple(s / scale for s in std)
    return Preprocessing(short_side=max(short_side, crop), crop=crop, mean=mean, std=std)


def _side(size: Any) -> int | None:
    """Pixels, from any of the forms in which the library writes a size."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height")
    return size[0] if isinstance(size, (list, tuple)) else size
