"""Reading a store in one HDF5 file, the format of the published features."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

from splavu.errors import UserError
from splavu.stores.provenance import CHECKSUM_ATTRIBUTE, EXTRACT_AGAIN, checksum, plain, warn_without_attributes
from splavu.stores.reader import FeatureReader

HDF5_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError)
"""What h5py raises for a file whose structure is damaged."""


class FeatureStore(FeatureReader):
    """An HDF5 file with one float32 dataset [K, D] or [D] per key, the format of the published features.

    A key with slashes is a dataset in nested groups. The file is opened again in each process, so the object may be
    pickled and may be used in the workers of a DataLoader, forked or spawned. Attributes are read at construction,
    keys on first use. Data of another float type are converted when read; `verify` refuses them.

    Args:
        path: The file.
        feature_dim: Width expected; checked on the first key now and on every array read. None takes the store's own.
        check_first: False leaves the first key unchecked, for `verify`, which reports the faults of all keys.

    Raises:
        UserError: The file is missing, is no complete HDF5 file, holds nothing, or has another width.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, feature_dim: int | None = None, check_first: bool = True
    ) -> None:
        self.path = Path(path)
        self._feature_dim = feature_dim
        self._file: h5py.File | None = None
        self._pid = 0
        file = self._open()
        try:
            self.attributes = {str(plain(name)): plain(value) for name, value in file.attrs.items()}
            first = next(_dataset_names(file, first_only=True), None)
        except HDF5_ERRORS as error:
            raise UserError(self.path, f"its table of contents is damaged ({error})", EXTRACT_AGAIN) from error
        if first is None:
            raise UserError(self.path, "the store is empty", EXTRACT_AGAIN)
        self._first = first
        shape, _ = self._header(first, checked=True)
        if self._feature_dim is None and shape:
            self._feature_dim = shape[-1]
        if check_first:
            self._check_shape(first, shape)
        if not self.attributes:
            warn_without_attributes(str(self.path))

    def keys(self) -> list[str]:
        return list(self._keys)

    @functools.cached_property
    def _keys(self) -> list[str]:
        return sorted(_dataset_names(self._open()))

    def __getitem__(self, key: str) -> np.ndarray:
        dataset = self._dataset(key)
        self._check_shape(key, dataset.shape)
        features = np.empty(dataset.shape, dtype=np.float32)
        try:
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, features)
        except (OSError, TypeError) as error:
            raise UserError(self.path, f"'{key}' cannot be read ({error})", EXTRACT_AGAIN) from error
        return features

    def status(self) -> os.stat_result:
        return os.fstat(self._open().id.get_vfd_handle())

    def is_as_written(self, key: str, features: np.ndarray) -> bool | None:
        recorded = h5py.Dataset(self._dataset(key)).attrs.get(CHECKSUM_ATTRIBUTE)
        return None if recorded is None else plain(recorded) == checksum(features)

    def dataset_attributes(self, key: str) -> dict[str, object]:
        """The attributes of the dataset `key`, such as its checksum."""
        attributes = h5py.Dataset(self._dataset(key)).attrs
        return {name: np.bytes_(value) if isinstance(value, bytes) else value for name, value in attributes.items()}

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _first_key(self) -> str:
        return self._first

    def _header(self, key: str, *, checked: bool = False) -> tuple[tuple[int, ...], np.dtype]:
        dataset = self._dataset(key, checked=checked)
        return dataset.shape, dataset.dtype

    def _dataset(self, key: str, *, checked: bool = False) -> h5py.h5d.DatasetID:
        # h5py's low level: its Dataset objects cost several times the reading of a small array.
        if not checked:
            self._require(key)
        try:
            return h5py.h5d.open(self._open().id, key.encode(errors="surrogateescape"))
        except (KeyError, OSError) as error:
            raise UserError(self.path, f"'{key}' cannot be opened ({error})", EXTRACT_AGAIN) from error

    def _open(self) -> h5py.File:
        if self._file is None or self._pid != os.getpid():
            self.close()  # after a fork: the parent's handle shares its state with ours
            self._file, self._pid = _open_hdf5(self.path), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}


def _open_hdf5(path: Path) -> h5py.File:
    if not path.is_file():
        raise UserError(path, "no such feature store", "check the path, or extract the features first")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise UserError(
            path, "not a complete HDF5 file (truncated, or of another format)", "delete it and " + EXTRACT_AGAIN
        ) from error


def _dataset_names(file: h5py.File, *, first_only: bool = False) -> Iterator[str]:
    names: list[str] = []

    def collect(name: bytes, info: h5o.ObjInfo) -> bool | None:
        if info.type == h5o.TYPE_DATASET:
            names.append(name.decode(errors="surrogateescape"))
            return first_only or None  # True ends the visit
        return None

    h5o.visit(file.id, collect, info=True)
    yield from names
