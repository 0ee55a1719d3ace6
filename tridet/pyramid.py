"""The feature pyramid: features to levels of ever coarser time (backbone), levels made alike for the heads (neck).

Shapes as in `tridet.layers`; level l has T / scale_factor^l steps. The stem's SGP layers have window 1 whatever the
configuration says of windows, as published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tridet.layers import SGP, ChannelNorm, ConvBlock, MaskedConv
from tridet.schema import Config


class Backbone(nn.Module):
    """Embedding convolutions, stem layers on the full grid, then one strided branch layer a coarser level."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        num_embedding, num_stem, num_branch = model.backbone_arch
        widths = [config.dataset.input_dim] + [model.embd_dim] * num_embedding
        self.embd = nn.ModuleList(
            MaskedConv(
                width_in,
                model.embd_dim,
                model.embd_kernel_size,
                bias=not model.embd_with_ln,
                mask_padding=model.mask_padding,
            )
            for width_in in widths[:-1]
        )
        self.embd_norm = nn.ModuleList(
            ChannelNorm(model.embd_dim) if model.embd_with_ln else nn.Identity() for _ in range(num_embedding)
        )
        self.stem = nn.ModuleList(_block(config) for _ in range(num_stem))
        self.branch = nn.ModuleList(_block(config, level=level + 1) for level in range(num_branch))
        self.has_positions = model.use_abs_pe and model.backbone_type == "SGP"
        if self.has_positions:
            table = position_table(config.dataset.max_seq_len, model.embd_dim)
            self.register_buffer("positions", table, persistent=False)  # checkpoints hold parameters only

    def forward(self, x: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:  # [B, D, T] -> L x [B, D', T_l]
        """The levels, fine to coarse, and their masks."""
        x = self.embed(x, mask)
        for layer in self.stem:
            x, mask = layer(x, mask)
        levels, masks = [x], [mask]
        for layer in self.branch:
            x, mask = layer(x, mask)
            levels.append(x)
            masks.append(mask)
        return levels, masks

    def embed(self, x: Tensor, mask: Tensor) -> Tensor:  # [B, D, T] -> [B, D', T]
        """The embedded features, with their positions if the configuration says so."""
        for conv, norm in zip(self.embd, self.embd_norm, strict=True):
            x = F.relu(norm(conv(x, mask)[0]))
        if not self.has_positions:
            return x
        table, steps = self.positions, x.shape[2]
        if not self.training and steps > table.shape[2]:
            table = F.interpolate(table, steps, mode="linear", align_corners=False)
        return x + table[..., :steps] * mask


def position_table(steps: int, width: int) -> Tensor:  # [1, D, T]
    """Sines on even and cosines on odd channels, divided by sqrt(D)."""
    channel = torch.arange(width, dtype=torch.float64)[:, None]
    angle = torch.arange(steps, dtype=torch.float64) / 10000 ** (2 * (channel // 2) / width)
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos()) / math.sqrt(width)
    return table.float()[None]


class IdentityNeck(nn.Module):
    """Each level as it is, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.fpn_norms = _norms(config)

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        return [norm(level) for norm, level in zip(self.fpn_norms, levels, strict=True)]


class FPN(nn.Module):
    """Coarse levels added to finer ones, then a depth-wise convolution and a normalisation a level."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        self.scale_factor = model.scale_factor
        options = {"bias": not model.fpn_with_ln, "mask_padding": model.mask_padding}
        self.lateral_convs = nn.ModuleList(
            MaskedConv(model.embd_dim, model.fpn_dim, 1, **options) for _ in config.strides
        )
        self.fpn_convs = nn.ModuleList(
            MaskedConv(model.fpn_dim, model.fpn_dim, 3, groups=model.fpn_dim, **options) for _ in config.strides
        )
        self.fpn_norms = _norms(config)

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        lateral = [conv(x, mask)[0] for conv, x, mask in zip(self.lateral_convs, levels, masks, strict=True)]
        for level in range(len(lateral) - 1, 0, -1):
            lateral[level - 1] = lateral[level - 1] + lateral[level].repeat_interleave(self.scale_factor, dim=2)
        layers = zip(self.fpn_convs, self.fpn_norms, lateral, masks, strict=True)
        return [norm(conv(x, mask)[0]) for conv, norm, x, mask in layers]


def build_neck(config: Config) -> IdentityNeck | FPN:
    """The neck that `model.fpn_type` names."""
    return {"identity": IdentityNeck, "fpn": FPN}[config.model.fpn_type](config)


def _norms(config: Config) -> nn.ModuleList:
    model = config.model
    return nn.ModuleList(ChannelNorm(model.fpn_dim) if model.fpn_with_ln else nn.Identity() for _ in config.strides)


def _block(config: Config, *, level: int = 0) -> SGP | ConvBlock:
    """A layer of the stem (level 0) or the branch layer that makes a level."""
    model = config.model
    stride = model.scale_factor if level else 1
    if model.backbone_type == "conv":
        return ConvBlock(model.embd_dim, stride=stride, mask_padding=model.mask_padding)
    return SGP(
        model.embd_dim,
        window=config.windows[level] if level else 1,
        ratio=model.k,
        stride=stride,
        hidden=model.sgp_mlp_dim,
        drop_path=config.train_cfg.droppath if level else 0.0,
        downsample=model.downsample_type,
        std=model.init_conv_vars,
        mask_padding=model.mask_padding,
    )
