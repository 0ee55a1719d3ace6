"""The video vision transformer of VideoMAE, VideoMAE V2, InternVideo and V-JEPA: one module, three differences.

Its parameters are called as in the official checkpoints, so loading needs no table of names. The families differ in
where the last LayerNorm stands (`norm` on every token, or `fc_norm` on their mean), in the positions (a fixed sinusoid
that is not in the file, or a table that is), and in the attention biases, which `joined_bias` makes alike.

Note: positions for a longer clip or a larger frame are interpolated, not computed again: the sinusoid runs over the
flat token index, which means another place in another grid (spec: videomae, 6).

Letters: B clips, T frames, S tokens of one clip, D width, h heads; t, r, c time steps, rows and columns of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.data.encoders import EncoderSpec, Preprocessing
from splavu.errors import UserError
from splavu.extraction.encoders import official
from splavu.extraction.encoders.cpu_transformer import CPUTransformer
from splavu.extraction.encoders.frozen import FrozenEncoder, fitted_spec

LAYER_NORM_EPS = 1e-6
HEADS_OF_WIDTH = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""Attention heads of the released sizes S, B, L, H and g; a checkpoint does not say."""

Grid = tuple[int, int, int]
"""Tokens along time, rows and columns."""


@dataclass(frozen=True)
class Architecture:
    """What a transformer is made of."""

    width: int
    depth: int
    num_heads: int
    hidden: int
    """Width between the two layers of a block's MLP."""
    patch: int
    """Side of a patch in pixels."""
    tubelet: int
    """Frames of a patch."""
    grid: Grid
    """Tokens of the clips it was trained with."""
    pools_normalised_tokens: bool = False
    """False: `fc_norm` of the mean of all tokens. True: the mean of all tokens after `norm`."""
    keeps_positions: bool = False
    """False: the sinusoid. True: a table among the weights, as `pos_embed`."""

    @classmethod
    def of_state(
        cls, state: Mapping[str, Tensor], *, num_frames: int, image_size: int | None, num_heads: int | None, source: str
    ) -> Architecture:
        """From the shapes in a checkpoint with official names, as far as they determine it.

        Args:
            num_frames: Of the clips it was trained with.
            image_size: Side of the frames it was trained with; None reads it from the table of positions.
            num_heads: Needed for widths that no released model has.

        Raises:
            UserError: Not such a checkpoint, or one whose heads or grid cannot be known.
        """
        stem, first = state.get("patch_embed.proj.weight"), state.get("blocks.0.mlp.fc1.weight")
        if stem is None or stem.ndim != 5 or first is None:
            raise UserError(source, "no weights of a video transformer in this file", "use an official checkpoint")
        width, _, tubelet, patch, _ = stem.shape
        heads = num_heads or HEADS_OF_WIDTH.get(width)
        if heads is None:
            raise UserError(source, f"no released transformer is {width} wide", "use an official checkpoint")
        steps = num_frames // tubelet
        if image_size is None:
            tokens = state["pos_embed"].shape[1]
            side = round((tokens / steps) ** 0.5)
            if steps * side * side != tokens:
                raise UserError(
                    source,
                    f"its {tokens} positions are no square grid of {num_frames} frames",
                    "use a checkpoint that was trained on clips of that length",
                )
        else:
            side = image_size // patch
        return cls(
            width=width,
            depth=1 + max(int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))),
            num_heads=heads,
            hidden=len(first),
            patch=patch,
            tubelet=tubelet,
            grid=(steps, side, side),
            pools_normalised_tokens="fc_norm.weight" not in state,
            keeps_positions="pos_embed" in state,
        )


