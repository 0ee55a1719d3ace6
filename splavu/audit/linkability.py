"""Linkability: can two released features be told to be of one person, without anybody's name?

Each probe meets a gallery. Pairs of one person are mated, all others non-mated; a linker scores pairs, and what counts
is how far its two score distributions lie apart (D_sys, equal error rate) and how often the gallery's nearest is the
right person (rank-1, rank-5, mAP).

What a reader would get wrong: D_sys of few scores lies above 0 for features without identity too, so read
`d_sys_corrected`, which compares with other people put in the mates' place. And the linker must be a strong one
(`linkers.strongest_metric`): plain cosine not linking a store says little.

Shapes: `P` probes, `N` gallery features, `D` feature width, `G` people, `R` resamples, `K` bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from splavu import metrics
from splavu.audit.linkers import Metric, cosines, unlearnt_metric
from splavu.audit.statistics import Estimate, equal_error_rate, equal_error_rates, estimated
from splavu.errors import UserError

MOST_BINS = 100
RANKS = ("rank1", "rank5", "mean_ap")
FINE_BINS = 300
"""Steps of the score scale, at least, on which equal error rates are resampled; the estimate itself is exact."""
TALLY = 20_000_000
"""Numbers of one [G, G, F] block of tallies."""

Exclude = tuple[Sequence, Sequence]  # [N] of the gallery, [P] of the probes


@dataclass(frozen=True)
class Linkability:
    """How well pairs of one person are told from the rest."""

    rank1: Estimate
    """Share of probes whose nearest gallery feature is of their person; a probe without a mate is left out."""
    rank5: Estimate
    """Share with such a feature among the nearest five."""
    mean_ap: Estimate
    """Mean average precision of the gallery ranked for each probe."""
    eer: Estimate
    """Equal error rate over all pairs; chance is 0.5, and 0 links everything."""
    d_sys: Estimate
    """0 unlinkable, 1 fully linkable; chance is its mean over exchanged people, see `d_sys_null`."""
    d_sys_corrected: Estimate
    """(D_sys - chance) / (1 - chance): about 0 for features without identity, however few; may be negative. A
    little too low where features are linked, since the bias is less there."""
    d_sys_null: np.ndarray
    """[permutations] D_sys when a probe's mates are taken to be those of another person."""
    p: float
    """Share of those exchanges that do as well, the sample counted in. A little small with few people: at 0.05, 9 % of
    stores without identity (200 simulated ones of 20 people with 4 videos each)."""
    mated: np.ndarray
    """Scores of all mated pairs."""
    non_mated: np.ndarray
    """Scores of all other pairs."""
    draws: Mapping[str, np.ndarray]
    """'rank1', 'rank5', 'mean_ap', 'eer', 'd_sys' and 'd_sys_corrected', [R] each, for `statistics.equivalence`."""
    metric: str


