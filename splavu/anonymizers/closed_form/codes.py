"""The subspace in which classes differ, and centroids in it: what a quantizer is made of.

Note: where centroids lie reveals whom they were fitted to. K-means (`kmeans_codebooks`) puts them at the fitted
clips, and who was fitted is recognised by the distance to their code, also where several people share each
centroid: on the demo with an AUC of 1.00 without a floor and of 0.85 with one of five subjects. So a budget of bits is
spent on class means and on levels of a normal distribution (`level_codebooks`), which take a few numbers from many
people: 0.51, and 0.57 where what lies outside the quantizer's directions is looked at too (`benchmarks/membership.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Interval, MinLen
from numpy.typing import NDArray

from splavu.anonymizers.closed_form.covariance import class_residuals, covariance, whitening
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.anonymizers.closed_form.levels import level_codebooks
from splavu.anonymizers.closed_form.projection import Array
from splavu.anonymizers.closed_form.support import (
    COMMON_FLOOR,
    Support,
    histogram_of,
    merge_until_supported,
    nearest_centroid,
    supporters,
)
from splavu.errors import UserError
from splavu.metrics.vector_owners import vector_owners
from splavu.runtime.schema import Count, Schema

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.quantizer import Quantizer

logger = logging.getLogger(__name__)

CodeSpace = Literal["actions", "features"]
Floor = Literal["centroid", "vector"]

MOST_WHOLE_BITS = 14
"""Where each released vector has a floor: all vectors are listed, and merged one by one."""
BITS_A_CODEBOOK = 10
"""More bits are split among several codebooks of k-means: more centroids need more clips."""
RIDGE, RIDGE_WITHOUT_FLOOR = 3.0, 0.01
"""On the spread within a class. A small one fits the directions to the very people; without a floor it is as it was."""


@dataclass(frozen=True)
class Subspace:
    """Where a quantizer measures distances; values that float32 holds, as it keeps them."""

    mean: Array  # [D]
    encode: Array  # [d, D]
    decode: Array  # [D, d]

    def along(self, used: NDArray[np.bool_]) -> Subspace:  # [d]
        """Some of its directions."""
        return Subspace(self.mean, self.encode[used], self.decode[:, used])

    def places(self, features: NDArray) -> Array:  # [N, D] -> [N, d]
        return (features - self.mean) @ self.encode.T


def code_subspace(
    features: NDArray,  # [N, D]
    classes: NDArray | None,  # [N]
    *,
    dims: int | None = None,
    ridge: float = RIDGE,
) -> Subspace:
    """Linear discriminant analysis, with distances in units of the spread within a class; or principal components.

    Args:
        features: Of training subjects.
        classes: Action of each row; None takes the principal components.
        dims: d; by default C - 1 (without classes: what holds 90 % of the variance).
        ridge: On the spread within a class, see `covariance.whitening`.

    Source: Fisher's discriminant as in Hastie, Tibshirani, Friedman, "The elements of statistical learning", 4.3.3.
    """
    total = covariance(features)
    if classes is None:
        values, vectors = np.linalg.eigh(total)
        held = np.cumsum(values[::-1]) / values.sum()
        encode = vectors[:, ::-1][:, : dims or int(np.searchsorted(held, 0.9) + 1)].T
    else:
        within = covariance(class_residuals(features, classes))
        whiten, _ = whitening(within, ridge=ridge)
        _, vectors = np.linalg.eigh(whiten @ (total - within) @ whiten)
        encode = vectors[:, ::-1][:, : dims or max(1, len(np.unique(classes)) - 1)].T @ whiten
    # The features that a place predicts best, linearly.
    decode = total @ encode.T @ np.linalg.pinv(encode @ total @ encode.T, hermitian=True)
    return Subspace(*(_float32(part) for part in (features.mean(axis=0, dtype=np.float64), encode, decode)))


def kmeans_codebooks(
    places: Array, codes: Sequence[int], owners: NDArray[np.int64], at_least: int, *, seed: int = 0
) -> list[Array]:  # [N, d], [N] -> each [K, d]
    """K-means, merged until each centroid has its supporters; each further codebook takes what those before left over.

    Args:
        places: What is quantized.
        codes: K of each codebook at most.
        owners: Of each row, see `merge_until_supported`.
        at_least: Owners of each centroid; 1 merges nothing.
        seed: Of k-means.
    """
    from sklearn.cluster import KMeans  # takes a second to import

    books, rest = [], places
    for number, count in enumerate(codes):
        start = min(count, len(rest))
        fitted = KMeans(start, n_init=4, random_state=seed + number)  # pyright: ignore[reportArgumentType]
        book = _float32(fitted.fit(rest).cluster_centers_)
        if at_least > 1:
            book = merge_until_supported(rest, book, owners, at_least)
        books.append(book)
        rest = rest - book[nearest_centroid(rest, book)]
    return books


def supported_codebooks(
    places: Array, classes: NDArray | None, bits: float, owners: NDArray[np.int64], at_least: int, *, seed: int = 0
) -> list[Array]:  # [N, d], [N], [N] -> each [K, d]
    """The means of the classes, then levels along the axes of what they leave over; without classes levels alone.

    Args:
        places: What is quantized.
        classes: Action of each row, or None.
        bits: The sum of log2 K at most.
        owners: Of each row, see `merge_until_supported`.
        at_least: Owners of each centroid.
        seed: Of k-means of the classes' means, where there are more than bits.
    """
    books: list[Array] = []
    rest = places
    if classes is not None:
        means = merge_until_supported(places, _class_means(places, classes, int(2**bits), seed), owners, at_least)
        if len(means) > 1:
            books.append(means)
            rest = places - means[nearest_centroid(places, means)]
            bits -= np.log2(len(means))
    for levels in level_codebooks(rest, bits):
        book = merge_until_supported(rest, levels, owners, at_least)
        if len(book) > 1:
            books.append(book)
            rest = rest - book[nearest_centroid(rest, book)]
    return books


def whole_codebook(books: Sequence[Array]) -> Array:  # each [K, d] -> [product of K, d]
    """All sums of one centroid of each codebook: every vector that these can release, as one codebook."""
    vectors = np.zeros((1, books[0].shape[1]))
    for book in books:
        vectors = (vectors[:, None] + book).reshape(-1, book.shape[1])
    return vectors


def halves_of_owners(places: Array, owners: NDArray[np.int64]) -> Array:  # [N, d], [N] -> [2, d]
    """Two vectors, so that half of the owners stand behind each: one bit of so few clips that levels find no floor.

    They part the direction of largest variance between the means of the two owners in the middle. An owner whose mean
    lies on a side has a clip there.
    """
    direction = int(places.var(axis=0).argmax())
    along = places[:, direction]
    known = owners >= 0
    counts = np.bincount(owners[known])
    sums = np.bincount(owners[known], along[known])
    means = np.sort(sums[counts > 0] / counts[counts > 0])
    border = (means[len(means) // 2 - 1] + means[len(means) // 2]) / 2
    book = np.zeros((2, places.shape[1]))
    book[:, direction] = border + np.array([-1, 1]) * np.abs(along - border).mean()
    return _float32(book)


def most_supported(clips_of_owner: NDArray[np.int64], at_least: int) -> int:  # [owners] -> count
    """The most vectors that can each be released for clips of `at_least` owners, however well they are placed.

    An owner supports at most as many vectors as it has clips; K vectors need K x `at_least` supporters.

    Args:
        clips_of_owner: Clips of each owner, at least one.
        at_least: The floor.
    """
    if len(clips_of_owner) < at_least:
        return 0
    low, high = 1, int(clips_of_owner.sum()) // at_least
    while low < high:  # what K vectors need grows faster than what is there
        middle = (low + high + 1) // 2
        if np.minimum(clips_of_owner, middle).sum() >= middle * at_least:
            low = middle
        else:
            high = middle - 1
    return low


def _class_means(places: Array, classes: NDArray, most: int, seed: int) -> Array:  # [N, d], [N] -> [K, d]
    """The mean of each class, or where that is more than `most`, of groups of classes that lie together."""
    from sklearn.cluster import KMeans  # takes a second to import

    _, number, counts = np.unique(classes, return_inverse=True, return_counts=True)
    means = np.stack([places[number == index].mean(axis=0) for index in range(len(counts))])
    if len(means) <= most:
        return means
    grouped = KMeans(most, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    return grouped.fit(means, sample_weight=counts).cluster_centers_


def _float32(values: NDArray) -> Array:
    return values.astype(np.float32).astype(np.float64)


def evenly_split_bits(bits: int) -> list[int]:
    """Sizes of codebooks whose bits add up to `bits`."""
    if bits < 1:
        raise UserError("bits", f"is {bits}, which leaves one vector for all clips", "give at least 1")
    count = -(-bits // BITS_A_CODEBOOK)
    return [2 ** (bits // count + (number < bits % count)) for number in range(count)]


@dataclass(frozen=True)
class QuantizerOptions(Schema):
    """Of the quantizer."""

    bits: Annotated[
        Annotated[int, Interval(ge=1, le=4096)] | None, About("budget per clip at most", parameter="bits")
    ] = None
    codes: Annotated[
        Annotated[tuple[Count, ...], MinLen(1)] | None,
        About(
            "or centroids of k-means at most, a comma list for several codebooks: reveals more of whom it is fitted to"
        ),
    ] = None
    min_subjects: Annotated[
        Count,
        About(
            "fitted subjects (or videos) that support each centroid; 1: no floor, k-means at the fitted clips",
            parameter="min_subjects",
        ),
    ] = COMMON_FLOOR
    floor: Annotated[
        Floor,
        About(
            "what the subjects are counted for: 'centroid', each centroid of each codebook; 'vector', each vector that "
            f"is released, which takes one codebook, up to {MOST_WHOLE_BITS} bits, and many subjects per bit"
        ),
    ] = "centroid"
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

    if options.dims is not None and options.dims > data.features.shape[1]:
        raise UserError("dims", f"is {options.dims}, features are {data.features.shape[1]} wide", "give fewer")
    if options.floor == "vector" and (options.codes is not None or (options.bits or 0) > MOST_WHOLE_BITS):
        problem = f"'vector' takes at most {MOST_WHOLE_BITS} bits, and no number of codes"
        raise UserError("floor", problem, f"give --bits {MOST_WHOLE_BITS} or fewer, or leave the floor to centroids")
    at_least, owners, unit = options.min_subjects, data.owners, data.unit
    found = len(np.unique(owners[owners >= 0]))
    if found < at_least:
        problem = f"{found} {unit}s, and each centroid is to be supported by {at_least}"
        raise UserError("min_subjects", problem, f"fit to at least {at_least} {unit}s, or lower it")
    classes = data.classes if options.space == "actions" else None
    ridge = RIDGE if at_least > 1 else RIDGE_WITHOUT_FLOOR
    subspace = code_subspace(data.features, classes, dims=options.dims, ridge=ridge)
    places = subspace.places(data.features)
    by_kmeans = options.codes is not None or at_least == 1
    if by_kmeans:
        codes = options.codes or evenly_split_bits(options.bits or 0)  # one of the two is given (`one_of`)
        books = kmeans_codebooks(places, codes, owners, at_least, seed=seed or 0)
    else:
        books = supported_codebooks(places, classes, options.bits or 0, owners, at_least, seed=seed or 0)
        if options.floor == "vector":
            whole = whole_codebook(books) if books else places[:0]
            books = [merge_until_supported(places, whole, owners, at_least)] if len(whole) else []
            if not any(len(book) > 1 for book in books) and found >= 2 * at_least:
                books = [halves_of_owners(places, owners)]
    asked = options.bits or max(options.codes or (1,)) > 1
    if asked and not any(len(book) > 1 for book in books):
        problem = f"of {found} {unit}s no two centroids are supported by {at_least} each"
        would_do = f"{2 * at_least} {unit}s would do" if found < 2 * at_least else f"fit to more than {found} {unit}s"
        raise UserError("min_subjects", problem, f"{would_do}, or lower it")
    if not by_kmeans:  # directions without a level would reveal whom the others were chosen from
        used = np.any([book.any(axis=0) for book in books], axis=0)
        subspace, books = subspace.along(used), [book[:, used] for book in books]
    made = Quantizer.of(subspace.mean, subspace.encode, subspace.decode, books)
    made.architecture["support"] = support_of(made, data, at_least, by_kmeans=by_kmeans).record
    return made


def support_of(made: Quantizer, data: FitData, at_least: int, *, by_kmeans: bool) -> Support:
    """Whom the centroids of a quantizer stand for, by the codes that it gives the data."""
    import torch

    chosen = made.codes(torch.from_numpy(data.features)).numpy()  # [N, codebooks]
    counts = [supporters(column, data.owners, len(book)) for column, book in zip(chosen.T, made.codebooks, strict=True)]
    return Support(data.unit, at_least, "k-means" if by_kmeans else "levels", tuple(map(histogram_of, counts)))


def _describe(made: Quantizer, data: FitData) -> str:
    import torch

    used = made.usage(torch.from_numpy(data.features))
    sizes = " x ".join(map(str, made.architecture["codes"]))
    bits = f"at most {used.budget:.2f} bits a clip (used {used.entropy:.2f}, {used.distinct} vectors)"
    alone = vector_owners(made.codes(torch.from_numpy(data.features)).numpy(), data.owners)
    owned = f"{100 * alone.share:.0f} % of these vectors are of one {data.unit} alone"
    return f"{sizes} codes, {bits}, each supported by {Support.of(made.architecture['support'])}; {owned}"


QUANTIZER = ClosedForm(
    "quantizer",
    "releases one of few vectors for each clip: a bound on what any attacker gets from it",
    fit=_fit,
    options=QuantizerOptions,
    uses=("classes", "subjects"),
    without_classes={"space": "features"},
    one_of=("bits", "codes"),
    place="quantize",
    seed="draws",
    tried=(
        *({"bits": bits} for bits in (8, 12, 16, 20, 24)),
        *({"bits": bits, "space": "features"} for bits in (12, 20)),
        {"codes": (256,)},
    ),
    tried_last=tuple({"bits": bits} for bits in (12, 16, 20)),
    describe=_describe,
)
