"""What the network says of a batch, and how distances and candidate segments are read from it.

Training and evaluation decode with the same function, and only the points that they ask for. Shapes: B videos, C
classes, T steps of a level, P points of all levels, R bins; times are steps of the finest level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """The outputs at one level of the pyramid, logits 0 on padding."""

    stride: int
    mask: Tensor  # [B, 1, T] bool
    classes: Tensor  # [B, C, T] logits
    offsets: Tensor  # [B, 2 (R + 1), T] added to boundary logits; [B, 2, T] the distances, without Trident head
    starts: Tensor | None = None  # [B, C, T] logits
    ends: Tensor | None = None

    def __len__(self) -> int:
        return self.mask.shape[2]


@dataclass(frozen=True)
class Detections:
    """Scored segments of one video."""

    segments: Tensor  # [n, 2] float32
    scores: Tensor  # [n] float32
    labels: Tensor  # [n] int64


def expected_distances(starts: Tensor, ends: Tensor, offsets: Tensor) -> Tensor:  # -> [..., 2]
    """Relative boundary expectation: distances to start and end, in steps of the level, each in [0, R].

    Args:
        starts: [..., R + 1] start logits of the steps t - R .. t.
        ends: [..., R + 1] end logits of the steps t .. t + R.
        offsets: [..., 2 (R + 1)] what the point t adds to them.

    A side whose logits aren't finite is 0. Source: section 3.4 of the paper.
    """
    num_bins = starts.shape[-1] - 1
    bins = torch.arange(num_bins + 1, dtype=starts.dtype, device=starts.device)
    at_start, at_end = offsets.unflatten(-1, (2, num_bins + 1)).unbind(-2)
    left = torch.softmax(starts + at_start, dim=-1) @ (num_bins - bins)
    right = torch.softmax(ends + at_end, dim=-1) @ bins
    return torch.stack([left, right], dim=-1).nan_to_num(nan=0.0)


def distances(levels: Sequence[Level], video: Tensor, point: Tensor, label: Tensor) -> Tensor:  # 3 x [M] -> [M, 2]
    """Predicted distances to start and end of `label` at points, in steps of their levels.

    Bins outside the video have logit 0, as its padding does.
    """
    offsets = torch.cat([level.offsets for level in levels], dim=2)[video, :, point]
    if levels[0].starts is None:
        return offsets
    num_bins = offsets.shape[1] // 2 - 1
    # Every level is preceded (starts) or followed (ends) by R zeros, so that the windows of its step t begin at the
    # t-th of its columns in both.
    starts = torch.cat([F.pad(level.starts, (num_bins, 0)) for level in levels], dim=2)
    ends = torch.cat([F.pad(level.ends, (0, num_bins)) for level in levels], dim=2)
    columns = torch.arange(starts.shape[2], device=point.device).split([len(level) + num_bins for level in levels])
    first = torch.cat([column[: len(level)] for column, level in zip(columns, levels, strict=True)])
    window = first[point, None] + torch.arange(num_bins + 1, device=point.device)  # [M, R + 1]
    where = (video[:, None], label[:, None], window)
    return expected_distances(starts[where], ends[where], offsets)


def candidates(levels: Sequence[Level], *, min_score: float, per_level: int, min_length: float) -> list[Detections]:
    """Each video's best points as segments, level by level, best first within a level.

    Args:
        min_score: Only scores above it.
        per_level: At most so many of a level and video.
        min_length: Only segments that are longer.
    """
    num_classes = levels[0].classes.shape[1]
    scores, pairs, times = [], [], []
    passed = 0
    for level in levels:
        each = (level.classes.sigmoid() * level.mask).transpose(1, 2).flatten(1)  # [B, T C]
        each, order = each.sort(dim=1, descending=True, stable=True)
        scores.append(each[:, :per_level])
        pairs.append(order[:, :per_level] + passed * num_classes)
        passed += len(level)
        times.append(torch.arange(len(level), device=each.device) * level.stride)
    score, pair = torch.cat(scores, dim=1), torch.cat(pairs, dim=1)
    video, rank = (score > min_score).nonzero(as_tuple=True)
    score, pair = score[video, rank], pair[video, rank]
    point, label = pair // num_classes, pair % num_classes

    strides = torch.cat([torch.full_like(time, level.stride) for time, level in zip(times, levels, strict=True)])
    reach = distances(levels, video, point, label) * strides[point, None]
    time = torch.cat(times)[point]
    segments = torch.stack([time - reach[:, 0], time + reach[:, 1]], dim=1)
    long_enough = segments[:, 1] - segments[:, 0] > min_length
    video, segments, score, label = (each[long_enough] for each in (video, segments, score, label))
    counts = video.bincount(minlength=len(levels[0].mask)).tolist()
    return [
        Detections(*parts) for parts in zip(*(each.split(counts) for each in (segments, score, label)), strict=True)
    ]
