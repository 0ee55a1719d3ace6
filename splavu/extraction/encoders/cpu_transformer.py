"""A video transformer as a CPU computes it fast: the function of the network it was taken from, by other kernels.

One would expect a faster network to be another network. The weights are the same, and in float32 features move by
rounding only (some 1e-6). What differs is how they are computed:

- Levels go in, not normalised pixels: scale, mean and deviation are folded into the patch embedding, which is one
  matrix product over patches laid out as the decoder gives them, channels last, in place of a convolution.
- Matrix products are oneDNN's. torch gives those of float32 to MKL, which does half as well on processors of AMD's.
- Queries, keys and values are one product. Attention over few tokens is two batched products and a softmax.
- bf16 is chosen for the products alone, and weights are rounded to it once, not by `autocast` in every call. Sums along
  the residual stream, LayerNorms and the mean over the tokens stay in float32, and levels are whole numbers, exact.

Letters: B clips, S tokens of one clip, D width, h heads; T frames of a clip, t, r, c time steps, rows and columns of
tokens. S tokens attend to the tokens of their own clip.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from splavu.data.encoders import Preprocessing
from splavu.runtime.environment import PRECISIONS

FEW_TOKENS = 256
"""Up to here the S x S weights of all heads fit the cache, and are made at once."""

MIDDLE = 128
"""Subtracted from the levels, so that they lie around 0 and rounded weights err less."""


class CPUTransformer:
    """Clips of uint8 levels to features. Not a module: its weights are copies, or views of another network's.

    Args:
        state: Weights by the official names (`blocks.0.attn.qkv.weight`), on the CPU; `norm` or `fc_norm` at the end.
        positions: Of each token, [S, D].
        num_heads: Of each block.
        eps: Of all LayerNorms.
        preprocessing: Its mean and deviation are folded into the first weights.
        precision: 'fp32' or 'bf16', of the matrix products.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        *,
        positions: Tensor,
        num_heads: int,
        eps: float,
        preprocessing: Preprocessing,
        precision: str,
    ) -> None:
        self._dtype = PRECISIONS[precision] or torch.float32
        self._num_heads, self._eps, self._positions = num_heads, eps, positions
        self._state = {name: self._kept(name, weight) for name, weight in state.items()}
        self._depth = sum(name.endswith("mlp.fc1.weight") for name in state)
        kernel = state["patch_embed.proj.weight"]  # [D, 3, frames, rows, columns] of a patch
        self._patch = tuple(kernel.shape[2:])
        weight, bias = _of_levels(kernel, state["patch_embed.proj.bias"], preprocessing)
        self._embedding = self._kept("patch_embed.proj.weight", weight), bias.to(self._dtype)

    def __call__(self, clips: Tensor) -> Tensor:  # [B, T, H, W, 3] uint8 -> [B, D] float32
        tokens = linear(self._patches(clips), *self._embedding).float()  # [B * S, D]
        tokens = tokens.view(len(clips), -1, tokens.shape[-1]).add_(self._positions).flatten(0, 1)
        for block in range(self._depth):
            name = f"blocks.{block}."
            tokens += self._product(self._attended(tokens, len(clips), name), f"{name}attn.proj")
            hidden = self._product(self._normalised(tokens, f"{name}norm2"), f"{name}mlp.fc1")
            tokens += self._product(F.gelu(hidden), f"{name}mlp.fc2")
        tokens = tokens.view(len(clips), -1, tokens.shape[-1])
        if "norm.weight" in self._state:
            return self._layer_norm(tokens, "norm").mean(dim=1)
        return self._layer_norm(tokens.mean(dim=1), "fc_norm")

    def _kept(self, name: str, weight: Tensor) -> Tensor:
        if "norm" in name:
            return weight
        # In float32, packing would keep every weight twice, for one per cent.
        is_packed = weight.dim() == 2 and self._dtype == torch.bfloat16 and _has_onednn(self._dtype)
        return packed(weight.to(self._dtype)) if is_packed else weight.to(self._dtype)

    def _patches(self, clips: Tensor) -> Tensor:  # [B, T, H, W, 3] uint8 -> [B * S, length of a patch]
        frames, rows, columns = self._patch
        cut = clips.unflatten(1, (-1, frames)).unflatten(3, (-1, rows)).unflatten(5, (-1, columns))
        patches = cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, frames * rows * columns * 3)
        return patches.bitwise_xor(MIDDLE).view(torch.int8).to(self._dtype)  # the bits of level - 128

    def _attended(self, tokens: Tensor, num_clips: int, block: str) -> Tensor:  # [B * S, D] -> [B * S, D]
        qkv = self._product(self._normalised(tokens, f"{block}norm1"), f"{block}attn.qkv")
        qkv = qkv.view(num_clips, -1, 3, self._num_heads, tokens.shape[-1] // self._num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, h, S, D/h]
        if query.shape[2] > FEW_TOKENS:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            query, key, value = (some.flatten(0, 1) for some in (query, key, value))
            weights = torch.baddbmm(
                query.new_zeros(()), query, key.transpose(1, 2), beta=0, alpha=query.shape[-1] ** -0.5
            ).softmax(dim=-1)
            mixed = torch.bmm(weights, value).unflatten(0, (num_clips, -1))
        return mixed.transpose(1, 2).reshape(tokens.shape)

    def _normalised(self, tokens: Tensor, name: str) -> Tensor:
        return self._layer_norm(tokens, name).to(self._dtype)

    def _layer_norm(self, tokens: Tensor, name: str) -> Tensor:
        return F.layer_norm(
            tokens, tokens.shape[-1:], self._state[f"{name}.weight"], self._state[f"{name}.bias"], self._eps
        )

    def _product(self, rows: Tensor, name: str) -> Tensor:
        return linear(rows, self._state[f"{name}.weight"], self._state[f"{name}.bias"])


def _of_levels(
    kernel: Tensor, bias: Tensor, preprocessing: Preprocessing
) -> tuple[Tensor, Tensor]:  # [D, 3, f, r, c], [D] -> [D, f * r * c * 3], [D]
    """Weights that give for (level - 128), channels last, what `kernel` gives for normalised pixels."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    exact = kernel.double()
    offset = (exact * ((MIDDLE / 255 - mean) / std)).sum(dim=(1, 2, 3, 4))
    weight = (exact / (255 * std)).movedim(1, -1).flatten(1)
    return weight.float(), (bias.double() + offset).float()


def linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [n, i], [o, i], [o] -> [n, o]
    """`F.linear`, by the faster library; `weight` may be `packed`."""
    if weight.is_mkldnn or (rows.dtype == torch.float32 and _has_onednn(rows.dtype)):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return F.linear(rows, weight, bias)


def packed(weight: Tensor, num_rows: int = 1024) -> Tensor:  # [o, i]
    """A copy for `linear` alone, laid out as oneDNN reads it, which it otherwise does again in every call.

    Args:
        num_rows: For how many rows the layout is chosen. It works for any number.
    """
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), num_rows)


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there for this type and its products are the faster ones.

    In bf16 torch calls it by itself, though only by these operators with packed weights; in float32 it calls MKL.
    """
    if platform.machine() not in {"x86_64", "AMD64"} or not torch.backends.mkldnn.is_available():
        return False
    operators = torch.ops.mkldnn
    if not (hasattr(operators, "_linear_pointwise") and hasattr(operators, "_reorder_linear_weight")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and operators._is_mkldnn_bf16_supported())
