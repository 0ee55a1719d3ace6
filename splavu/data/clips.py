"""A data set of clip features, and which clips of which videos a pass over it draws.

A draw is a pure function of (seed, epoch, video), so there is no generator whose state a resumed run would have to
restore, and the order in which videos are read doesn't matter.

Letters: V videos, B videos of a batch, M clips drawn of each, D feature width, A private attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from splavu.data.feature_cache import open_table
from splavu.errors import UserError
from splavu.runtime.environment import derived_seed
from splavu.stores import FeatureReader


@dataclass(frozen=True)
class RandomClip:
    """Training: one clip per video, drawn again in each epoch."""

    def choose(self, num_clips: NDArray, noise: Callable[[int], NDArray]) -> NDArray:  # [B] -> [B]
        return (noise(0) * num_clips).astype(np.int64)


@dataclass(frozen=True)
class EvenClips:
    """Evaluation: `count` evenly spaced clips ("modes") of each video; short videos repeat some."""

    count: int = 5

    def choose(self, num_clips: NDArray, noise: Callable[[int], NDArray]) -> NDArray:  # [B] -> [B, M]
        places = np.linspace(0.0, 1.0, self.count) if self.count > 1 else np.array([0.5])
        return np.rint(places * (num_clips[:, None] - 1)).astype(np.int64)


@dataclass(frozen=True)
class ClipBatch:
    """What a step reads: a global batch, or one process's slice of it. Fields that weren't requested are None."""

    clips: Tensor
    """[B, D] or, for evenly spaced clips, [B, M, D], float32."""
    labels: Tensor | None
    """[B] int64 classes or [B, A] float32 attributes."""
    videos: NDArray
    """[B] int64: their indices in `keys`."""
    keys: Sequence[str] = field(repr=False)
    """Names of all videos of the data set."""
    num_total: int
    """Videos of the global batch: a loss is the sum over this slice divided by it."""
    static_pairs: Tensor | None = None
    """[B, 2, D]: two different static clips of each video."""

    @property
    def names(self) -> tuple[str, ...]:
        """The videos by name."""
        return tuple(self.keys[int(video)] for video in self.videos)

    def __len__(self) -> int:
        return len(self.clips)

    def to(self, device: torch.device) -> ClipBatch:
        moved = {
            name: value.to(device, non_blocking=True)
            for name in ("clips", "labels", "static_pairs")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Draws:
    """Rows of a data set's tables that were drawn for some videos."""

    videos: NDArray
    """[B]"""
    clips: NDArray
    """[B] or [B, M]"""
    static_pairs: NDArray | None
    """[B, 2]"""


class FeatureDataset(Dataset):
    """Videos with features, labels and, on demand, pairs of static clips.

    An item is `(features, label, name)`, with static clips `(features, label, name, pair [2, D])`.

    Args:
        store: Clip features, [K, D] or [D] per video.
        keys: The videos, in the order of the data set.
        labels: Class or attribute vector by key; None where labels aren't used.
        draw: Which clips of a video are drawn.
        static: Static-clip features, [P, D] per video with P >= 2.
        seed: Seed of the draws.
        cache: Where large stores are cached (`splavu.data.feature_cache`); None takes `.packed/` beside them.

    Attributes:
        provenance: The store's attributes.
        clips: The table of clips, `static` that of static clips or None.
        labels: [V] int64 or [V, A] float32, or None.
    """

    def __init__(
        self,
        store: FeatureReader,
        keys: Sequence[str],
        *,
        labels: Mapping[str, Any] | None = None,
        draw: RandomClip | EvenClips = RandomClip(),
        static: FeatureReader | None = None,
        seed: int = 0,
        cache: Path | None = None,
    ) -> None:
        self.keys = list(keys)
        self.draw, self.seed, self.epoch = draw, seed, 0
        self.provenance = dict(store.attributes)
        self.clips = open_table(store, self.keys, cache=cache)
        self.static = None if static is None else open_table(static, self.keys, cache=cache)
        if static is not None and self.static is not None and (self.static.num_clips < 2).any():
            video = self.keys[int(np.argmin(self.static.num_clips))]
            raise UserError(static.path, f"'{video}' has one static clip, a pair takes two", "extract 10 per video")
        self.labels = None if labels is None else _as_array([labels[key] for key in self.keys])

    @property
    def feature_dim(self) -> int:
        """D."""
        return self.clips.feature_dim

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of `epoch` for items and batches, as with torch's DistributedSampler."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple:
        batch = self.batch([index])
        item = (batch.clips[0], None if batch.labels is None else batch.labels[0], batch.names[0])
        return item if batch.static_pairs is None else (*item, batch.static_pairs[0])

    def batch(self, indices: Sequence[int]) -> ClipBatch:
        """The videos at `indices`, drawn and stacked."""
        draws = self.drawn(np.asarray(indices, dtype=np.int64), self.epoch)
        return ClipBatch(
            clips=torch.from_numpy(self.clips.rows[draws.clips]),
            labels=None if self.labels is None else torch.from_numpy(self.labels[draws.videos]),
            videos=draws.videos,
            keys=self.keys,
            static_pairs=None if self.static is None else torch.from_numpy(self.static.rows[draws.static_pairs]),
            num_total=len(draws.videos),
        )

    def drawn(self, videos: NDArray, epoch: int) -> Draws:  # [B]
        """The draws of `epoch` for the videos at these places; nothing is read."""

        def noise(stream: int) -> NDArray:  # [B] in [0, 1)
            return uniform(derived_seed(self.seed, epoch, stream), videos)

        clips = self.draw.choose(self.clips.num_clips[videos], noise)  # [B] or [B, M]
        clips = clips + self.clips.start[videos].reshape(-1, *[1] * (clips.ndim - 1))
        pairs = None
        if self.static is not None:
            pool = self.static.num_clips[videos]  # [B]
            first = (noise(1) * pool).astype(np.int64)
            second = (first + 1 + (noise(2) * (pool - 1)).astype(np.int64)) % pool  # any but the first
            pairs = self.static.start[videos, None] + np.stack([first, second], axis=1)
        return Draws(videos, clips, pairs)


def uniform(seed: int, counters: NDArray) -> NDArray:  # [B] int -> [B] float64 in [0, 1)
    """A random number for each counter, by hashing instead of drawing in sequence (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def _as_array(labels: list[Any]) -> NDArray:
    array = np.asarray(labels)
    return array.astype(np.float32 if array.ndim > 1 else np.int64)
