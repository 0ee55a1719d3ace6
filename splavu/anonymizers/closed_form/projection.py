"""An affine projection as its two thin factors, and two that read no private label: PCA and random directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
from numpy.typing import NDArray

from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.errors import UserError
from splavu.runtime.schema import Count, Schema

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.affine import AffineAnonymizer
    from splavu.anonymizers.base import Anonymizer

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """`x -> mean + decode encode (x - mean)`: D - r numbers are kept of D."""

    mean: Array  # [D]
    encode: Array  # [D - r, D]
    decode: Array  # [D, D - r]

    @property
    def rank(self) -> int:
        """r, the number of directions removed."""
        return len(self.mean) - len(self.encode)

    @property
    def matrix(self) -> Array:  # [D, D]
        return self.decode @ self.encode

    def __call__(self, features: NDArray) -> Array:  # [N, D] -> [N, D]
        return self.mean + (features - self.mean) @ self.encode.T @ self.decode.T

    @classmethod
    def of_matrix(cls, matrix: Array, mean: Array, *, rank: int) -> Projection:  # [D, D], [D]
        """The factors of a matrix that removes `rank` directions, the encode one with orthonormal rows."""
        left, values, right = np.linalg.svd(matrix)
        kept = len(mean) - rank
        return cls(mean, right[:kept], left[:, :kept] * values[:kept])


def pca(features: NDArray, *, keep: int) -> Projection:  # [N, D]
    """The `keep` directions of largest variance; blind to what is private, and to what is useful."""
    check_kept(keep, features.shape[1])
    mean = features.mean(axis=0, dtype=np.float64)
    _, _, directions = np.linalg.svd(features - mean, full_matrices=len(features) < features.shape[1])
    return Projection(mean, directions[:keep], directions[:keep].T)


def random_projection(features: NDArray, *, keep: int, seed: int = 0) -> Projection:  # [N, D]
    """`keep` directions drawn uniformly, orthonormal; features are read for their mean only."""
    width = features.shape[1]
    check_kept(keep, width)
    directions, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, keep)))
    directions = directions * np.sign(np.diag(triangle))  # uniform only with the signs of QR fixed
    return Projection(features.mean(axis=0, dtype=np.float64), directions.T, directions)


def check_kept(keep: int, width: int) -> None:
    """Refuse numbers of dimensions that can't be kept."""
    if not 1 <= keep <= width:
        raise UserError("keep", f"{keep} of {width} dimensions", f"give 1 to {width}")


@dataclass(frozen=True)
class KeepOptions(Schema):
    """Of PCA and random directions."""

    keep: Annotated[Count | None, About("directions to keep", required=True)] = None


def _fit_pca(data: FitData, options: KeepOptions, seed: int | None) -> AffineAnonymizer:
    return affine(pca(data.features, keep=cast("int", options.keep)), "pca")


def _fit_random(data: FitData, options: KeepOptions, seed: int | None) -> AffineAnonymizer:
    return affine(random_projection(data.features, keep=cast("int", options.keep), seed=seed or 0), "random")


def affine(made: Projection, method: str) -> AffineAnonymizer:
    """The anonymizer that applies a projection."""
    from splavu.anonymizers.affine import AffineAnonymizer

    return AffineAnonymizer.of(made.mean, made.encode, made.decode, method=method)


def describe_affine(made: Anonymizer, data: FitData) -> str:
    """How many directions a projection removes."""
    architecture = made.architecture
    return f"{architecture['method']}, {architecture['rank']} of {architecture['feature_dim']} directions removed"


PCA = ClosedForm(
    "pca",
    "keeps the directions of largest variance",
    fit=_fit_pca,
    options=KeepOptions,
    tried=({"keep": 16}, {"keep": 64}),
    describe=describe_affine,
)
RANDOM = ClosedForm(
    "random",
    "keeps directions drawn at random",
    fit=_fit_random,
    options=KeepOptions,
    seed="draws",
    describe=describe_affine,
)
