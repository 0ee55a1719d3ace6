"""What training draws from: pooled videos in memory, batches of both classes, a validation part kept apart.

Batches are a function of (seed, epoch), so a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mgfn.data.features import FeatureVideos
from mgfn.errors import InputError
from mgfn.snippets import training_batch

logger = logging.getLogger(__name__)


def read_pooled(
    videos: FeatureVideos,
    indices: Sequence[int],
    *,
    num_segments: int,
    anonymize: Callable[[Tensor], Tensor] | None = None,
    workers: int = 0,
) -> list[Tensor]:  # V x [N, L, D + 1]
    """Every video read once, checked, anonymized if asked, pooled and kept.

    Kept in memory: all of UCF-Crime at width 2048 takes 0.4 GB a crop.

    Args:
        videos: Features.
        indices: Which of them.
        num_segments: L.
        anonymize: [T, D] -> [T, D], a crop of a video being one sequence.
        workers: Threads that read ahead.

    Raises:
        InputError: A file holds NaN or infinity.
    """

    def item(index: int) -> Tensor:
        return training_batch([anonymized(videos[index], anonymize)], num_segments=num_segments)[0]

    hidden = not logger.isEnabledFor(logging.INFO)
    progress = {"total": len(indices), "desc": "reading features", "leave": False, "disable": hidden}
    # A frozen anonymizer may sit on a GPU and is no faster in threads.
    if workers == 0 or anonymize is not None:
        return [item(index) for index in tqdm(indices, **progress)]
    with ThreadPoolExecutor(workers) as pool:
        return list(tqdm(pool.map(item, indices), **progress))


def anonymized(features: Tensor, anonymize: Callable[[Tensor], Tensor] | None) -> Tensor:  # [T, N, D] -> [T, N, D]
    """The features as they would be released: each crop on its own."""
    if anonymize is None:
        return features
    return torch.stack([anonymize(crop) for crop in features.unbind(dim=1)], dim=1)


def balanced_batches(is_abnormal: NDArray[np.bool_], *, batch_size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Indices of up to `batch_size` normal and as many abnormal videos a step, normal ones first.

    An epoch goes through the larger class once; of the smaller one some videos come again. Each epoch shuffles both.
    """
    rng = np.random.default_rng([seed, epoch])
    classes = [np.flatnonzero(is_abnormal == wanted) for wanted in (False, True)]
    count = max(map(len, classes))
    orders = [np.concatenate([rng.permutation(of) for _ in range(-(-count // len(of)))])[:count] for of in classes]
    for start in range(0, count, batch_size):
        yield [int(index) for order in orders for index in order[start : start + batch_size]]


def split_validation(
    is_abnormal: NDArray[np.bool_], *, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # -> [train], [validation]
    """Indices of training and validation videos, each class divided by the same share and at least one video each.

    Raises:
        InputError: A class has too few videos to be divided.
    """
    rng = np.random.default_rng(seed)
    kept, apart = [], []
    for wanted in (False, True):
        of_class = rng.permutation(np.flatnonzero(is_abnormal == wanted))
        count = max(1, round(share * len(of_class))) if share > 0 else 0
        if count >= len(of_class):
            kind = "abnormal" if wanted else "normal"
            problem = f"{share} of {len(of_class)} {kind} videos leaves none to train on"
            raise InputError("--validation-share", problem, "give a smaller share, or 0 for no selection")
        apart.append(of_class[:count])
        kept.append(of_class[count:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(apart))