class VideoTransformer(nn.Module):
    """Clips to one feature each: patches, positions, pre-norm blocks, mean over all tokens. No class token, no head.

    Takes any number of frames and any size of frame that divides into patches.
    """

    pos_embed: Tensor  # [1, S, D]

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.patch_embed = PatchEmbedding(a)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.depth))
        norm = nn.LayerNorm(a.width, eps=LAYER_NORM_EPS)
        self.norm = norm if a.pools_normalised_tokens else nn.Identity()
        self.fc_norm = nn.Identity() if a.pools_normalised_tokens else norm
        steps, rows, columns = a.grid
        length = steps * rows * columns
        table = torch.empty(1, length, a.width) if a.keeps_positions else sinusoid(length, a.width)
        self.register_buffer("pos_embed", table, persistent=a.keeps_positions)

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, D]
        return self.fc_norm(self.tokens(clips).mean(dim=1))

    def tokens(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, S, D], ordered by time, row, column
        patches = self.patch_embed(clips)  # [B, D, t, r, c]
        positions = resized(self.pos_embed, self.architecture.grid, tuple(patches.shape[2:]))
        tokens = patches.flatten(2).transpose(1, 2) + positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class PatchEmbedding(nn.Module):
    """Tubelets of patches to tokens."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        size = (architecture.tubelet, architecture.patch, architecture.patch)
        self.proj = nn.Conv3d(3, architecture.width, kernel_size=size, stride=size)

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, D, t, r, c]
        extent = (clips.shape[1], *clips.shape[3:])
        if any(length % step for length, step in zip(extent, self.proj.stride, strict=True)):
            raise UserError(
                "clips",
                "{} frames of {} x {} pixels do not divide".format(*extent)
                + " into patches of {} frames and {} x {} pixels".format(*self.proj.stride),
                "choose a multiple",
            )
        return self.proj(clips.transpose(1, 2))


class Block(nn.Module):
    """Attention, then an MLP, each behind a LayerNorm and beside a residual."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(architecture.width, eps=LAYER_NORM_EPS)
        self.attn = Attention(architecture)
        self.norm2 = nn.LayerNorm(architecture.width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(architecture)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, S, D] -> [B, S, D]
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Every token attends to all tokens of the same clip."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.num_heads = architecture.num_heads
        self.qkv = nn.Linear(architecture.width, 3 * architecture.width)
        self.proj = nn.Linear(architecture.width, architecture.width)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, S, D] -> [B, S, D]
        qkv = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))  # [B, S, 3, h, D/h]
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, h, S, D/h]
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.fc1 = nn.Linear(architecture.width, architecture.hidden)
        self.fc2 = nn.Linear(architecture.hidden, architecture.width)

    def forward(self, tokens: Tensor) -> Tensor:  # [..., D] -> [..., D]
        return self.fc2(F.gelu(self.fc1(tokens)))


class TransformerEncoder(FrozenEncoder):
    """A `VideoTransformer` that is an encoder."""

    def __init__(self, network: VideoTransformer, spec: EncoderSpec) -> None:
        super().__init__()
        self.network, self.spec = network, spec
        self.freeze()

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, D]
        return self.network(clips)

    def cpu_extractor(self, preprocessing: Preprocessing, precision: str) -> CPUTransformer:
        state = self.network.state_dict()
        state.pop("pos_embed", None)
        return CPUTransformer(
            state,
            positions=self.network.pos_embed[0],
            num_heads=self.network.architecture.num_heads,
            eps=LAYER_NORM_EPS,
            preprocessing=preprocessing,
            precision=precision,
        )


def sinusoid(length: int, width: int) -> Tensor:  # -> [1, length, width] float32
    """Fixed positions: channels 2k and 2k + 1 are sine and cosine of index / 10000^(2k / width), in float64 first."""
    index = torch.arange(length, dtype=torch.float64, device="cpu")[:, None]
    channel = torch.arange(width, dtype=torch.float64, device="cpu")
    angle = index / 10000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


def resized(table: Tensor, grid: Grid, target: Grid) -> Tensor:  # [1, S, D] -> [1, S', D]
    """Positions of another grid: bicubic in space, then linear in time, corners not aligned."""
    if grid == target:
        return table
    steps, *space = grid
    frames = table.reshape(steps, *space, -1).permute(0, 3, 1, 2)  # [t, D, r, c]
    if tuple(space) != target[1:]:
        frames = F.interpolate(frames, size=target[1:], mode="bicubic", align_corners=False)
    lines = frames.permute(2, 3, 1, 0).flatten(0, 1)  # [r*c, D, t]
    if steps != target[0]:
        lines = F.interpolate(lines, size=target[0], mode="linear", align_corners=False)
    return lines.permute(2, 0, 1).reshape(1, -1, table.shape[-1])


def joined_bias(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with `qkv.bias` in place of every pair `q_bias`, `v_bias`; the bias of the keys is zero.

    A lonely one of the pair stays as it is, and loading then reports it.
    """
    joined = dict(state)
    for name in state:
        if name.endswith("attn.q_bias") and (other := name[: -len("q_bias")] + "v_bias") in state:
            query, value = joined.pop(name), joined.pop(other)
            joined[name[: -len("q_bias")] + "qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return joined


def load_transformer(
    state: Mapping[str, Tensor], architecture: Architecture, spec: EncoderSpec, *, source: str
) -> TransformerEncoder:
    """The encoder with the weights `state`, one to one.

    Raises:
        UserError: A weight is missing, unknown or of another shape, or the width is not the row's.
    """
    steps, rows, _ = architecture.grid
    fitted = fitted_spec(
        spec,
        width=architecture.width,
        num_frames=steps * architecture.tubelet,
        crop=rows * architecture.patch,
        source=source,
    )
    with torch.device("meta"):  # no memory and no random numbers for weights that are about to be replaced
        network = VideoTransformer(architecture)
    official.load(network, state, source=source)
    return TransformerEncoder(network, fitted)
