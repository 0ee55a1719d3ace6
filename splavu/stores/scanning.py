"""A store read once from beginning to end, with each feature checked.

Note: this isn't for training. Features come in the order of their keys, or in one that is asked for. The bytes of an
HDF5 store are read without HDF5, whose handles would take longer than the bytes: places, shapes and checksums are
listed first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence

import h5py
import numpy as np

from splavu.errors import UserError
from splavu.stores.hdf5 import HDF5_ERRORS, FeatureStore
from splavu.stores.hdf5_layout import FLOAT
from splavu.stores.provenance import CHECKSUM_ATTRIBUTE, EXTRACT_AGAIN
from splavu.stores.reader import FeatureReader

Header = tuple[str, tuple[int, ...]]
"""Key and shape."""


class Scan:
    """All features of a store.

    Args:
        store: An open store of the expected width.
        order: All of its keys, in the order to read them in; None takes them sorted.

    Attributes:
        headers: Key and shape of each.

    Raises:
        UserError: A key isn't float32, is empty, or has another width.
    """

    def __init__(self, store: FeatureReader, *, order: Sequence[str] | None = None) -> None:
        self.store = store
        keys = store.keys() if order is None else order
        self._places: dict[str, tuple[int, bytes | None]] = {}  # key -> (place in the file, checksum)
        if isinstance(store, FeatureStore):
            self.headers = [(key, self._list(dataset, key)) for key, dataset in _datasets(store, keys)]
        else:
            self.headers = [(key, store.check_header(key, *store.header(key))) for key in keys]

    def features(self, start: int = 0) -> Iterator[np.ndarray]:
        """The arrays of `headers[start:]`, as stored.

        Raises:
            UserError: One can't be read, holds values that are not finite, or isn't what was written.
        """
        if not self._places:
            yield from (self.store.verified(key, checksums=True) for key, _ in self.headers[start:])
            return
        file = os.open(self.store.path, os.O_RDONLY)
        try:
            for key, shape in self.headers[start:]:
                yield self._read(file, key, shape) if key in self._places else self.store.verified(key, checksums=True)
        finally:
            os.close(file)

    def _list(self, dataset: h5py.h5d.DatasetID, key: str) -> tuple[int, ...]:
        """The shape of a dataset; its place is noted if it is contiguous and uncompressed."""
        try:
            if not dataset.get_type().equal(h5py.h5t.IEEE_F32LE):
                return self.store.check_header(key, dataset.shape, dataset.dtype)
            shape = self.store.check_header(key, dataset.shape, FLOAT)
            place = dataset.get_offset()
            if place is not None and dataset.get_storage_size() == np.prod(shape) * FLOAT.itemsize:
                digest = None
                if h5py.h5a.exists(dataset, CHECKSUM_ATTRIBUTE.encode()):
                    text = np.empty((), "S64")
                    h5py.h5a.open(dataset, CHECKSUM_ATTRIBUTE.encode()).read(text)
                    digest = bytes.fromhex(text.item().decode())
                self._places[key] = place, digest
        except HDF5_ERRORS as error:
            raise UserError(self.store.path, f"'{key}' cannot be opened ({error})", EXTRACT_AGAIN) from error
        return shape

    def _read(self, file: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
        place, digest = self._places[key]
        features = np.empty(shape, FLOAT)
        if os.preadv(file, [features.reshape(-1).view(np.uint8)], place) != features.nbytes:
            raise UserError(self.store.path, f"'{key}' is cut short", EXTRACT_AGAIN)
        self.store.check_finite(key, features)
        if digest is not None and hashlib.sha256(features.reshape(-1)).digest() != digest:
            raise UserError(self.store.path, f"'{key}' is not what was written: its checksum differs", EXTRACT_AGAIN)
        return features


def _datasets(store: FeatureStore, keys: Sequence[str]) -> Iterator[tuple[str, h5py.h5d.DatasetID]]:
    with h5py.File(store.path, "r", locking=False) as file:
        for key in keys:
            try:
                yield key, h5py.h5d.open(file.id, key.encode(errors="surrogateescape"))
            except HDF5_ERRORS as error:
                raise UserError(store.path, f"'{key}' cannot be opened ({error})", EXTRACT_AGAIN) from error
