"""Snippet scores of whole videos.

Videos are scored at full length, one by one, while training sees 32 pooled segments; a crop is a sequence of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mgfn.data.sets import TestSet
from mgfn.model import MGFN

SNIPPETS_AT_ONCE = 16384
"""Crops of a long video go through the network in parts of about this many snippets, which bounds memory."""


@torch.no_grad()
def scores_of(model: MGFN, batch: Tensor) -> NDArray[np.float32]:  # [1, N, T, D + 1] -> [T]
    """Snippet scores of one video, mean over crops; leaves the network in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    crops = batch.transpose(0, 1).split(max(1, SNIPPETS_AT_ONCE // batch.shape[2]))  # each [n, 1, T, D + 1]
    return torch.cat([model.score(part.to(device)) for part in crops]).mean(dim=0).cpu().numpy()


def score_all(model: MGFN, test_set: TestSet) -> list[NDArray[np.float32]]:  # -> V x [T]
    """Scores of every video's snippets; leaves the network in evaluation mode."""
    return [scores_of(model, test_set.batch(i)) for i in tqdm(range(len(test_set)), desc="testing", leave=False)]
