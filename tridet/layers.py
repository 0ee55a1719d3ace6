"""Layers on masked time lines: convolution, normalisation, the SGP layer and a plain residual block.

Shapes: B videos, D feature width, T time steps; a mask is [B, 1, T] and true where the video is. As published, a mask
hides padding from a layer's output only: statistics, pooling and kernels still see what a normalisation wrote there, so
scores depend on how far a video is padded. With `mask_padding` they don't.

Source: Shi et al., TriDet, CVPR 2023; parameter names and shapes are those of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

GROUPS = 16  # of the SGP layers' group normalisation; their width is a multiple of it


class MaskedConv(nn.Module):
    """A convolution of odd kernel that keeps the length (up to the stride) and clears the padding of its output."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.conv = nn.Conv1d(width_in, width_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)
        if bias:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # [B, D, T] -> [B, D', T / stride]
        """The convolved time line and its mask; T must be a multiple of the stride."""
        if self.mask_padding:
            x = x * mask
        mask = mask[..., :: self.conv.stride[0]]
        return self.conv(x) * mask, mask


EPSILON = 1e-5  # of the normalisation


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each time step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, width, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:  # [B, D, T] -> [B, D, T]
        # Under autocast a convolution answers in half precision, whose squares overflow.
        return _ChannelNorm.apply(x.to(torch.promote_types(x.dtype, torch.float32)), self.weight, self.bias)


class _ChannelNorm(torch.autograd.Function):
    """Normalisation and its gradient in the memory layout that convolutions want.

    The fused kernel of torch normalises the last dimension; turning the time lines there and back for each of the
    network's normalisations makes a training step on a CPU half as long again.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + EPSILON)
        normalised = centred.mul_(scale)
        ctx.save_for_backward(normalised, scale, weight)
        return torch.addcmul(bias, normalised, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normalised, scale, weight = ctx.saved_tensors
        of_weight = (gradient * normalised).sum(dim=(0, 2), keepdim=True)
        of_bias = gradient.sum(dim=(0, 2), keepdim=True)
        gradient = gradient * weight
        shift = gradient.mean(dim=1, keepdim=True)
        stretch = (gradient * normalised).mean(dim=1, keepdim=True)
        of_x = gradient.sub_(shift).addcmul_(normalised, stretch, value=-1).mul_(scale)
        return of_x, of_weight, of_bias


class DepthwiseConv(nn.Conv1d):
    """A kernel for each channel; of size 1 it is a scale and a shift, computed as such."""

    def __init__(self, width: int, kernel: int, *, std: float) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=width)
        nn.init.normal_(self.weight, std=std)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # [B, D, T] -> [B, D, T]
        if self.kernel_size == (1,):
            return torch.addcmul(self.bias[:, None], x, self.weight[:, 0])
        return super().forward(x)


class DropPath(nn.Module):
    """A learned scale for each channel; in training, a residual branch is left out for some videos at random."""

    def __init__(self, width: int, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.scale = nn.Parameter(torch.full((1, width, 1), 1e-4))

    def forward(self, x: Tensor) -> Tensor:  # [B, D, T] -> [B, D, T]
        x = self.scale * x
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        return x / kept * torch.floor(kept + torch.rand((len(x), 1, 1), dtype=x.dtype, device=x.device))


def large_kernel(window: int, ratio: float) -> int:
    """Size of an SGP layer's large kernel: (window + 1) ratio, rounded half to even, then up to the next odd number."""
    size = round((window + 1) * ratio)
    return size + (size % 2 == 0)


