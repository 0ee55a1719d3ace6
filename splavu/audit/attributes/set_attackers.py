"""Attackers that see all clips of a video, or of a person, at once.

Note: noise that protects a clip averages out over fifty of them. A release of many clips per person is as private as
their set, so sets are attacked as sets: pooled, by an attacker that learns which clips to attend to, and, for linking,
by their best pair.

Shapes: `N` clips, `D` feature width, `G` sets, `K` clips of the largest set, `A` attributes, `Q` queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from splavu.attackers import Scaling
from splavu.attackers.networks import RECIPES, Dropout, NetworkAttacker
from splavu.audit.identity.similarity import Metric, cosines
from splavu.errors import UserError, nearest

BLOCK = 1024  # probe clips whose similarities are held at once


def pool(features: np.ndarray, names: Sequence, how: str = "mean") -> tuple[np.ndarray, np.ndarray]:  # [N, D], [N]
    """One feature a set: names [G] in sort order, features [G, D], or [G, 2 D] for 'mean+std'.

    Raises:
        UserError: `how` is none of `POOLINGS`.
    """
    if how not in POOLINGS:
        raise UserError("pooling", f"'{how}' is unknown", nearest(how, POOLINGS))
    kept, order, starts = _sorted(names)
    return kept, POOLINGS[how](np.asarray(features)[order], starts)


def _mean(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:  # [N, D], [G] -> [G, D]
    sizes = np.diff(starts, append=len(rows))
    return np.add.reduceat(rows.astype(np.float64), starts, axis=0) / sizes[:, None]


def _mean_and_spread(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:  # [N, D], [G] -> [G, 2 D]
    """A set of one has no spread."""
    mean = _mean(rows, starts)
    apart = rows - np.repeat(mean, np.diff(starts, append=len(rows)), axis=0)
    return np.concatenate([mean, np.sqrt(_mean(np.square(apart), starts))], axis=1)


def _max(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:  # [N, D], [G] -> [G, D]
    return np.maximum.reduceat(rows, starts, axis=0)


POOLINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": _mean,
    "mean+std": _mean_and_spread,
    "max": _max,
}


def maximum_similarity(
    probes: np.ndarray,
    probe_sets: Sequence,
    gallery: np.ndarray,
    gallery_sets: Sequence,
    *,
    metric: Metric | None = None,
    exclude: tuple[Sequence, Sequence] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [P, D], [P], [N, D], [N]
    """Similarity of two sets: that of their most similar pair of clips. For `linkability.linked`.

    Args:
        metric: None compares by plain cosine.
        exclude: A name for each gallery clip and each probe clip, as in `linkability`: those of the same name do not
            meet. Sets without a pair that meets are minus infinity alike, and `linked` leaves them out; where these
            are the sets of one name, give the sets' names to `linked` too, for the exchanged subjects.

    Returns:
        Similarities [sets of probes, sets of the gallery], and the names of both in sort order.
    """
    if metric is not None:
        probes, gallery = metric.probes(probes), metric.gallery(gallery)
    probe_names, probe_order, probe_starts = _sorted(probe_sets)
    gallery_names, gallery_order, gallery_starts = _sorted(gallery_sets)
    probes, gallery = np.asarray(probes)[probe_order], np.asarray(gallery)[gallery_order]
    nearest_of_clip = np.empty((len(probes), len(gallery_names)))
    for start in range(0, len(probes), BLOCK):
        rows = slice(start, start + BLOCK)
        similarity = cosines(probes[rows], gallery)
        if exclude is not None:
            same = np.asarray(exclude[1])[probe_order][rows, None] == np.asarray(exclude[0])[gallery_order][None]
            similarity[same] = -np.inf
        nearest_of_clip[rows] = np.maximum.reduceat(similarity, gallery_starts, axis=1)
    return np.maximum.reduceat(nearest_of_clip, probe_starts, axis=0), probe_names, gallery_names


@dataclass(frozen=True)
class ClipSets:
    """Sets of clips, padded to the largest."""

    features: np.ndarray
    """[G, K, D] float32, 0 where there is no clip."""
    mask: np.ndarray
    """[G, K] whether there is a clip; no set is empty."""
    names: np.ndarray
    """[G]"""

    @classmethod
    def of(cls, features: np.ndarray, names: Sequence, *, max_clips: int | None = 64) -> ClipSets:  # [N, D], [N]
        """Group clips by name, sets in sort order; of a larger set than `max_clips`, evenly spaced clips are kept."""
        kept, order, starts = _sorted(names)
        parts = np.split(order, starts[1:])
        if max_clips is not None:
            parts = [p if len(p) <= max_clips else p[np.arange(max_clips) * len(p) // max_clips] for p in parts]
        mask = np.arange(max(map(len, parts))) < np.array([len(p) for p in parts])[:, None]
        padded = np.zeros((*mask.shape, np.shape(features)[1]), dtype=np.float32)
        padded[mask] = np.asarray(features)[np.concatenate(parts)]
        return cls(padded, mask, kept)

    def __len__(self) -> int:
        return len(self.features)


class AttentionPooling(NetworkAttacker):
    """An attacker on sets that learns which clips to look at.

    Queries attend over a set's clips and an MLP answers; a linear answer to the mean of the clips is added, which is
    enough where every clip reveals the same. The contract of `attackers.Attacker`, with `ClipSets` in place of
    features. Each query's attention starts out even, and each step sees a drawn part of every set, which makes many
    sets of few. Trained and chosen as `NetworkAttacker` says.

    Source: multi-head pooling by attention, Lee et al. 2019, "Set Transformer".
    """

    def __init__(
        self,
        *,
        num_queries: int = 4,
        width: int = 128,
        recipes: tuple[tuple[str, float, float], ...] = RECIPES,
        dropout: float = 0.3,
        batch_size: int = 64,
        max_epochs: int = 60,
        patience: int = 8,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            recipes=recipes, batch_size=batch_size, max_epochs=max_epochs, patience=patience, seed=seed, device=device
        )
        self.num_queries, self.width, self.dropout = num_queries, width, dropout

    def build(self, feature_dim: int, num_attributes: int) -> nn.Module:
        return _Pool(feature_dim, self.width, self.num_queries, num_attributes, self.dropout)

    def clips(self, features: ClipSets) -> np.ndarray:  # -> [N, D]
        return features.features[features.mask]

    def inputs(self, scaling: Scaling, features: ClipSets) -> tuple[Tensor, Tensor]:  # -> [G, K, d], [G, K]
        mask = torch.as_tensor(features.mask, device=scaling.mean.device)
        return scaling(features.features) * mask[..., None], mask

    def batch(self, inputs: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, Tensor]:
        clips, mask = inputs
        return clips[rows], _drawn_part(mask[rows])


class _Pool(nn.Module):
    """[G, K, d] and a mask [G, K] -> logits [G, A]."""

    def __init__(self, num_inputs: int, width: int, num_queries: int, num_attributes: int, dropout: float) -> None:
        super().__init__()
        self.value = nn.Sequential(nn.Linear(num_inputs, width), nn.ReLU())
        self.key = nn.Linear(num_inputs, width, bias=False)
        # Of next to nothing, not of nothing: equal queries would learn alike.
        self.queries = nn.Parameter(torch.randn(width, num_queries) * 1e-3)
        self.answer = nn.Sequential(
            Dropout(dropout),
            nn.Linear(width * num_queries, width),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(width, num_attributes),
        )
        self.of_mean = nn.Linear(num_inputs, num_attributes, bias=False)
        nn.init.zeros_(self.of_mean.weight)

    def forward(self, clips: Tensor, mask: Tensor) -> Tensor:
        attention = clips @ (self.key.weight.T @ self.queries)  # [G, K, Q]; the keys themselves are never needed
        attention = attention.masked_fill(~mask[..., None], -torch.inf).softmax(dim=1)
        pooled = torch.einsum("gkq,gkw->gqw", attention, self.value(clips)).flatten(1)  # [G, Q width]
        mean = (clips * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)  # [G, d]
        return self.answer(pooled) + self.of_mean(mean)


def _drawn_part(mask: Tensor) -> Tensor:  # [G, K] -> [G, K]
    """A part of each set's clips, its share drawn from 0 to 1, at least one clip."""
    order = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)
    kept = order <= torch.rand(len(mask), 1, device=mask.device)
    return mask & (kept | (order == order.min(dim=1, keepdim=True).values))


def _sorted(names: Sequence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [N] -> [G], [N], [G]
    """Names in sort order, the rows in the order of their names, and where each name's rows start."""
    kept, index = np.unique(np.asarray(names), return_inverse=True)
    order = np.argsort(index, kind="stable")
    return kept, order, np.searchsorted(index[order], np.arange(len(kept)))
