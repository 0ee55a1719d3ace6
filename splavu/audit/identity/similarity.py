"""Similarity metrics for linkage attacks: plain cosine, or a metric trained on other subjects with their names.

Note: plain cosine is a weak metric. With labelled features of other subjects an attacker can learn which directions
distinguish subjects, and link a store that plain cosine can't. So evaluate by `strongest_metric`, which is chosen on
subjects that are neither trained on nor linked.

Shapes: `N` features, `P` probes, `D` and `E` feature widths, `d` the width that is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from splavu import metrics
from splavu.attackers import SCALINGS
from splavu.audit.identity.inversion import learn_ridge
from splavu.errors import UserError, nearest

Map = Callable[[np.ndarray], np.ndarray]  # [N, D] -> [N, d]

SHRINKAGES = (0.01, 0.1, 0.5)
"""Of the covariance within people, those that are tried."""

MOST_ROWS = 1500
"""Validation features that metrics are chosen by, a square of pairs; more are thinned by whole subjects."""

Weighting = Literal["equal", "identity"]


@dataclass(frozen=True)
class Metric:
    """Features compared by the cosine of what these maps make of them."""

    gallery: Map
    probes: Map
    name: str


def unlearnt_metric(name: str, gallery: np.ndarray) -> Metric:  # [N, D]
    """What a linker without anybody's name has: 'cosine', or 'whitened cosine' of the gallery's own covariance."""
    if name == "cosine":
        return Metric(_as_double, _as_double, name)
    if name == "whitened cosine":
        return _same(_scaling("whiten", gallery), name)
    raise UserError("metric", f"'{name}' is unknown", nearest(name, ["cosine", "whitened cosine"]))


def learn_metric(
    features: np.ndarray,
    people: Sequence,
    *,
    scaling: str = "whiten",
    shrinkage: float = 0.1,
    weighting: Weighting = "identity",
) -> Metric:  # [N, D], [N]
    """Directions weigh the less, the more one person's clips differ along them.

    Features are scaled, then mapped by W^(-1/2), W the covariance within people. 'equal' leaves it at that (within-
    class covariance normalisation); 'identity' turns to the axes along which people differ and weighs each as a
    Gaussian model of subjects and clips does: sqrt(b / (1 + 2 b)) for a variance b between people, in units of that
    within. Axes without any drop out.

    Args:
        features: Of people who are neither linked nor used to choose.
        people: Person of each; those with one feature tell nothing of W.
        scaling: 'whiten', which no squeezed direction escapes, or 'standardise'.
        shrinkage: Share of W that is replaced by its mean variance in all directions.

    Source: Hatch, Kajarekar and Stolcke 2006 (WCCN); Ioffe 2006 (probabilistic LDA), whose log-likelihood ratio weighs
    products of two features so.
    """
    return _Spread.of(features, people, scaling).metric(shrinkage, weighting)


def strongest_metric(
    features: np.ndarray,
    people: Sequence,
    validation: tuple[np.ndarray, Sequence],
    *,
    exclude: Sequence | None = None,
) -> Metric:  # [N, D], [N]
    """Learn metrics from some people and keep the one that links others best, by the area under the ROC of pairs.

    Args:
        features: Of people who are not linked later.
        people: Person of each.
        validation: Features and people, again others.
        exclude: A name for each validation feature, as the video: those of the same name do not meet. None keeps only
            each feature from meeting itself.

    Raises:
        UserError: Everybody who is trained on has one feature; no two validation features are of one person, or all.
    """
    own = np.arange(len(validation[0])) if exclude is None else exclude
    return _strongest(candidate_metrics(features, people), validation[0], validation[0], validation[1], own)


def candidate_metrics(features: np.ndarray, people: Sequence) -> list[Metric]:  # [N, D], [N]
    """The metrics that `strongest_metric` chooses from: plain, standardised and whitened cosine, and learned ones.

    Raises:
        UserError: Everybody who is trained on has one feature.
    """
    spreads = [_Spread.of(features, people, scaling) for scaling in SCALINGS]
    return [
        Metric(_as_double, _as_double, "cosine"),
        *(_same(spread.scale, f"{spread.scaling}d cosine") for spread in spreads),
        *(
            spread.metric(shrinkage, weighting)
            for spread in spreads
            for shrinkage in SHRINKAGES
            for weighting in get_args(Weighting)
        ),
    ]


def strongest_cross_metric(
    gallery: np.ndarray,
    probes: np.ndarray,
    people: Sequence,
    validation: tuple[np.ndarray, np.ndarray, Sequence],
    *,
    exclude: Sequence | None = None,
) -> Metric:  # [N, D], [N, E], [N]
    """For a gallery and probes of two kinds, raw and released, or of two releases: maps to a common space, trained on
    the same clips in both kinds.

    Tried are ridge regression either way and canonical correlation, each followed by `learn_metric` over both kinds
    together, so that what the maps get wrong counts as variance within people; and plain cosine, where widths agree.

    Args:
        gallery: Of people who are not linked later.
        probes: The same clips in the probes' kind, row by row.
        people: Person of each row.
        validation: Such pairs of others, and their people.
        exclude: As in `strongest_metric`.
    """
    canonical = _canonical(gallery, probes)
    common = {
        "ridge to probes": (learn_ridge(gallery, probes, validation[:2]), _as_double),
        "ridge to gallery": (_as_double, learn_ridge(probes, gallery, (validation[1], validation[0]))),
        **{f"cca {dims}": canonical(dims) for dims in (16, 64, 256)},
    }
    candidates = [Metric(_as_double, _as_double, "cosine")] if gallery.shape[1] == probes.shape[1] else []
    both = np.concatenate([np.asarray(people), np.asarray(people)])
    for name, (of_gallery, of_probes) in common.items():
        mapped = np.concatenate([of_gallery(gallery), of_probes(probes)])
        candidates.append(Metric(of_gallery, of_probes, name))
        for shrinkage in SHRINKAGES[1:]:
            learnt = learn_metric(mapped, both, scaling="standardise", shrinkage=shrinkage).gallery
            candidates.append(
                Metric(_then(of_gallery, learnt), _then(of_probes, learnt), f"{name}, learnt ({shrinkage:g})")
            )
    own = np.arange(len(validation[0])) if exclude is None else exclude
    return _strongest(candidates, *validation[:2], validation[2], own)


def canonical_maps(
    first: np.ndarray, second: np.ndarray, *, num_dims: int, shrinkage: float = 1e-3
) -> tuple[Map, Map]:  # [N, D], [N, E]
    """Canonical correlation analysis: maps of two views of the same rows that correlate most, dimension by dimension.

    Dimensions weigh as the square root of their correlation, which lets those that the views do not share fade.

    Args:
        num_dims: At most; no more than either view spans.
        shrinkage: Added to the variances of whitened inputs; keeps directions of little data from correlating by luck.

    Source: Hotelling 1936; Vinod 1976 for the ridge.
    """
    return _canonical(first, second, shrinkage)(num_dims)


def _canonical(
    first: np.ndarray, second: np.ndarray, shrinkage: float = 1e-3
) -> Callable[[int], tuple[Map, Map]]:  # [N, D], [N, E]
    """`canonical_maps` for any number of dimensions, from one decomposition."""
    scales = [_scaling("whiten", rows) for rows in (first, second)]
    scaled = [scale(rows) for scale, rows in zip(scales, (first, second), strict=True)]
    left, correlation, right = np.linalg.svd(scaled[0].T @ scaled[1] / len(scaled[0]) / (1 + shrinkage), False)

    def maps(num_dims: int) -> tuple[Map, Map]:
        weight = np.sqrt(correlation[:num_dims])
        return (
            _then(scales[0], lambda rows: rows @ (left[:, :num_dims] * weight)),
            _then(scales[1], lambda rows: rows @ (right[:num_dims].T * weight)),
        )

    return maps


def cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:  # [P, D], [N, D] -> [P, N]
    """Cosine similarity, rounded so that equal features tie; 0 for a feature of zeros."""
    rows, others = _directions(rows), _directions(others)
    return np.round(rows @ others.T, 12)


@dataclass(frozen=True)
class _Spread:
    """How scaled features vary within people and between them."""

    scaling: str
    scale: Map
    within: np.ndarray
    """[d, d] covariance, unbiased."""
    between: np.ndarray
    """[d, d] covariance of subjects, what clips add to their means taken off; may have negative directions."""

    @classmethod
    def of(cls, features: np.ndarray, people: Sequence, scaling: str) -> _Spread:  # [N, D], [N]
        scale = _scaling(scaling, features)
        scaled = scale(features)
        person = np.unique(np.asarray(people), return_inverse=True)[1]
        sizes = np.bincount(person)
        if len(sizes) == len(person):
            raise UserError("people", "have one feature each, which shows no variance within people", "give several")
        means = np.zeros((len(sizes), scaled.shape[1]))
        np.add.at(means, person, scaled)
        means /= sizes[:, None]
        apart = scaled - means[person]
        within = apart.T @ apart / max(1, len(scaled) - len(sizes))
        means -= means.mean(axis=0)
        between = means.T @ means / max(1, len(sizes) - 1) - within * np.mean(1 / sizes)
        return cls(scaling, scale, within, between)

    @cached_property
    def axes_within(self) -> tuple[np.ndarray, np.ndarray]:
        """Variances and axes within people, the same axes however much they are shrunk: features of I3D have 2048."""
        return np.linalg.eigh(self.within)

    def metric(self, shrinkage: float, weighting: Weighting) -> Metric:
        values, axes = self.axes_within
        shrunk = (1 - shrinkage) * values + shrinkage * values.mean()
        matrix = axes / np.sqrt(np.maximum(shrunk, np.finfo(np.float64).tiny))
        if weighting == "identity":
            variances, axes = np.linalg.eigh(matrix.T @ self.between @ matrix)
            people_differ = variances > 0
            weight = np.sqrt(variances[people_differ] / (1 + 2 * variances[people_differ]))
            matrix = matrix @ axes[:, people_differ] * weight
        scale = self.scale
        return _same(lambda rows: scale(rows) @ matrix, f"learnt ({self.scaling}, {shrinkage:g}, {weighting})")


def _strongest(
    candidates: list[Metric], gallery: np.ndarray, probes: np.ndarray, people: Sequence, exclude: Sequence
) -> Metric:
    people, names = np.asarray(people), np.asarray(exclude)
    rows = some_people(people, MOST_ROWS)
    gallery, probes, people, names = np.asarray(gallery)[rows], np.asarray(probes)[rows], people[rows], names[rows]
    met = names[:, None] != names[None]  # [N, N]
    labels = (people[:, None] == people[None])[met].astype(np.float64)
    if len(np.unique(labels)) < 2:
        raise UserError("validation", "has no mated or no non-mated pair", "give several subjects, several videos each")
    merits = [_merit(labels, cosines(c.probes(probes), c.gallery(gallery))[met]) for c in candidates]
    return candidates[0 if np.isnan(merits).all() else int(np.nanargmax(merits))]


def _merit(labels: np.ndarray, similarity: np.ndarray) -> float:  # [n], [n]
    """Area under the ROC; NaN for a metric that finds all alike, or it would be preferred to any that errs a little."""
    return np.nan if np.ptp(similarity) == 0 else metrics.auc(labels, similarity)


def some_people(people: np.ndarray, most: int) -> np.ndarray:  # [N] -> [n] rows
    """All rows of as many subjects, in a drawn order, as `most` rows hold; two subjects at least."""
    person, sizes = np.unique(people, return_inverse=True, return_counts=True)[1:]
    order = np.random.default_rng(0).permutation(len(sizes))
    num_kept = max(2, int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")))
    return np.flatnonzero(np.isin(person, order[:num_kept]))


def _scaling(name: str, features: np.ndarray) -> Map:  # [N, D]
    """A scaling of the attackers, by these features, in double precision."""
    fitted = SCALINGS[name](features)
    mean, matrix = (part.double().cpu().numpy() for part in (fitted.mean, fitted.matrix))
    return lambda rows: (_as_double(rows) - mean) * matrix if matrix.ndim == 1 else (_as_double(rows) - mean) @ matrix


def _same(mapped: Map, name: str) -> Metric:
    return Metric(mapped, mapped, name)


def _then(first: Map, second: Map) -> Map:
    return lambda rows: second(first(rows))


def _as_double(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows, dtype=np.float64)


def _directions(rows: np.ndarray) -> np.ndarray:  # [N, D] -> [N, D] of length 1; zeros stay
    rows = _as_double(rows)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
