"""Pairs of a gallery and probes: which are scored, where their scores lie, and how many lie there
when subjects are resampled or permuted.

Note: pairs are not independent, because each feature is in many of them. So subjects are resampled, not pairs, and
chance is estimated by permuting whole subjects under the conditions of true pairs.

Shapes: `P` probes, `N` gallery features, `G` people, `R` resamples, `S` exchanges, `F` steps of the score axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from splavu import metrics

MOST_BINS = 100
FINE_BINS = 300
"""Steps of the score scale, at least, on which equal error rates are resampled; the estimate itself is exact."""
TALLY = 20_000_000
"""Numbers of one [G, G, F] block of tallies."""

Exclude = tuple[Sequence, Sequence]  # [N] of the gallery, [P] of the probes


@dataclass(frozen=True)
class Pairs:
    """Who meets whom; people are numbered alike on both sides."""

    probe_person: np.ndarray
    """[P]"""
    gallery_person: np.ndarray
    """[N]"""
    num_people: int
    met: np.ndarray
    """[P, N]"""
    mated: np.ndarray
    """[P, N] of the same person, met or not."""
    lent: np.ndarray
    """[P, N] pairs that may stand for mated ones once people are exchanged: the first video of one person doesn't meet
    the first one of another then, as it would not have met itself."""

    @classmethod
    def of(cls, gallery_ids: Sequence, probe_ids: Sequence, exclude: Exclude | None) -> Pairs:
        gallery_ids, probe_ids = np.asarray(gallery_ids), np.asarray(probe_ids)
        names, person = np.unique(np.concatenate([gallery_ids, probe_ids]), return_inverse=True)
        of_gallery, of_probes = np.split(person, [len(gallery_ids)])
        met = lent = np.ones((len(of_probes), len(of_gallery)), dtype=bool)
        if exclude is not None:
            of_gallery_rows, of_probe_rows = (np.asarray(side) for side in exclude)
            met = of_probe_rows[:, None] != of_gallery_rows[None]
            name = np.unique(np.concatenate([of_gallery_rows, of_probe_rows]), return_inverse=True)[1]
            both, row = np.unique(np.stack([person, name]), axis=1, return_inverse=True)
            place = (np.arange(both.shape[1]) - np.searchsorted(both[0], both[0]))[row.ravel()]
            lent = met & (place[len(gallery_ids) :, None] != place[: len(gallery_ids)])
        return cls(of_probes, of_gallery, len(names), met, of_probes[:, None] == of_gallery[None], lent)

    def only(self, met: np.ndarray) -> Pairs:  # [P, N] of bool
        return replace(self, met=self.met & met, lent=self.lent & met)


@dataclass(frozen=True)
class Scale:
    """The score axis in equal steps, several of which make a bin of the histograms."""

    low: float
    width: float
    """Of all of it."""
    num_bins: int
    per_bin: int

    @classmethod
    def of(cls, mated: np.ndarray, non_mated: np.ndarray) -> Scale:
        low, high = min(mated.min(), non_mated.min()), max(mated.max(), non_mated.max())
        num_bins = min(max(2, round(2 * min(len(mated), len(non_mated)) ** (1 / 3))), MOST_BINS)
        return cls(float(low), float(high - low), num_bins, math.ceil(FINE_BINS / num_bins))

    @property
    def num_steps(self) -> int:
        return self.num_bins * self.per_bin

    def steps(self, scores: np.ndarray) -> np.ndarray:  # any shape -> the same, 0 to num_steps - 1
        along = (np.nan_to_num(scores, neginf=self.low) - self.low) / (self.width or 1.0) * self.num_steps
        return np.clip(along, 0, self.num_steps - 1).astype(np.intp)

    def d_sys(self, mated: np.ndarray, non_mated: np.ndarray) -> np.ndarray:  # [..., F] of counts -> [...]
        mated, non_mated = (
            tally.reshape(*tally.shape[:-1], self.num_bins, self.per_bin).sum(axis=-1, dtype=np.float64)
            for tally in (mated, non_mated)
        )
        totals = [tally.sum(axis=-1, keepdims=True) for tally in (mated, non_mated)]
        mated, non_mated = (
            tally / np.where(total > 0, total, np.nan) for tally, total in zip((mated, non_mated), totals, strict=True)
        )
        both = mated + non_mated
        linkable = np.maximum(mated - non_mated, 0.0) / np.where(both > 0, both, 1.0)
        return np.minimum((mated * linkable).sum(axis=-1), 1.0)  # shares sum to 1 up to rounding


@dataclass(frozen=True)
class Tallies:
    """How many pairs lie on each of F steps of the score axis."""

    non_mated: np.ndarray
    """[F]"""
    exchanged: np.ndarray
    """[permutations, F] pairs of each probe's person with another one, who stands for them."""
    num_distinct: int
    """Permutations among them that differ."""
    resampled: tuple[np.ndarray, np.ndarray]
    """[R, F] twice: mated and non-mated pairs of drawn subjects."""

    @classmethod
    def of(
        cls, steps: np.ndarray, pairs: Pairs, num_steps: int, num_resamples: int, num_permutations: int, seed: int
    ) -> Tallies:  # [P, N]
        num_people = pairs.num_people
        counts = metrics.cluster_resamples(np.arange(num_people), num_resamples=num_resamples, seed=seed).counts
        counts = counts.astype(np.float64)
        linkable = np.unique(pairs.probe_person[(pairs.met & pairs.mated).any(axis=1)])
        stands_for = _exchanges(linkable, num_people, num_permutations, seed)
        own, non_mated = np.zeros((num_people, num_steps)), np.zeros(num_steps)
        drawn = np.zeros((num_resamples, num_steps))
        exchanged = np.zeros((len(stands_for), num_steps))
        width = max(1, TALLY // (num_people * num_steps))
        for start in range(0, num_people, width):
            shown = np.arange(start, min(start + width, num_people))  # people of the gallery
            columns = np.flatnonzero((pairs.gallery_person >= start) & (pairs.gallery_person < start + width))
            cell = pairs.probe_person[:, None] * len(shown) + (pairs.gallery_person[columns] - start)[None]
            cell = cell * num_steps + steps[:, columns]
            shape = (num_people, len(shown), num_steps)
            tally, lent = (
                np.bincount(cell[kept[:, columns]], minlength=math.prod(shape)).reshape(shape)
                for kept in (pairs.met, pairs.lent)
            )
            own[shown] = tally[shown, shown - start]
            tally[shown, shown - start] = 0
            non_mated += tally.sum(axis=(0, 1))
            for place, person in enumerate(shown):
                drawn += counts[:, person, None] * (counts @ tally[:, place])
                exchanged += lent[stands_for[:, person], place] * (stands_for[:, person, None] >= 0)
        return cls(non_mated, exchanged, len(np.unique(stands_for, axis=0)), (counts @ own, drawn))


def _exchanges(linkable: np.ndarray, num_people: int, num_permutations: int, seed: int) -> np.ndarray:  # -> [S, G]
    """Whom each person of the gallery is taken for: people in drawn couples, each for the other one; -1 for no one.

    Couples, because a store that is linked with itself has every pair twice, and so must these be.
    """
    size = len(linkable) // 2 * 2
    if not size:
        return np.full((0, num_people), -1)
    drawn = np.random.default_rng(seed).permuted(np.tile(linkable, (num_permutations, 1)), axis=1)[:, :size]
    stands_for = np.full((num_permutations, num_people), -1)
    np.put_along_axis(stands_for, drawn, np.roll(drawn, size // 2, axis=1), axis=1)
    return stands_for
