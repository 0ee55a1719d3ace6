"""Linkability: can two released features be linked to one person, without any names?

Each probe meets a gallery. Pairs of one person are mated, all others non-mated; a linker scores pairs, and what counts
is how far its two score distributions lie apart (D_sys, equal error rate), how many pairs are found at few false ones,
and how often the gallery's nearest is the right person (rank-1, rank-5, mAP).

Note: D_sys of few scores lies above 0 for features without identity too. Read `d_sys_corrected`, which compares with
permuted subjects. And use a strong metric (`similarity.strongest_metric`): that plain cosine does not link a store says
little.

Shapes: `P` probes, `N` gallery features, `D` feature width, `G` people, `R` resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from splavu import metrics
from splavu.audit.identity.pair_scores import Exclude, Pairs, Scale, Tallies
from splavu.audit.identity.similarity import Metric, cosines, unlearnt_metric
from splavu.errors import UserError
from splavu.metrics.estimates import Estimate, estimated
from splavu.metrics.inference import FALSE_ALARMS, equal_error_rate, equal_error_rates, tpr_at_fpr

RANKS = ("rank1", "rank5", "mean_ap")
FPRS = (0.01, 0.001)
MOST_RATED = 4_000_000
"""Pairs that true positives at few false ones are counted on; of more, the probes are thinned."""
TAIL = 5
"""Times the false-positive rate: the share of non-mated pairs, the most similar ones, among which its threshold may lie
in a resample."""


@dataclass(frozen=True)
class Linkability:
    """How well pairs of one person are distinguished from all other pairs."""

    rank1: Estimate
    """Share of probes whose nearest gallery feature is of their person; a probe without a mate is left out."""
    rank5: Estimate
    """Share with such a feature among the nearest five."""
    mean_ap: Estimate
    """Mean average precision of the gallery ranked for each probe."""
    eer: Estimate
    """Equal error rate over all pairs; chance is 0.5, and 0 links everything."""
    tpr: Mapping[float, Estimate | None]
    """False-positive rate of `FPRS` -> share of the mated pairs that are found at it; None where non-mated pairs are
    too few to tell (`inference.tpr_at_fpr`)."""
    d_sys: Estimate
    """0 unlinkable, 1 fully linkable; chance is its mean over exchanged subjects, see `d_sys_null`."""
    d_sys_corrected: Estimate
    """(D_sys - chance) / (1 - chance): about 0 for features without identity, however few; may be negative. A
    little too low where features are linked, since the bias is less there."""
    d_sys_null: np.ndarray
    """[permutations] D_sys when a probe's mates are taken to be those of another person."""
    p: float
    """Share of the permutations that score as high, the sample counted in. A little small with few subjects: at 0.05,
    it rejects 9 % of stores without identity (200 simulated ones of 20 subjects with 4 videos each)."""
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
        metric: A `similarity.Metric` learned on other subjects, 'cosine', or 'whitened cosine' (by the gallery alone).

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
    repeats: int = 1,
    seed: int = 0,
) -> Linkability:  # [P, N], [N], [P]
    """The same from similarities, as of sets (`sets.maximum_similarity`); pairs without a finite one don't meet.

    Intervals draw people with replacement, as probes and in the gallery at once: a mated pair weighs as often as its
    person was drawn, another pair as often as both were. Ranks keep the whole gallery and draw probes' people. Draws
    of D_sys are moved to have the sample's as their mean, for drawing adds to its bias.

    Chance of rank-k and mAP is what a drawn order of the same gallery gives. Cost: P x N numbers a resample.

    Args:
        repeats: How many draws of the same subjects the pairs come from; non-mated pairs count once.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    pairs = Pairs.of(gallery_ids, probe_ids, exclude).only(np.isfinite(similarity))
    mated, non_mated = similarity[pairs.met & pairs.mated], similarity[pairs.met & ~pairs.mated]
    if not len(mated) or not len(non_mated):
        kind = "mated" if not len(mated) else "non-mated"
        raise UserError(
            "linkability", f"there is no {kind} pair to score", "give several subjects, several videos each"
        )

    found, luck = _found(similarity, pairs)
    of_probes = metrics.cluster_resamples(pairs.probe_person, num_resamples=num_resamples, seed=seed)
    draws = dict(zip(RANKS, metrics.resampled_prevalences(found, of_probes).T, strict=True))
    ranks = {
        name: estimated(value, draws[name], level=level, chance=chance)
        for name, value, chance in zip(RANKS, metrics.mean_known(found.T), metrics.mean_known(luck.T), strict=True)
    }
    scale = Scale.of(mated, non_mated)
    tallies = Tallies.of(scale.steps(similarity), pairs, scale.num_steps, num_resamples, num_permutations, seed)
    value = d_sys(mated, non_mated)
    null = scale.d_sys(tallies.exchanged, tallies.non_mated - tallies.exchanged)
    chance = float(metrics.mean_known(null))
    room = 1 - chance if chance < 1 else float("nan")
    draws["eer"] = equal_error_rates(*(np.cumsum(t[:, ::-1], axis=1) for t in tallies.resampled))
    drawn = scale.d_sys(*tallies.resampled)
    draws["d_sys"] = drawn - metrics.mean_known(drawn) + value
    draws["d_sys_corrected"] = (draws["d_sys"] - chance) / room
    labels = np.repeat([1.0, 0.0], [len(mated), len(non_mated)])
    eer = equal_error_rate(labels, np.concatenate([mated, non_mated]))
    return Linkability(
        **ranks,
        eer=estimated(eer, draws["eer"], chance=0.5, level=level),
        tpr={fpr: _rate(similarity, pairs, fpr, repeats, num_resamples, level, seed) for fpr in FPRS},
        d_sys=estimated(value, draws["d_sys"], chance=chance, level=level),
        d_sys_corrected=estimated((value - chance) / room, draws["d_sys_corrected"], chance=0.0, level=level),
        d_sys_null=null,
        p=_share_as_high(null, value, tallies.num_distinct),
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
    template protection systems".
    """
    scale = Scale.of(mated, non_mated)
    return float(scale.d_sys(*(np.bincount(scale.steps(s), minlength=scale.num_steps) for s in (mated, non_mated))))


