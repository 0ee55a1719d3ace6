"""Snippets of a video: pooling to a fixed number of segments, and the magnitude channel.

The magnitude is taken *after* pooling: the norm of a mean, not the mean of norms. All of it is differentiable, so
features that a trainable anonymizer gave are pooled and measured on the way to the network, never before.

Shapes: B videos, N crops, T snippets of a video, L segments, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def segment_edges(num_snippets: int, num_segments: int) -> NDArray[np.int64]:  # -> [L + 1]
    """Edges e_0 .. e_L of the segments: whole parts of L + 1 evenly spaced numbers from 0 to T, both included."""
    return np.floor(np.linspace(0, num_snippets, num_segments + 1)).astype(np.int64)


def pooled(features: Tensor, num_segments: int) -> Tensor:  # [..., T, D] -> [..., L, D]
    """Means of the rows e_i .. e_(i+1) - 1; a segment without rows (T < L) repeats row e_i."""
    num_snippets = features.shape[-2]
    edges = segment_edges(num_snippets, num_segments)
    start = edges[:-1]
    end = np.maximum(edges[1:], start + 1)
    rows = np.arange(num_snippets)
    is_member = (rows >= start[:, None]) & (rows < end[:, None])  # [L, T]
    # A product with a matrix, unlike scattered sums, gives the same bits each time on a GPU too.
    means = torch.from_numpy(is_member / (end - start)[:, None]).to(features)
    return means @ features


def with_magnitude(features: Tensor) -> Tensor:  # [..., D] -> [..., D + 1]
    """The features with their Euclidean norm appended as last channel. The gradient at a zero feature is zero."""
    return torch.cat([features, torch.linalg.vector_norm(features, dim=-1, keepdim=True)], dim=-1)


def crops_first(features: Tensor) -> Tensor:  # [T, D] or [T, N, D] -> [N, T, D]
    """A video as one sequence a crop; a file without a crop axis is one crop."""
    return features.unsqueeze(0) if features.ndim == 2 else features.transpose(0, 1)


def training_batch(videos: Sequence[Tensor], *, num_segments: int = 32) -> Tensor:
    """What the network is trained on: pooled snippets of several videos with their magnitudes.

    Args:
        videos: Each [T, D] or [T, N, D], with its own T and the same N.
        num_segments: L.

    Returns:
        [B, N, L, D + 1], on the device of the features and with their gradient.
    """
    return torch.stack([with_magnitude(pooled(crops_first(video), num_segments)) for video in videos])


def full_length_batch(video: Tensor) -> Tensor:  # [T, D] or [T, N, D] -> [1, N, T, D + 1]
    """What the network is tested on: one video at full length with its magnitudes."""
    return with_magnitude(crops_first(video)).unsqueeze(0)
