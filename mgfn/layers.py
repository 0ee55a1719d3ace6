"""Blocks of the network, with the public program's parameter names: channel norm, feed-forward, glance, focus.

Every block maps [S, C, T] -> [S, C, T]: S sequences (crops of videos), C channels, T time steps. Heads are laid out
in opposite ways: in `Glance` channel = head * width + i, in `Focus` channel = i * heads + head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Normalises each time step over its channels; epsilon is added to the standard deviation, not to the variance."""

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.g = nn.Parameter(torch.ones(1, channels, 1))
        self.b = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:  # [S, C, T] -> [S, C, T]
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        # The root of zero has no finite gradient; the smallest normal number adds nothing beside epsilon.
        deviation = variance.clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        return (x - mean) / (deviation + self.eps) * self.g + self.b


class FeedForward(nn.Sequential):
    """Two 1x1 convolutions around an exact GELU, normalised in front."""

    def __init__(self, channels: int, *, expansion: int = 4, dropout: float = 0.0) -> None:
        super().__init__(
            ChannelNorm(channels),
            nn.Conv1d(channels, expansion * channels, 1),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv1d(expansion * channels, channels, 1),
        )


class Glance(nn.Module):
    """Attention of every time step to all time steps of its sequence: no positions, no mask."""

    def __init__(self, channels: int, *, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv1d(channels, 3 * heads * dim_head, 1, bias=False)
        self.to_out = nn.Conv1d(heads * dim_head, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # [S, C, T] -> [S, C, T]
        qkv = self.to_qkv(self.norm(x)).unflatten(1, (3, self.heads, -1)).mT  # [S, 3, H, T, W]
        # The fused kernel never holds the T x T map, which for long videos would be the largest tensor of all.
        mixed = F.scaled_dot_product_attention(*qkv.unbind(dim=1))  # [S, H, T, W]
        return self.to_out(mixed.mT.flatten(1, 2))


class Focus(nn.Module):
    """A short temporal kernel for each head, shared by the head's channels."""

    def __init__(self, channels: int, *, heads: int, dim_head: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.BatchNorm1d(channels)
        self.to_v = nn.Conv1d(channels, heads * dim_head, 1, bias=False)
        self.rel_pos = nn.Conv1d(heads, heads, kernel_size, padding=kernel_size // 2, groups=heads)
        self.to_out = nn.Conv1d(heads * dim_head, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # [S, C, T] -> [S, C, T]
        values = self.to_v(self.norm(x))  # [S, W * H, T]
        sequences, _, time = values.shape
        mixed = self.rel_pos(values.reshape(-1, self.heads, time))  # [S * W, H, T]
        return self.to_out(mixed.reshape(sequences, -1, time))


BLOCKS = {"gb": Glance, "fb": Focus}
"""Block types by the names of the options."""


class Stage(nn.Module):
    """Layers of convolution, block and feed-forward, each added to what it reads."""

    def __init__(self, channels: int, *, depth: int, block: str, dim_head: int) -> None:
        super().__init__()
        heads = channels // dim_head
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Conv1d(channels, channels, 3, padding=1),
                    BLOCKS[block](channels, heads=heads, dim_head=dim_head),
                    FeedForward(channels),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:  # [S, C, T] -> [S, C, T]
        for layer in self.layers:
            for part in layer:
                x = x + part(x)
        return x
