"""The rules that cut a video into clips: 16 consecutive frames, or one frame tiled to 16.

One would expect padded clips. There are none: the remainder after the last whole clip is dropped, and only a video
shorter than one clip is filled up, by repeating its last frame (spec: splavu, 4). Clips overlap only where a stride
shorter than a clip is asked for.

Letters: K clips of one video, T frames of a clip, n frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor


def cut_clips(
    batches: Iterable[Tensor], num_frames: int, *, stride: int | None = None
) -> Iterator[Tensor]:  # [n, ...] -> [K, T, ...]
    """Clips of consecutive frames that arrive in batches of any size; one begins every `stride` frames.

    Yields as many whole clips as each batch completes, as views of its frames. Frames after the last whole clip are
    dropped; if there is not even one clip, the last frame is repeated to fill it. No frames give no clip.

    Args:
        batches: Frames in order.
        num_frames: Length T of a clip.
        stride: 1 to `num_frames`; by default `num_frames`, so that clips do not overlap.
    """
    stride = stride or num_frames
    rest: Tensor | None = None
    any_clip = False
    for batch in batches:
        frames = batch if rest is None else torch.cat([rest, batch])
        count = max(0, (len(frames) - num_frames) // stride + 1)
        if count:
            yield frames.unfold(0, num_frames, stride).movedim(-1, 1)
            any_clip = True
        rest = frames[count * stride :] if count * stride < len(frames) else None
    if rest is not None and not any_clip:
        missing = num_frames - len(rest)
        yield torch.cat([rest, rest[-1:].expand(missing, *rest.shape[1:])])[None]


def even_indices(length: int, count: int) -> list[int]:
    """`count` frame indices from the first to the last of `length` frames, evenly spaced, rounded down.

    A video shorter than `count` frames gives some of its frames twice.
    """
    return np.linspace(0, length - 1, count).astype(int).tolist()


def key_generator(seed: int, key: str) -> torch.Generator:
    """Randomness that depends on (seed, key) alone: not on the order of the videos, nor on what was done before."""
    digest = hashlib.sha256(f"{seed}:{key}".encode(errors="surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
