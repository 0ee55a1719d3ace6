"""Erasure of what is correlated with a concept: static appearance without any label, or labelled attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from splavu.anonymizers.closed_form.covariance import class_residuals, covariance, whitening
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.anonymizers.closed_form.projection import Array, Projection, affine, describe_affine
from splavu.errors import UserError
from splavu.runtime.schema import Count, NonNegative, Schema

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.affine import AffineAnonymizer

Lift = Literal["linear", "quadratic"]
PRODUCTS_OF = 24
"""Principal components of the pictures whose products the quadratic lift takes: 300 products."""
SMALLEST_DIRECTION = 1e-6
"""Singular values below this share of the largest are rounding, not covariance."""


def static_eraser(
    features: NDArray,  # [N, D]
    static: NDArray,  # [N, D] or [N, Q]
    *,
    classes: NDArray | None = None,  # [N]
    rank: int | None = None,
    share: float | None = None,
    lift: Lift = "linear",
    ridge: float = 0.0,
) -> Projection:
    """Erase from clips what the still pictures of their videos predict: appearance, without a private label.

    With h a clip's feature and z the mean static feature of its video less the mean of its action, take the directions
    of whitened h that covary most with z, and remove them by the projection that changes h least (in h's own metric):
    I - W^-1 U U^T W, W = cov(h)^-1/2, U the first r left singular vectors of W cov(h, z). At full rank this is LEACE
    with z for a concept; a smaller rank keeps utility. The action's mean is taken from z so that what pictures say of
    the action isn't erased.

    Args:
        features: Of the training people's clips.
        static: In the same rows, of the clip's video.
        classes: Action of each row; None erases what pictures say of the action too.
        rank: r. Give this or `share`.
        share: Remove the fewest directions that hold this share of the squared covariance (0 to 1).
        lift: 'quadratic' takes squares and products of the pictures' first principal components for a part of the
            concept, with the weight of the pictures themselves: for clips that depend on appearance in other ways than
            by a straight line.
        ridge: See `covariance.whitening`.

    Raises:
        UserError: Neither or both of rank and share; more directions than there are; an unknown lift.

    Source: Belrose et al. 2023, "LEACE: perfect linear concept erasure in closed form", theorem 4.2 for the projection;
    the concept and the truncation are ours.
    """
    if (rank is None) == (share is None):
        raise UserError("rank", "give either rank or share", "rank 32 removes 32 directions, share 0.9 as many as hold")
    if lift not in get_args(Lift):
        raise UserError("lift", f"'{lift}' is unknown", f"use one of {', '.join(get_args(Lift))}")
    one_class = np.zeros(len(static), dtype=np.intp) if classes is None else classes
    concept = class_residuals(static, one_class)
    if lift == "quadratic":
        products = class_residuals(_products(concept), one_class)
        concept = np.hstack([part / np.sqrt(np.square(part).sum()) for part in (concept, products)])
    return _erased(features, concept, rank=rank, share=share, ridge=ridge)


def leace(features: NDArray, labels: NDArray, *, ridge: float = 0.0) -> Projection:  # [N, D], [N] or [N, A]
    """Least-squares concept erasure: no linear attacker does better than a constant, at the least change of features.

    I - W^+ P W with W = cov(h)^-1/2 and P the orthogonal projection on the columns of W cov(h, z).

    Args:
        features: To be erased from.
        labels: Numbers such as 0 and 1, or classes as one column each.
        ridge: See `covariance.whitening`; erasure is exact with any.

    Source: Belrose et al. 2023, theorem 4.2.
    """
    return _erased(features, _columns(labels), rank=None, share=1.0, ridge=ridge)


def orthogonal(features: NDArray, labels: NDArray) -> Projection:  # [N, D], [N] or [N, A]
    """Remove the differences of the means by an orthogonal projection: as many directions as LEACE, linearly as blind,
    but a larger change of the features where they aren't white. Labels may be weak.

    Source: Haghighatkhah et al. 2022, "Better hit the nail on the head than beat around the bush" (mean projection).
    """
    mean = features.mean(axis=0, dtype=np.float64)
    covaries = _cross(features, _columns(labels))
    directions, values, _ = np.linalg.svd(covaries, full_matrices=False)
    rank = _found(values)
    removed = directions[:, :rank]
    return Projection.of_matrix(np.eye(len(mean)) - removed @ removed.T, mean, rank=rank)


def _erased(features: NDArray, concept: NDArray, *, rank: int | None, share: float | None, ridge: float) -> Projection:
    mean = features.mean(axis=0, dtype=np.float64)
    whiten, unwhiten = whitening(covariance(features), ridge=ridge)
    directions, values, _ = np.linalg.svd(whiten @ _cross(features, concept), full_matrices=False)
    there = _found(values)
    if rank is None:
        assert share is not None, "one of rank and share is given"
        held = np.cumsum(values[:there] ** 2) / (values[:there] ** 2).sum()
        rank = int(np.searchsorted(held, share - 1e-12) + 1)
    if not 1 <= rank <= min(there, len(mean) - 1):
        most = min(there, len(mean) - 1)
        raise UserError("rank", f"{rank}, but features covary with the concept in {most} directions", "give fewer")
    removed = directions[:, :rank]
    return Projection.of_matrix(np.eye(len(mean)) - unwhiten @ removed @ removed.T @ whiten, mean, rank=rank)


def _products(concept: Array) -> Array:  # [N, Q] -> [N, P]
    """Squares and products of the first principal components, each of which has variance 1."""
    vectors, values, _ = np.linalg.svd(concept, full_matrices=False)
    components = vectors[:, : min(PRODUCTS_OF, _found(values))] * np.sqrt(len(concept))
    first, second = np.triu_indices(components.shape[1])
    return components[:, first] * components[:, second]


def _cross(features: NDArray, concept: NDArray) -> Array:  # [N, D], [N, Q] -> [D, Q]
    if len(features) != len(concept):
        raise ValueError(f"{len(features)} features and {len(concept)} rows of a concept")
    centered = features - features.mean(axis=0, dtype=np.float64)
    return centered.T @ (concept - concept.mean(axis=0, dtype=np.float64)) / len(features)


def _found(values: Array) -> int:
    """Singular values that are more than rounding."""
    found = int((values > SMALLEST_DIRECTION * values.max(initial=0.0)).sum())
    if not found:
        raise UserError("concept", "doesn't vary together with the features", "there is nothing to erase")
    return found


def _columns(labels: NDArray) -> Array:  # [N] or [N, A] -> [N, A]
    return np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)


RIDGE = About("added to variances, as a share of their mean")


@dataclass(frozen=True)
class EraserOptions(Schema):
    """Of the eraser of static appearance."""

    rank: Annotated[Count | None, About("directions to remove", parameter="erase_rank")] = None
    share: Annotated[
        Annotated[float, Interval(gt=0, le=1)] | None,
        About("or the share of the squared covariance to remove, up to 1"),
    ] = None
    lift: Annotated[Lift, About("or quadratic: remove what predicts products of static features, too")] = "linear"
    ridge: Annotated[NonNegative, RIDGE] = 0.1
    spare_actions: Annotated[bool, About("keep what static frames predict of the action (needs action labels)")] = True


@dataclass(frozen=True)
class LeaceOptions(Schema):
    """Of LEACE."""

    ridge: Annotated[NonNegative, RIDGE] = 0.0


def _fit_eraser(data: FitData, options: EraserOptions, seed: int | None) -> AffineAnonymizer:
    made = static_eraser(
        data.features,
        data.needed("static"),
        classes=data.classes if options.spare_actions else None,
        rank=options.rank,
        share=options.share,
        lift=options.lift,
        ridge=options.ridge,
    )
    return affine(made, "eraser")


def _fit_leace(data: FitData, options: LeaceOptions, seed: int | None) -> AffineAnonymizer:
    return affine(leace(data.features, data.needed("private"), ridge=options.ridge), "leace")


def _fit_orthogonal(data: FitData, options: object, seed: int | None) -> AffineAnonymizer:
    return affine(orthogonal(data.features, data.needed("private")), "orthogonal")


ERASER = ClosedForm(
    "eraser",
    "removes the directions that predict a static frame of the same video; needs no private label",
    fit=_fit_eraser,
    options=EraserOptions,
    needs=("static",),
    uses=("classes",),
    without_classes={"spare_actions": False},
    one_of=("rank", "share"),
    tried=({"rank": 32}, {"rank": 8}),
    describe=describe_affine,
)
LEACE = ClosedForm(
    "leace",
    "after it no linear classifier predicts the private attributes; the least mean squared change",
    fit=_fit_leace,
    options=LeaceOptions,
    needs=("private",),
    tried=({},),
    describe=describe_affine,
)
ORTHOGONAL = ClosedForm(
    "orthogonal",
    "removes the differences of the attributes' means by an orthogonal projection; labels may be weak",
    fit=_fit_orthogonal,
    needs=("private",),
    describe=describe_affine,
)