class SGP(nn.Module):
    """Scalable-granularity perception: an instant-level and a window-level branch, then a two-layer perceptron.

    Args:
        width: D, a multiple of 16.
        window: Odd size w of the small kernel; the large one follows from `ratio`.
        stride: More than 1 pools the input first.
        hidden: Width of the perceptron; None is 4 D.
        drop_path: Probability; 0 leaves the two scales out of the parameters.
        downsample: 'max', or 'avg' followed by a dense layer.
        std: Of the depth-wise kernels at the start. At 0, as published, both factors of both branches are zero and get
            no gradient, ever (defect D1); see `dead_parameters`.
    """

    def __init__(
        self,
        width: int,
        *,
        window: int = 1,
        ratio: float = 1.5,
        stride: int = 1,
        hidden: int | None = None,
        drop_path: float = 0.0,
        downsample: str = "max",
        std: float = 0.0,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.mask_padding = stride, mask_padding
        self.ln = ChannelNorm(width)
        self.gn = nn.GroupNorm(GROUPS, width)
        self.psi = DepthwiseConv(width, window, std=std)
        self.fc = DepthwiseConv(width, 1, std=std)
        self.convw = DepthwiseConv(width, window, std=std)
        self.convkw = DepthwiseConv(width, large_kernel(window, ratio), std=std)
        self.global_fc = DepthwiseConv(width, 1, std=std)
        if stride > 1:
            self.downsample = (
                nn.MaxPool1d(stride + 1, stride=stride, padding=(stride + 1) // 2)
                if downsample == "max"
                else nn.Sequential(nn.AvgPool1d(stride), _dense(width, width))
            )
        hidden = 4 * width if hidden is None else hidden
        self.mlp = nn.Sequential(_dense(width, hidden), nn.GELU(), _dense(hidden, width))
        self.drop_path_out = DropPath(width, drop_path) if drop_path > 0 else nn.Identity()
        self.drop_path_mlp = DropPath(width, drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # [B, D, T] -> [B, D, T / stride]
        """The perceived time line, whose padding isn't cleared, and its mask."""
        if self.stride > 1:
            x, mask = self._pool(x, mask)
        seen = mask if self.mask_padding else None
        h = self.ln(x)
        if seen is not None:
            h = h * seen
        instant = self.fc(h) * F.relu(self.global_fc(_mean_over_time(h, seen)))
        windows = (self.convw(h) + self.convkw(h)) * self.psi(h)
        y = mask * x + self.drop_path_out(instant + windows + h)
        return y + self.drop_path_mlp(self.mlp(_group_norm(self.gn, y, seen))), mask

    def _pool(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        pooled_mask = mask[..., :: self.stride]
        if not self.mask_padding:
            return self.downsample(x), pooled_mask
        if isinstance(self.downsample, nn.MaxPool1d):
            pooled = self.downsample(x.masked_fill(~mask, -torch.inf))
            return pooled.masked_fill(~pooled_mask, 0.0), pooled_mask
        average, dense = self.downsample
        share = average(mask.to(x.dtype)).clamp(min=1 / self.stride)  # of the window that is video
        return dense(average(x * mask) / share), pooled_mask


class ConvBlock(nn.Module):
    """The plain backbone's residual block: two masked convolutions, the first twice as wide and maybe strided."""

    def __init__(self, width: int, *, stride: int = 1, mask_padding: bool = False) -> None:
        super().__init__()
        self.conv1 = MaskedConv(width, 2 * width, 3, stride=stride, mask_padding=mask_padding)
        self.conv2 = MaskedConv(2 * width, width, 3, mask_padding=mask_padding)
        self.downsample = MaskedConv(width, width, 1, stride=stride, mask_padding=mask_padding) if stride > 1 else None

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # [B, D, T] -> [B, D, T / stride]
        shortcut = x if self.downsample is None else self.downsample(x, mask)[0]
        x, mask = self.conv1(x, mask)
        x, _ = self.conv2(F.relu(x), mask)
        return F.relu(shortcut + x), mask


def dead_parameters(model: nn.Module) -> int:
    """Number of SGP parameters that can't learn: their gradient is exactly zero, and stays so.

    A branch is a product. The window level is dead while both factors are zero; the instant level while its ReLU is
    given zeros, whatever the other factor is.
    """
    dead: list[nn.Conv1d] = []
    for layer in model.modules():
        if isinstance(layer, SGP):
            window, instant = [layer.psi, layer.convw, layer.convkw], [layer.global_fc]
            dead += window if _are_zero(window) else []
            dead += [*instant, layer.fc] if _are_zero(instant) else []
    return sum(parameter.numel() for conv in dead for parameter in conv.parameters())


def _are_zero(convs: Iterable[nn.Conv1d]) -> bool:
    return not any(bool(parameter.any()) for conv in convs for parameter in conv.parameters())


def _dense(width_in: int, width_out: int) -> nn.Conv1d:
    layer = nn.Conv1d(width_in, width_out, 1)
    nn.init.zeros_(layer.bias)
    return layer


def _mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:  # [B, D, T] -> [B, D, 1]
    """Mean over all steps or, with a mask, over its steps; `x` is zero elsewhere."""
    if mask is None:
        return x.mean(dim=2, keepdim=True)
    return x.sum(dim=2, keepdim=True) / mask.sum(dim=2, keepdim=True)


def _group_norm(norm: nn.GroupNorm, x: Tensor, mask: Tensor | None) -> Tensor:  # [B, D, T] -> [B, D, T]
    """Group normalisation with the statistics of all steps or, with a mask, of its steps."""
    if mask is None:
        return norm(x)
    videos, width, steps = x.shape
    grouped = x.reshape(videos, norm.num_groups, width // norm.num_groups, steps)
    inside = mask[:, None]  # [B, 1, 1, T]
    count = inside.sum(dim=3, keepdim=True) * grouped.shape[2]
    mean = (grouped * inside).sum(dim=(2, 3), keepdim=True) / count
    centred = grouped - mean
    variance = (centred * inside).square().sum(dim=(2, 3), keepdim=True) / count
    normalised = (centred * torch.rsqrt(variance + norm.eps)).reshape_as(x)
    return torch.addcmul(norm.bias[:, None], normalised, norm.weight[:, None])
