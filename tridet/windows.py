"""Which part of a video a training step sees, and which of its actions stay in it.

All lengths are steps of the feature grid; a segment may start below 0 or end after the sequence. The random choices
come from the generator that is passed, in the published order, so a seed gives the published windows.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """Part of a sequence, and which of its N segments stay in it."""

    start: int
    width: int
    kept: Tensor  # [N] bool


def coverage(segments: Tensor, start: int, width: int) -> Tensor:  # [N, 2] -> [N]
    """The share of each segment that lies in the window, in the segments' own precision."""
    left, right = segments[:, 0].clamp(min=start), segments[:, 1].clamp(max=start + width)
    return (right - left).clamp(min=0) / (segments[:, 1] - segments[:, 0]).abs()


def random_window(
    length: int,
    segments: Tensor,  # [N, 2]
    *,
    max_seq_len: int,
    trunc_thresh: float,
    crop_ratio: tuple[float, float] | None = None,
    generator: random.Random,
    max_trials: int = 200,
    around_action: bool = True,
) -> Window | None:
    """Draw the part of a sequence that a training step sees; None is the whole of it.

    A sequence above `max_seq_len` gives a window of that length; a shorter one gives `crop_ratio` of itself. Positions
    are drawn until the window covers `trunc_thresh` of some segment, at most `max_trials` times. A sequence without
    segments takes the first. The draws (width if it varies, then a start each trial) are the published ones.

    Args:
        around_action: If no trial succeeds, lay the window over a random segment and keep that one, even cut. The
            public release (False) takes the last trial, a window said to hold no action.
    """
    if length > max_seq_len:
        width = max_seq_len
    elif crop_ratio is None:
        return None
    else:
        low, high = max(round(crop_ratio[0] * length), 1), min(round(crop_ratio[1] * length), length)
        width = generator.randint(low, high)
        if width == length:
            return None
    for _ in range(max_trials):
        start = generator.randint(0, length - width)
        kept = coverage(segments, start, width) >= trunc_thresh
        if kept.any() or not len(segments):
            return Window(start, width, kept)
    reachable = torch.nonzero((segments[:, 0] < length) & (segments[:, 1] > 0)).flatten().tolist()
    if around_action and reachable:
        chosen = generator.choice(reachable)
        first, last = segments[chosen].tolist()
        bounds = sorted((math.ceil(last) - width, math.floor(first)))  # covering the segment, or lying within it
        start = generator.randint(*(min(max(bound, 0), length - width) for bound in bounds))
        kept = coverage(segments, start, width) >= trunc_thresh
        kept[chosen] = True
    return Window(start, width, kept)


def cut(segments: Tensor, labels: Tensor, window: Window) -> tuple[Tensor, Tensor]:  # [N, 2], [N] -> [M, 2], [M]
    """The segments that stay in the window, clipped to it and counted from its start, and their labels."""
    clipped = segments.clamp(window.start, window.start + window.width) - window.start
    return clipped[window.kept], labels[window.kept]
