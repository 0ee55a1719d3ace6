"""The network: glance and focus stages over snippet features and their magnitudes, a score for each snippet.

The network knows nothing of batches of normal and abnormal videos: which snippets a loss looks at is `selection`'s
business, so one video, many videos, training and inference all take the same path.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from mgfn.errors import InputError
from mgfn.layers import BLOCKS, ChannelNorm, Stage


@dataclass(frozen=True)
class Architecture:
    """What decides the network's parameters, and the one constant beside them."""

    feature_size: int
    """D, without the magnitude."""
    dims: tuple[int, ...] = (64, 128, 1024)
    depths: tuple[int, ...] = (3, 3, 2)
    types: tuple[str, ...] = ("gb", "fb", "fb")
    """'gb' (glance) or 'fb' (focus), one a stage."""
    dim_head: int = 64
    """Width of a head, in all blocks."""
    mag_ratio: float = 0.1
    """Weight of the magnitude's embedding beside the feature's."""

    def __post_init__(self) -> None:
        if not len(self.dims) == len(self.depths) == len(self.types) > 0:
            raise InputError("dims, depths, types", f"{self.dims}, {self.depths}, {self.types} differ in length")
        if unknown := set(self.types) - BLOCKS.keys():
            raise InputError("types", f"no block is called '{unknown.pop()}'", f"use {' or '.join(BLOCKS)}")
        if min(self.feature_size, self.dim_head, *self.dims, *self.depths) < 1:
            raise InputError("architecture", f"{self} holds a number below 1")
        if odd := [dim for dim in self.dims if dim % self.dim_head]:
            raise InputError("dims", f"{odd[0]} is no multiple of dim_head = {self.dim_head}", "set dim_head")


class Output(NamedTuple):
    """What the network says of B videos."""

    features: Tensor
    """[B, N, T, C], crops apart."""
    scores: Tensor
    """[B, T], in 0..1, the mean over crops."""


class MGFN(nn.Module):
    """Magnitude-contrastive glance-and-focus network; build with `build_model`.

    Source: Chen et al., AAAI 2023 (arXiv 2211.15098), sections "Feature amplification" and "Glance and focus".
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        dims = architecture.dims
        self.to_tokens = nn.Conv1d(architecture.feature_size, dims[0], 3, padding=1)
        stages = []
        for index, (dim, depth, block) in enumerate(zip(dims, architecture.depths, architecture.types, strict=True)):
            parts = [Stage(dim, depth=depth, block=block, dim_head=architecture.dim_head)]
            if index + 1 < len(dims):
                parts.append(nn.Sequential(ChannelNorm(dim), nn.Conv1d(dim, dims[index + 1], 1)))
            stages.append(nn.Sequential(*parts))
        self.stages = nn.Sequential(*stages)
        self.to_logits = nn.Sequential(nn.LayerNorm(dims[-1]))
        self.fc = nn.Linear(dims[-1], 1)
        self.to_mag = nn.Conv1d(1, dims[0], 3, padding=1)

    def forward(self, x: Tensor) -> Output:  # [B, N, T, D + 1] -> [B, N, T, C], [B, T]
        """Features and scores of every snippet; the magnitude is the input's last channel."""
        if x.ndim != 4 or x.shape[-1] != self.architecture.feature_size + 1:
            raise InputError(
                "features",
                f"shape {tuple(x.shape)}, expected (videos, crops, snippets, {self.architecture.feature_size} + 1)",
                "the last channel is the magnitude (mgfn.snippets)",
            )
        sequences = x.flatten(0, 1).mT  # [B * N, D + 1, T]
        tokens = self.to_tokens(sequences[:, :-1]) + self.architecture.mag_ratio * self.to_mag(sequences[:, -1:])
        features = self.to_logits(self.stages(tokens).mT).unflatten(0, x.shape[:2])  # [B, N, T, C]
        return Output(features, self.fc(features).float().sigmoid().squeeze(-1).mean(dim=1))

    def score(self, x: Tensor) -> Tensor:  # [B, N, T, D + 1] -> [B, T]
        """Snippet scores, mean over crops; in evaluation mode a video's don't depend on its batch."""
        return self(x).scores


def build_model(
    feature_size: int,
    *,
    dims: tuple[int, ...] = Architecture.dims,
    depths: tuple[int, ...] = Architecture.depths,
    types: tuple[str, ...] = Architecture.types,
    dim_head: int = Architecture.dim_head,
    mag_ratio: float = Architecture.mag_ratio,
) -> MGFN:
    """A fresh network with the official parameter names and shapes; the defaults are the published values.

    Args:
        feature_size: Width of a snippet's feature, without the magnitude.
        dims: Width of each stage.
        depths: Layers of each stage.
        types: Block of each stage, 'gb' (glance) or 'fb' (focus).
        dim_head: Width of an attention head; every stage's width is a multiple of it.
        mag_ratio: Weight of the magnitude's embedding.

    Raises:
        InputError: The values don't fit together.
    """
    return MGFN(Architecture(feature_size, tuple(dims), tuple(depths), tuple(types), dim_head, mag_ratio))


def model_from_state(state: Mapping[str, Tensor], *, mag_ratio: float = Architecture.mag_ratio) -> MGFN:
    """The network that a state dict belongs to, with its weights; official and DataParallel ones too.

    Everything but `mag_ratio`, which leaves no trace in the weights, is read from names and shapes.

    Raises:
        InputError: This is no MGFN.
    """
    state = {
        name.removeprefix("module.").removeprefix("_orig_mod.").replace("._orig_mod.", "."): value
        for name, value in state.items()
    }
    model = MGFN(dataclasses.replace(_architecture_of(state), mag_ratio=mag_ratio))
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise InputError("state dict", f"'{name}' is {found.get(name, 'missing')}, not {wanted.get(name, 'known')}")
    model.load_state_dict(state)
    return model


def _architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    heads: dict[tuple[int, int], int | None] = {}  # (stage, layer) -> heads of a focus block, None for a glance block
    for name, value in state.items():
        if match := re.fullmatch(r"stages\.(\d+)\.0\.layers\.(\d+)\.1\.(to_qkv|rel_pos)\.weight", name):
            heads[int(match[1]), int(match[2])] = None if match[3] == "to_qkv" else value.shape[0]
    stages = sorted({stage for stage, _ in heads})
    try:
        feature_size = state["to_tokens.weight"].shape[1]
        dims = tuple(state[f"stages.{stage}.0.layers.0.0.weight"].shape[0] for stage in stages)
        heads_of_stage = [heads[stage, 0] for stage in stages]
    except KeyError as error:
        raise InputError("state dict", f"has no {error}, so it is no MGFN", "give a checkpoint of MGFN") from None
    # Glance blocks don't show their number of heads; a network of them alone is taken to have the published width.
    widths = {dim // count for dim, count in zip(dims, heads_of_stage, strict=True) if count}
    return Architecture(
        feature_size=feature_size,
        dims=dims,
        depths=tuple(sum(stage == of_stage for of_stage, _ in heads) for stage in stages),
        types=tuple("fb" if count else "gb" for count in heads_of_stage),
        dim_head=min(widths, default=Architecture.dim_head),
    )
