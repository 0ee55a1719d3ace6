"""The heads, each shared by all pyramid levels: class, start and end logits, and offsets from the centre.

Shapes as in `tridet.layers`; C classes, L levels. Logits are exactly 0 on padding, which the decoding of
`tridet.predictions` relies on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tridet.layers import ChannelNorm, MaskedConv
from tridet.schema import Config

EMPTY_CLASS_PRIOR = 1e-6


class Tower(nn.Module):
    """The convolutions before a head's last one."""

    def __init__(self, config: Config, *, kernel: int) -> None:
        super().__init__()
        model = config.model
        widths = [model.fpn_dim] + [model.head_dim] * (model.head_num_layers - 1)
        self.head = nn.ModuleList(
            MaskedConv(width_in, model.head_dim, kernel, bias=not model.head_with_ln, mask_padding=model.mask_padding)
            for width_in in widths[:-1]
        )
        self.norm = nn.ModuleList(
            ChannelNorm(model.head_dim) if model.head_with_ln else nn.Identity() for _ in widths[:-1]
        )
        self.width = widths[-1]

    def features(self, x: Tensor, mask: Tensor) -> Tensor:  # [B, D, T] -> [B, D', T]
        for conv, norm in zip(self.head, self.norm, strict=True):
            x = F.relu(norm(conv(x, mask)[0]))
        return x


class ClassHead(Tower):
    """A logit a class; for the class itself, or for its start or end at each step.

    The bias starts where a class is as probable as `cls_prior_prob`; for `head_empty_cls`, which have no example, as
    1e-6.
    """

    def __init__(self, config: Config, *, kernel: int) -> None:
        super().__init__(config, kernel=kernel)
        self.cls_head = MaskedConv(
            self.width, config.dataset.num_classes, kernel, mask_padding=config.model.mask_padding
        )
        prior = torch.full((config.dataset.num_classes,), config.train_cfg.cls_prior_prob, dtype=torch.float64)
        prior[list(config.train_cfg.head_empty_cls)] = EMPTY_CLASS_PRIOR
        with torch.no_grad():
            self.cls_head.conv.bias.copy_(torch.logit(prior))

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:  # L x [B, C, T_l]
        return [self.cls_head(self.features(x, mask), mask)[0] for x, mask in zip(levels, masks, strict=True)]


class OffsetHead(Tower):
    """What a step adds to the boundary logits around it: 2 (R + 1) of them, start side first, none negative.

    Without the Trident head the two outputs are the distances to start and end, in steps of the level.
    """

    def __init__(self, config: Config, *, kernel: int) -> None:
        super().__init__(config, kernel=kernel)
        model = config.model
        self.scale = nn.ModuleList(Scale() for _ in config.strides)
        num_outputs = 2 * (model.num_bins + 1) if model.use_trident_head else 2
        self.offset_head = MaskedConv(self.width, num_outputs, kernel, mask_padding=model.mask_padding)

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:  # L x [B, 2 (R + 1), T_l]
        return [
            F.relu(scale(self.offset_head(self.features(x, mask), mask)[0]))
            for scale, x, mask in zip(self.scale, levels, masks, strict=True)
        ]


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
