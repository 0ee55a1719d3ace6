"""The subspace in which classes differ, and centroids in it: what a quantizer is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Interval, MinLen
from numpy.typing import NDArray

from splavu.anonymizers.closed_form.covariance import class_residuals, covariance, whitening
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.anonymizers.closed_form.projection import Array
from splavu.errors import UserError
from splavu.runtime.schema import Count, Schema

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.quantizer import Quantizer

CodeSpace = Literal["actions", "features"]

BITS_A_CODEBOOK = 10
"""More bits are split among several codebooks: k-means with more centroids needs more clips."""


@dataclass(frozen=True)
class Codes:
    """What a quantizer is made of."""

    mean: Array  # [D]
    encode: Array  # [d, D]
    decode: Array  # [D, d]
    codebooks: tuple[Array, ...]  # each [K, d]


def discriminant_codes(
    features: NDArray,  # [N, D]
    classes: NDArray | None,  # [N]
    codes: Sequence[int],
    *,
    dims: int | None = None,
    ridge: float = 0.01,
    seed: int = 0,
) -> Codes:
    """Linear discriminant analysis, then k-means in its subspace, where distances are counted in units of the spread
    within a class. Each further codebook is fitted to what the ones before it left over.

    Args:
        features: Of training people.
        classes: Action of each row; None takes the principal components instead.
        codes: K of each codebook.
        dims: d; by default C - 1 (without classes: what holds 90 % of the variance).
        ridge: On the spread within a class, see `covariance.whitening`.
        seed: Of k-means.

    Raises:
        UserError: More centroids than rows.

    Source: Fisher's discriminant as in Hastie, Tibshirani, Friedman, "The elements of statistical learning", 4.3.3.
    """
    from sklearn.cluster import KMeans  # takes a second to import

    if max(codes) > len(features):
        raise UserError("codes", f"{max(codes)} centroids for {len(features)} clips", "give fewer, or more clips")
    mean = features.mean(axis=0, dtype=np.float64)
    total = covariance(features)
    if classes is None:
        values, vectors = np.linalg.eigh(total)
        held = np.cumsum(values[::-1]) / values.sum()
        encode = vectors[:, ::-1][:, : dims or int(np.searchsorted(held, 0.9) + 1)].T
    else:
        whiten, _ = whitening(covariance(class_residuals(features, classes)), ridge=ridge)
        between = whiten @ (total - covariance(class_residuals(features, classes))) @ whiten
        _, vectors = np.linalg.eigh(between)
        encode = vectors[:, ::-1][:, : dims or max(1, len(np.unique(classes)) - 1)].T @ whiten
    places = (features - mean) @ encode.T  # [N, d]
    # The features that a place predicts best, linearly.
    decode = total @ encode.T @ np.linalg.pinv(encode @ total @ encode.T, hermitian=True)
    codebooks, rest = [], places
    for number, count in enumerate(codes):
        fitted = KMeans(count, n_init=4, random_state=seed + number)  # pyright: ignore[reportArgumentType]
        fitted.fit(rest)
        codebooks.append(fitted.cluster_centers_)
        rest = rest - fitted.cluster_centers_[fitted.labels_]
    return Codes(mean, encode, decode, tuple(codebooks))


def evenly_split_bits(bits: int) -> list[int]:
    """Sizes of codebooks whose bits add up to `bits`."""
    if bits < 1:
        raise UserError("bits", f"is {bits}, which leaves one vector for all clips", "give at least 1")
    count = -(-bits // BITS_A_CODEBOOK)
    return [2 ** (bits // count + (number < bits % count)) for number in range(count)]


@dataclass(frozen=True)
class QuantizerOptions(Schema):
    """Of the quantizer."""

    bits: Annotated[Annotated[int, Interval(ge=1, le=4096)] | None, About("budget per clip", parameter="bits")] = None
    codes: Annotated[
        Annotated[tuple[Count, ...], MinLen(1)] | None,
        About("or the number of centroids, a comma list for several codebooks"),
    ] = None
    space: Annotated[
        CodeSpace,
        About(
            "where distances are measured: 'actions', the directions in which they differ, which keeps actions at the "
            "fewest bits (needs action labels); 'features', those of largest variance",
            parameter="code_space",
        ),
    ] = "actions"
    dims: Annotated[
        Count | None,
        About(
            "how many of these directions; default: actions - 1, or what holds 90 % of the variance",
            parameter="code_dims",
        ),
    ] = None


def _fit(data: FitData, options: QuantizerOptions, seed: int | None) -> Quantizer:
    from splavu.anonymizers.quantizer import Quantizer

    codes = options.codes or evenly_split_bits(options.bits or 0)  # one of the two is given (`one_of`)
    classes = data.classes if options.space == "actions" else None
    made = discriminant_codes(data.features, classes, codes, dims=options.dims, seed=seed or 0)
    return Quantizer.of(made.mean, made.encode, made.decode, made.codebooks)


def _describe(made: Quantizer, data: FitData) -> str:
    import torch

    used = made.usage(torch.from_numpy(data.features))
    sizes = " x ".join(map(str, made.architecture["codes"]))
    return f"{sizes} codes, at most {used.budget:.2f} bits a clip (used {used.entropy:.2f}, {used.distinct} vectors)"


QUANTIZER = ClosedForm(
    "quantizer",
    "releases the nearest of few vectors: no attacker gets more bits from a clip",
    fit=_fit,
    options=QuantizerOptions,
    uses=("classes",),
    without_classes={"space": "features"},
    one_of=("bits", "codes"),
    place="quantize",
    seed="draws",
    describe=_describe,
)
