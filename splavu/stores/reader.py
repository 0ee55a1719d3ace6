"""Reading a store of any format, and the checks that all formats share."""

from __future__ import annotations

import functools
import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from splavu.errors import UserError
from splavu.stores.provenance import EXTRACT_AGAIN, Attributes

logger = logging.getLogger(__name__)


def first_middle_last(features: np.ndarray) -> np.ndarray:  # [..., D] -> [3 at most, D]
    """Of an array in memory or on disk; only these are read."""
    rows = features.reshape(-1, features.shape[-1])
    return np.array(rows[sorted({0, len(rows) // 2, len(rows) - 1})], dtype=np.float32)


@functools.cache
def _note_conversion(path: str, dtype: str) -> None:
    logger.info("%s: holds %s, which is read as float32", path, dtype)


def rows_in(shape: tuple[int, ...]) -> int:
    """Number of clips (or time steps) of an array of features; 1 for a single feature [D]."""
    return shape[0] if len(shape) > 1 else 1


def shape_problem(shape: tuple[int, ...], width: int | None) -> tuple[str, str]:
    """What is wrong with the shape of a key's features, and the remedy; ('', '') if nothing.

    Args:
        shape: Must be [D], [K, D] or [T, N, D].
        width: D of the store, or that is expected.
    """
    if not shape or 0 in shape:
        return f"is empty (shape {shape})", EXTRACT_AGAIN
    rank = len(shape)
    if rank > 3:
        return f"has {rank} dimensions (shape {shape})", "store [K, D], or [T, N, D] for crops: pool the others"
    if shape[-1] != width:
        problem = f"is {shape[-1]} wide, {width} expected"
        return problem, "give features of one encoder, the one that is expected here"
    return "", ""


class Examined(NamedTuple):
    """The features of a key with what is known of them."""

    features: np.ndarray
    digest: str
    """`provenance.checksum` of them: the same for the same features."""
    is_as_written: bool | None
    """Whether they have the checksum recorded when they were written; None if none was."""


class FeatureReader(ABC):
    """A read-only mapping from key to float32 array.

    Attributes:
        path: The file or folder.
        attributes: Provenance: encoder, weights hash, preprocessing, decoder, version. Empty for foreign stores.
    """

    path: Path
    attributes: Attributes
    _feature_dim: int | None

    @abstractmethod
    def keys(self) -> list[str]:
        """All keys, sorted."""

    @abstractmethod
    def __getitem__(self, key: str) -> np.ndarray:  # -> [K, D], [D], [T, D] or [T, N, D] float32
        """The array of `key`, as stored.

        Raises:
            UserError: There is no such key, its data cannot be read, or it is not `feature_dim` wide.
        """

    @abstractmethod
    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and stored dtype of `key`, without reading its data."""

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and stored dtype of `key`, unchecked, without reading its data."""
        return self._header(key)

    def status(self) -> os.stat_result:
        """Size, times and inode of the file that is read, also if another has replaced it since."""
        return self.path.stat()

    @abstractmethod
    def files(self) -> list[Path]:
        """All files that features are read from."""

    @abstractmethod
    def examined(self, key: str) -> Examined:
        """The array of `key`, and whether it is what was written.

        Raises:
            UserError: As for reading it.
        """

    def __contains__(self, key: object) -> bool:
        return key in self._key_set

    def __len__(self) -> int:
        return len(self._key_set)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    @functools.cached_property
    def _key_set(self) -> frozenset[str]:
        return frozenset(self.keys())

    @property
    def feature_dim(self) -> int:
        """Width D of all features: the one asked for at opening, else that of the first key."""
        if self._feature_dim is None:
            shape, _ = self._header(self._first_key())
            if not shape:
                raise UserError(self.path, f"'{self._first_key()}' is a single number, not a feature", EXTRACT_AGAIN)
            self._feature_dim = shape[-1]
        return self._feature_dim

    def expect(self, feature_dim: int | None) -> None:
        """Take this width for that of all features from now on."""
        self._feature_dim = feature_dim

    def _first_key(self) -> str:
        return self.keys()[0]

    def some_rows(self, key: str) -> np.ndarray:  # -> [3 at most, D]
        """The first, the middle and the last row of `key`, to know it by."""
        return first_middle_last(self[key])

    def num_rows(self, key: str) -> int:
        """Number of clips (or time steps) under `key`; 1 for a single feature [D]."""
        return rows_in(self._header(key)[0])

    def num_bytes(self, keys: Iterable[str] | None = None) -> int:
        """Memory that the features of `keys` (of all keys) take as float32, by their headers.

        Raises:
            UserError: One can't be read.
        """
        return sum(4 * math.prod(self.header(key)[0]) for key in (self.keys() if keys is None else keys))

    def verify(self, keys: Iterable[str] | None = None, *, checksums: bool = False) -> None:
        """Read every feature of `keys` (of all keys) once and check width, dtype, finiteness and that it isn't empty.

        Args:
            keys: Names; None takes all.
            checksums: Also compare them with the checksums recorded when they were written; about twice as slow.

        Raises:
            UserError: The first fault: file, key, what was found, what was expected, what to do.
        """
        for key in self.keys() if keys is None else keys:
            self.verified(key, checksums=checksums)

    def verified(self, key: str, *, checksums: bool = False) -> np.ndarray:  # -> [K, D], [D], [T, D] or [T, N, D]
        """The array of `key`, with the checks of `verify`.

        Raises:
            UserError: The first fault.
        """
        if not checksums:
            features = self[key]
        else:
            features, _, is_as_written = self.examined(key)
            if is_as_written is False:
                raise UserError(self.path, f"'{key}' is not what was written: its checksum differs", EXTRACT_AGAIN)
        self.check_finite(key, features)
        return features

    def check_header(self, key: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
        """The shape, if a dataset with this header holds features of this store's width.

        Raises:
            UserError: It holds no floats, is empty, or of another width.
        """
        self._check_kind(key, dtype)
        self._check_shape(key, shape)
        return shape

    def check_finite(self, key: str, features: np.ndarray) -> None:
        """Refuse features with NaN or infinity.

        Raises:
            UserError: They hold one.
        """
        if not np.isfinite(features).all():
            problem = f"'{key}' holds values that are not finite, or too large for float32"
            raise UserError(self.path, problem, EXTRACT_AGAIN)

    def _require(self, key: str) -> None:
        if key not in self._key_set:
            raise UserError(
                self.path,
                f"no features under '{key}'; it holds {len(self)} keys such as '{self._first_key()}'",
                "check the labels' names against the store, or extract the missing video",
            )

    def _check_kind(self, key: str, dtype: np.dtype) -> None:
        """Refuse what holds no floats; floats of another kind are read as float32, which is said once per store."""
        if dtype == np.float32 and dtype.isnative:
            return
        if dtype.kind != "f":
            raise UserError(self.path, f"'{key}' holds {dtype}, features are floats", "give a store of features")
        _note_conversion(str(self.path), str(dtype))

    def _check_shape(self, key: str, shape: tuple[int, ...]) -> None:
        problem, remedy = shape_problem(shape, self.feature_dim)
        if problem:
            raise UserError(self.path, f"'{key}' {problem}", remedy)