def linkability(
    gallery: np.ndarray,
    gallery_ids: Sequence,
    probes: np.ndarray,
    probe_ids: Sequence,
    *,
    exclude: Exclude | None = None,
    metric: Metric | str = "cosine",
    num_resamples: int = 300,
    num_permutations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Linkability:  # [N, D], [N], [P, D], [P]
    """Link probes to a gallery.

    Args:
        gallery: One feature a clip or video; raw or released, like the probes or unlike them.
        gallery_ids: Person of each.
        probes: Likewise. To link a store with itself, give it twice and exclude each row's own video.
        probe_ids: Person of each.
        exclude: A name for each gallery feature and each probe: those of the same name do not meet (the same video,
            the same view).
        metric: A `linkers.Metric` learnt on other people, 'cosine', or 'whitened cosine' (by the gallery alone).

    Raises:
        UserError: Unknown metric; no mated or no non-mated pair.
    """
    if isinstance(metric, str):
        metric = unlearnt_metric(metric, gallery)
    similarity = cosines(metric.probes(probes), metric.gallery(gallery))
    return linked(
        similarity,
        gallery_ids,
        probe_ids,
        exclude=exclude,
        metric=metric.name,
        num_resamples=num_resamples,
        num_permutations=num_permutations,
        level=level,
        seed=seed,
    )


def linked(
    similarity: np.ndarray,
    gallery_ids: Sequence,
    probe_ids: Sequence,
    *,
    exclude: Exclude | None = None,
    metric: str = "given",
    num_resamples: int = 300,
    num_permutations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Linkability:  # [P, N], [N], [P]
    """The same from similarities, as of sets (`sets.maximum_similarity`); pairs without a finite one don't meet.

    Intervals draw people with replacement, as probes and in the gallery at once: a mated pair weighs as often as its
    person was drawn, another pair as often as both were. Ranks keep the whole gallery and draw probes' people. Draws
    of D_sys are moved to have the sample's as their mean, for drawing adds to its bias.

    Chance of rank-k and mAP is what a drawn order of the same gallery gives. Cost: P x N numbers a resample.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    pairs = _Pairs.of(gallery_ids, probe_ids, exclude).only(np.isfinite(similarity))
    mated, non_mated = similarity[pairs.met & pairs.mated], similarity[pairs.met & ~pairs.mated]
    if not len(mated) or not len(non_mated):
        kind = "mated" if not len(mated) else "non-mated"
        raise UserError("linkability", f"there is no {kind} pair to score", "give several people, several videos each")

    found, luck = _found(similarity, pairs)
    of_probes = metrics.cluster_resamples(pairs.probe_person, num_resamples=num_resamples, seed=seed)
    draws = dict(zip(RANKS, metrics.resampled_prevalences(found, of_probes).T, strict=True))
    ranks = {
        name: estimated(value, draws[name], level=level, chance=chance)
        for name, value, chance in zip(RANKS, metrics.mean_known(found.T), metrics.mean_known(luck.T), strict=True)
    }
    scale = _Scale.of(mated, non_mated)
    tallies = _Tallies.of(scale.steps(similarity), pairs, scale.num_steps, num_resamples, num_permutations, seed)
    value = d_sys(mated, non_mated)
    null = scale.d_sys(tallies.exchanged, tallies.non_mated - tallies.exchanged)
    chance = float(metrics.mean_known(null))
    draws["eer"] = equal_error_rates(*(np.cumsum(t[:, ::-1], axis=1) for t in tallies.resampled))
    drawn = scale.d_sys(*tallies.resampled)
    draws["d_sys"] = drawn - metrics.mean_known(drawn) + value
    draws["d_sys_corrected"] = (draws["d_sys"] - chance) / (1 - chance)
    labels = np.repeat([1.0, 0.0], [len(mated), len(non_mated)])
    eer = equal_error_rate(labels, np.concatenate([mated, non_mated]))
    return Linkability(
        **ranks,
        eer=estimated(eer, draws["eer"], chance=0.5, level=level),
        d_sys=estimated(value, draws["d_sys"], chance=chance, level=level),
        d_sys_corrected=estimated((value - chance) / (1 - chance), draws["d_sys_corrected"], chance=0.0, level=level),
        d_sys_null=null,
        p=_share_as_high(null, value),
        mated=mated,
        non_mated=non_mated,
        draws=draws,
        metric=metric,
    )


def d_sys(mated: np.ndarray, non_mated: np.ndarray) -> float:
    """System-wide linkability: the mean over mated scores of D(s) = max(0, p(mated | s) - p(non-mated | s)).

    Both kinds of pair count as equally likely beforehand (omega = 1), so D(s) = 2 LR / (1 + LR) - 1 where the
    likelihood ratio LR(s) exceeds 1. Densities are histograms on common bins of equal width from the least to the
    largest score, 2 n^(1/3) of them (Rice's rule) but no more than `MOST_BINS`, n the number of mated or of non-mated
    scores, whichever is less. Biased upwards, for where two estimates of the same density differ by luck, one of them
    is larger; with a fixed number of scores a bin, the bias would not fall with their number.

    Source: Gomez-Barrero, Galbally, Rathgeb and Busch 2018, "General framework to evaluate unlinkability in biometric
    template protection systems", equations 4 to 7.
    """
    scale = _Scale.of(mated, non_mated)
    return float(scale.d_sys(*(np.bincount(scale.steps(s), minlength=scale.num_steps) for s in (mated, non_mated))))


@dataclass(frozen=True)
class _Pairs:
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
    def of(cls, gallery_ids: Sequence, probe_ids: Sequence, exclude: Exclude | None) -> _Pairs:
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

    def only(self, met: np.ndarray) -> _Pairs:  # [P, N] of bool
        return replace(self, met=self.met & met, lent=self.lent & met)


@dataclass(frozen=True)
class _Scale:
    """The score axis in equal steps, several of which make a bin of the histograms."""

    low: float
    width: float
    """Of all of it."""
    num_bins: int
    per_bin: int

    @classmethod
    def of(cls, mated: np.ndarray, non_mated: np.ndarray) -> _Scale:
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
class _Tallies:
    """How many pairs lie on each of F steps of the score axis."""

    non_mated: np.ndarray
    """[F]"""
    exchanged: np.ndarray
    """[permutations, F] pairs of each probe's person with another one, who stands for them."""
    resampled: tuple[np.ndarray, np.ndarray]
    """[R, F] twice: mated and non-mated pairs of drawn people."""

    @classmethod
    def of(
        cls, steps: np.ndarray, pairs: _Pairs, num_steps: int, num_resamples: int, num_permutations: int, seed: int
    ) -> _Tallies:  # [P, N]
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
        return cls(non_mated, exchanged, (counts @ own, drawn))


def _exchanges(linkable: np.ndarray, num_people: int, num_permutations: int, seed: int) -> np.ndarray:  # -> [S, G]
    """Whom each person of the gallery is taken for: people in drawn couples, each for the other one; -1 for nobody.

    Couples, because a store that is linked with itself has every pair twice, and so must these be.
    """
    size = len(linkable) // 2 * 2
    if not size:
        return np.full((0, num_people), -1)
    drawn = np.random.default_rng(seed).permuted(np.tile(linkable, (num_permutations, 1)), axis=1)[:, :size]
    stands_for = np.full((num_permutations, num_people), -1)
    np.put_along_axis(stands_for, drawn, np.roll(drawn, size // 2, axis=1), axis=1)
    return stands_for


def _share_as_high(null: np.ndarray, value: float) -> float:  # [S]
    """Share of the exchanges that do as well, the sample counted in; each of few that there are counts once."""
    distinct = np.unique(np.round(null, 12)) if len(null) else null
    return float(max((1 + np.sum(null >= value)) / (1 + len(null)), 1 / (1 + len(distinct))))


def _found(similarity: np.ndarray, pairs: _Pairs) -> tuple[np.ndarray, np.ndarray]:  # [P, N] -> [P, 3], [P, 3]
    """Rank-1, rank-5 and average precision of each probe as `retrieval.retrieve` has them (which takes features, not
    similarities), and what a drawn order of the same gallery has on average; NaN for a probe without a mate."""
    found, luck = np.full((len(similarity), 3), np.nan), np.full((len(similarity), 3), np.nan)
    for p, (scores, met) in enumerate(zip(similarity, pairs.met, strict=True)):
        scores, same = scores[met], pairs.mated[p, met]
        if not same.any():
            continue
        best = scores[same].max()
        tied = scores == best
        better, equal, mates = int((scores > best).sum()), int(tied.sum()), int(same[tied].sum())
        precision = 1.0 if same.all() else metrics.average_precision(same, scores)
        found[p] = _hit(1 - better, equal, mates), _hit(5 - better, equal, mates), precision
        num_met, num_mates = len(same), int(same.sum())
        luck[p] = _hit(1, num_met, num_mates), _hit(5, num_met, num_mates), _random_precision(num_met, num_mates)
    return found, luck


def _hit(places: int, num: int, mates: int) -> float:
    """Chance that one of the first places of `num` in a drawn order goes to a mate."""
    return 1 - math.comb(num - mates, places) / math.comb(num, places) if 0 < places <= num else float(places > 0)


def _random_precision(num: int, mates: int) -> float:
    """Expected average precision of a drawn order: the sum over places of 1 / place, given how many mates precede."""
    if num == mates:
        return 1.0
    harmonic = float((1 / np.arange(1, num + 1)).sum())
    return (harmonic + (mates - 1) / (num - 1) * (num - harmonic)) / num
