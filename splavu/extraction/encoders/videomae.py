"""VideoMAE: from a hub name, a HuggingFace folder, or an official checkpoint of VideoMAE or VideoMAE V2.

The feature is `fc_norm(mean over all tokens)`, the input of the classification head. Three traps of the HuggingFace
class are closed here: its base model has no `fc_norm`, both its LayerNorm epsilons differ from the official 1e-6, and
some releases leave the query and value biases at their initial values, so a missing weight is an error.

Source: Tong et al. 2022, Wang et al. 2023; the mapping of names was derived from both programs (spec: videomae, 2-3).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from splavu.data.encoders import EncoderSpec, Preprocessing
from splavu.errors import UserError
from splavu.extraction.encoders import official
from splavu.extraction.encoders.cpu_transformer import CPUTransformer
from splavu.extraction.encoders.frozen import FrozenEncoder, fitted_spec
from splavu.extraction.encoders.hub import UNLOADABLE, hub_origin, not_loaded
from splavu.extraction.encoders.vit import HEADS_OF_WIDTH, LAYER_NORM_EPS
from splavu.runtime import extras

if TYPE_CHECKING:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

logger = logging.getLogger(__name__)

HUB_NAME = "MCG-NJU/videomae-base-finetuned-kinetics"
HUB_NAMES = {
    "videoMAE": HUB_NAME,
    "videoMAE-large": "MCG-NJU/videomae-large-finetuned-kinetics",
    "videoMAE-huge": "MCG-NJU/videomae-huge-finetuned-kinetics",
}
ENTRIES = ("model", "module")
"""Where an official file keeps its weights: pre-training files under the first, fine-tuned ones under the second."""

_BLOCK_PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


class VideoMAEEncoder(FrozenEncoder):
    """Wraps a `VideoMAEForVideoClassification` with mean pooling.

    Args:
        model: The network; its LayerNorm epsilons are set to the official value.
        spec: The row of the table it stands for; frames and preprocessing are replaced by what the model takes.

    Raises:
        UserError: The model pools by its first token, or its width is not the row's.
    """

    def __init__(self, model: VideoMAEForVideoClassification, spec: EncoderSpec, *, source: str) -> None:
        super().__init__()
        config = model.config
        if not config.use_mean_pooling:
            raise UserError(source, "this VideoMAE has no fc_norm (no mean pooling)", "use a fine-tuned checkpoint")
        self.spec = fitted_spec(
            spec,
            width=config.hidden_size,
            num_frames=config.num_frames,
            crop=config.image_size,
            source=source,
        )
        self.backbone, self.fc_norm = model.videomae, model.fc_norm
        for module in self.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = LAYER_NORM_EPS
        self.freeze()

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, D]
        tokens = self.backbone(clips).last_hidden_state  # [B, S, D]; S tokens of one clip attend to each other
        return self.fc_norm(tokens.mean(dim=1))

    def cpu_extractor(self, preprocessing: Preprocessing, precision: str) -> CPUTransformer | None:
        config = self.backbone.config
        if config.hidden_act != "gelu" or not config.qv_bias:
            return None
        return CPUTransformer(
            dict(_official_names(self)),
            positions=self.backbone.embeddings.position_embeddings[0],
            num_heads=config.num_attention_heads,
            eps=LAYER_NORM_EPS,
            preprocessing=preprocessing,
            precision=precision,
        )


def load_videomae(spec: EncoderSpec, weights: str | None) -> VideoMAEEncoder:
    """VideoMAE with `weights`: a hub name (default: the row's size fine-tuned on Kinetics-400), a folder or a .pth."""
    return _load(spec, weights or HUB_NAMES[spec.name])


def load_demo(spec: EncoderSpec, weights: str | None) -> VideoMAEEncoder:
    """The small encoder of the synthetic world, which comes with the package."""
    return _load(spec, weights or str(resources.files("splavu.synthetic") / "demo_encoder"))


def from_official(
    checkpoint: Mapping[str, object],
    spec: EncoderSpec,
    *,
    num_heads: int | None = None,
    image_size: int = 224,
    num_frames: int = 16,
    source: str = "checkpoint",
) -> VideoMAEEncoder:
    """Build the encoder from an official fine-tuned checkpoint (a loaded dictionary).

    Args:
        num_heads: Needed for widths that no released model has.
        image_size: Side of the input; the checkpoint has no position table to read it from.
        num_frames: Frames of a clip, likewise.

    Raises:
        UserError: It is no fine-tuned VideoMAE, a weight is missing or unknown, or it uses layer scale, learnt
            positions or cosine attention, which this class of networks lacks.
    """
    from transformers import VideoMAEForVideoClassification

    state = official_state(checkpoint, source=source)
    config = _official_config(state, num_heads=num_heads, image_size=image_size, num_frames=num_frames, source=source)
    model = VideoMAEForVideoClassification(config)
    mapped = dict(_mapped(state, config.hidden_size, source))
    official.load(model, mapped, source=source)
    return VideoMAEEncoder(model, spec, source=source)


def official_state(checkpoint: Mapping[str, object], *, source: str) -> dict[str, Tensor]:
    """The encoder's weights in an official checkpoint, without wrappers' prefixes and without a decoder."""
    state = official.named_weights(checkpoint, entries=ENTRIES)
    if any(name.startswith("encoder.") for name in state):
        raise UserError(
            source, "a pre-training checkpoint: its pooled features are undefined", "use a fine-tuned checkpoint"
        )
    if "patch_embed.proj.weight" not in state:
        raise UserError(source, "no VideoMAE weights in this file", "use an official checkpoint")
    return state


def _official_config(
    state: Mapping[str, Tensor], *, num_heads: int | None, image_size: int, num_frames: int, source: str
) -> VideoMAEConfig:
    from transformers import VideoMAEConfig

    width, _, tubelet, patch, _ = state["patch_embed.proj.weight"].shape
    heads = num_heads or HEADS_OF_WIDTH.get(width)
    if heads is None or "blocks.0.mlp.fc1.weight" not in state:
        raise UserError(source, f"no released VideoMAE is {width} wide", "use an official checkpoint")
    blocks = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    return VideoMAEConfig(
        image_size=image_size,
        patch_size=patch,
        num_frames=num_frames,
        tubelet_size=tubelet,
        hidden_size=width,
        num_hidden_layers=len(blocks),
        num_attention_heads=heads,
        intermediate_size=len(state["blocks.0.mlp.fc1.weight"]),
        layer_norm_eps=LAYER_NORM_EPS,
        use_mean_pooling=True,
        num_labels=len(state["head.weight"]) if "head.weight" in state else 0,
    )


def _mapped(state: Mapping[str, Tensor], width: int, source: str) -> Iterator[tuple[str, Tensor]]:
    """Official names to those of the HuggingFace class; unknown names raise."""
    outer = {
        "patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
        "fc_norm": "fc_norm",
        "head": "classifier",
    }
    for name, weight in state.items():
        module, _, kind = name.rpartition(".")
        if module in outer:
            yield f"{outer[module]}.{kind}", weight
            continue
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        prefix = f"videomae.encoder.layer.{block[1]}." if block else ""
        part = block[2] if block else ""
        attention = f"{prefix}attention.attention."
        if part == "attn.qkv.weight":
            for row, projection in enumerate(("query", "key", "value")):
                yield f"{attention}{projection}.weight", weight[row * width : (row + 1) * width]
        elif part in ("attn.q_bias", "attn.v_bias"):
            yield f"{attention}{'query' if part == 'attn.q_bias' else 'value'}.bias", weight
        elif part.rpartition(".")[0] in _BLOCK_PARTS:
            inner, _, kind = part.rpartition(".")
            yield f"{prefix}{_BLOCK_PARTS[inner]}.{kind}", weight
        else:
            raise UserError(
                source,
                f"'{name}' is not part of a released VideoMAE (layer scale, learnt positions, cosine attention?)",
                "use a released fine-tuned checkpoint",
            )


def _official_names(encoder: VideoMAEEncoder) -> Iterator[tuple[str, Tensor]]:
    """The way back from `_mapped`: the weights by official names, with one `qkv` a block."""
    modules = {"patch_embed.proj": encoder.backbone.embeddings.patch_embeddings.projection, "fc_norm": encoder.fc_norm}
    for index, layer in enumerate(encoder.backbone.encoder.layer):
        block, attention = f"blocks.{index}.", layer.attention.attention
        modules |= {block + name: layer.get_submodule(part) for name, part in _BLOCK_PARTS.items()}
        query, value = attention.query.bias, attention.value.bias
        yield f"{block}attn.qkv.bias", torch.cat([query, torch.zeros_like(query), value])  # keys have none
        parts = (attention.query, attention.key, attention.value)
        yield f"{block}attn.qkv.weight", torch.cat([part.weight for part in parts])
    for name, module in modules.items():
        yield f"{name}.weight", module.weight
        yield f"{name}.bias", module.bias


def _load(spec: EncoderSpec, weights: str) -> VideoMAEEncoder:
    path = Path(weights)
    if path.is_file():
        return _load_checkpoint(spec, path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(path, "no config.json in this folder", "give a folder saved by save_pretrained")
    elif spec.name == "demo" or path.is_absolute() or weights.startswith(".") or weights.count("/") != 1:
        raise UserError(weights, "no such weights", "give a hub name, a HuggingFace folder or an official checkpoint")
    return _load_pretrained(spec, weights)


def _load_checkpoint(spec: EncoderSpec, path: Path) -> VideoMAEEncoder:
    return from_official(official.read(path), spec, source=str(path))


def _load_pretrained(spec: EncoderSpec, weights: str) -> VideoMAEEncoder:
    extras.require("transformers", extra="encoders", why="the encoder is built by it", culprit=f"encoder '{spec.name}'")
    from transformers import VideoMAEForVideoClassification
    from transformers.utils import logging as transformers_logging

    is_local = Path(weights).is_dir()
    if is_local:
        transformers_logging.disable_progress_bar()  # reading a folder takes no time; a download does
    try:
        model, report = VideoMAEForVideoClassification.from_pretrained(
            weights, output_loading_info=True, local_files_only=is_local, dtype=torch.float32
        )
    except UNLOADABLE as error:
        raise not_loaded(weights, error) from error
    lost = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lost:
        raise UserError(
            weights,
            f"{len(lost)} weights were not loaded, for example '{lost[0]}'",
            "use a fine-tuned VideoMAE, and transformers 5.5 or later",
        )
    encoder = VideoMAEEncoder(model, spec, source=weights)
    encoder.origin = hub_origin(weights, model.config)
    return encoder
