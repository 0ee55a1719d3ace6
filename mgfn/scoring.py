"""Snippet scores of whole videos.

Videos are scored at full length, one by one, while training sees 32 pooled segments; each crop is a separate sequence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mgfn.data.sets import TestSet
from mgfn.errors import InputError
from mgfn.frame_scores import video_auc
from mgfn.model import MGFN

logger = logging.getLogger(__name__)

SNIPPETS_AT_ONCE = 16384
"""Crops of a long video go through the network in parts of about this many snippets, which bounds memory."""


@torch.no_grad()
def scores_of(model: MGFN, batch: Tensor) -> NDArray[np.float32]:  # [1, N, T, D + 1] -> [T]
    """Snippet scores of one video, mean over crops; leaves the network in evaluation mode.

    Raises:
        InputError: They are not finite: nothing can be ranked by them.
    """
    model.eval()
    device = next(model.parameters()).device
    crops = batch.transpose(0, 1).split(max(1, SNIPPETS_AT_ONCE // batch.shape[2]))  # each [n, 1, T, D + 1]
    scores = torch.cat([model.score(part.to(device)) for part in crops]).mean(dim=0).cpu().numpy()
    if not np.isfinite(scores).all():
        raise InputError("the network", "gives scores that are not finite", "lower --lr, or check the features")
    return scores


def score_all(model: MGFN, test_set: TestSet) -> list[NDArray[np.float32]]:  # -> V x [T]
    """Scores of every video's snippets; leaves the network in evaluation mode."""
    shown = tqdm(range(len(test_set)), desc="testing", leave=False, disable=not logger.isEnabledFor(logging.INFO))
    return [scores_of(model, test_set.batch(i)) for i in shown]


def video_figures(
    model: MGFN, batches: Iterable[Tensor], is_abnormal: NDArray[np.bool_], *, k: int = 3
) -> dict[str, float]:  # V x [1, N, T, D + 1], [V]
    """What weak labels can say of validation videos; a video's score is the mean of its k highest snippets.

    Returns:
        `auc`, the share of (abnormal, normal) pairs in the right order, and `bce`, the videos' cross-entropy.
    """
    scores = [np.sort(scores_of(model, batch))[-k:].mean() for batch in batches]
    clipped = np.clip(np.array(scores, dtype=np.float64), 1e-7, 1 - 1e-7)
    bce = -np.log(np.where(is_abnormal, clipped, 1 - clipped)).mean()
    return {"auc": video_auc(clipped, is_abnormal), "bce": float(bce)}