def _rate(
    similarity: np.ndarray, pairs: Pairs, fpr: float, repeats: int, num_resamples: int, level: float, seed: int
) -> Estimate | None:  # [P, N]
    """True positives at `fpr` false ones; in a resample, pairs weigh as in `linked`."""
    if similarity.size > MOST_RATED:
        count = max(1, MOST_RATED // similarity.shape[1])
        probes = np.random.default_rng(seed).permutation(len(similarity))[:count]
        similarity = similarity[probes]
        pairs = replace(
            pairs, probe_person=pairs.probe_person[probes], met=pairs.met[probes], mated=pairs.mated[probes]
        )
    probe, gallery = np.nonzero(pairs.met)
    scores, is_mated = similarity[probe, gallery], pairs.mated[probe, gallery]
    num_non_mated = int(np.sum(~is_mated)) // repeats
    if fpr * num_non_mated < FALSE_ALARMS or not is_mated.any():
        return None
    value = tpr_at_fpr(is_mated, scores, fpr)
    people = pairs.probe_person[probe], pairs.gallery_person[gallery]
    counts = metrics.cluster_resamples(np.arange(pairs.num_people), num_resamples=num_resamples, seed=seed).counts
    counts = counts.astype(np.float64)
    once = np.ones(len(scores))[~is_mated]
    where = tuple(side[~is_mated] for side in people)
    of_people = csr_array((once, where), shape=(pairs.num_people,) * 2)  # pairs of two people add up
    allowed = fpr * ((counts @ of_people) * counts).sum(axis=1) + 1e-9
    lowest = np.quantile(scores[~is_mated], max(0.0, 1 - TAIL * fpr))
    ranked = np.argsort(-scores, kind="stable")
    mates, others = ranked[is_mated[ranked]], ranked[~is_mated[ranked] & (scores[ranked] >= lowest)]
    # Hits grow at the scores of mated pairs alone: at the last pair of each run of equal ones.
    ends = np.flatnonzero(np.append(scores[mates][1:] != scores[mates][:-1], True) & (scores[mates] >= lowest))
    accused = np.searchsorted(-scores[others], -scores[mates][ends], "right")
    of_mates, of_others = people[0][mates], people[0][others] * pairs.num_people + people[1][others]
    draws = np.full(num_resamples, np.nan)
    for number, count in enumerate(counts):
        hits = np.cumsum(count[of_mates])
        alarms = np.append(0.0, np.cumsum(np.outer(count, count).ravel()[of_others]))[accused]
        reached = hits[ends[alarms <= allowed[number]]]
        if hits[-1]:
            draws[number] = reached[-1] / hits[-1] if len(reached) else 0.0
    return estimated(value, draws, chance=fpr, level=level)


def _share_as_high(null: np.ndarray, value: float, distinct: int) -> float:  # [S]
    """Share of the permutations that score as high (or have no value), the sample counted in.

    With few subjects the same permutation is drawn several times: the share is at least that with each drawn once.
    """
    return float(max((1 + np.sum(~(null < value))) / (1 + len(null)), 1 / (1 + distinct)))


def _found(similarity: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:  # [P, N] -> [P, 3], [P, 3]
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
