"""An HDF5 store whose features go straight to their places in it.

`lay_out` makes the file when names and shapes are known; features and checksums are then plain bytes written to known
places. HDF5 reports where features belong, but not where attributes do: each checksum is laid out as a placeholder with
a text of its own, which is then searched for. The text is drawn at random, so nothing that a store brings along can
hold it; in the end no placeholder is left.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from splavu.errors import UserError
from splavu.runtime.files import replacing
from splavu.stores.hdf5_layout import FLOAT, lay_out, write_at
from splavu.stores.npy_files import NPY_ERRORS
from splavu.stores.ordered import FeatureWriter
from splavu.stores.provenance import CHECKSUM_ATTRIBUTE
from splavu.stores.scanning import Header

PLACEHOLDER = b"splavu-%s-%024d"
"""With 32 random digits and the number of an item it is as long as a checksum in hexadecimal, 64 characters."""
NOT_OPEN = -1  # no file descriptor


class StoreInOrder(FeatureWriter):
    """A `FeatureWriter` of one HDF5 file; keys as `StoreWriter` takes them."""

    _content = NOT_OPEN

    def _open(self) -> None:
        self._unfinished = self._journal.path / "store.h5"
        places = self._journal.path / "places.npy"
        if not places.exists():
            found = _lay_out(self._unfinished, self.headers, self.attributes)
            with replacing(places) as temporary, temporary.open("wb") as file:
                np.save(file, found)
        try:
            self._places, self._checksum_places = np.load(places, allow_pickle=False).tolist()
        except (*NPY_ERRORS, AttributeError) as error:
            remedy = f"delete {self._journal.path}, an unfinished store, to start again"
            raise UserError(places, f"is damaged ({error})", remedy) from error
        self._content = os.open(self._unfinished, os.O_RDWR)

    def _put(self, index: int, item: np.ndarray) -> tuple[int, bytes]:
        features = self._checked(index, item)
        digest = hashlib.sha256(features.reshape(-1))
        write_at(self._content, features.data.cast("B"), self._places[index])
        write_at(self._content, memoryview(digest.hexdigest().encode()), self._checksum_places[index])
        return features.nbytes, digest.digest()

    def _digest(self, index: int) -> bytes:
        length = int(np.prod(self.headers[index][1])) * FLOAT.itemsize
        digest = hashlib.sha256(os.pread(self._content, length, self._places[index]))
        is_noted = os.pread(self._content, 64, self._checksum_places[index]) == digest.hexdigest().encode()
        return digest.digest() if is_noted else b""

    def _sync(self) -> None:
        os.fsync(self._content)

    def _complete(self) -> None:
        self._unfinished.replace(self.path)

    def _close(self) -> None:
        if self._content != NOT_OPEN:
            os.close(self._content)
            self._content = NOT_OPEN


def _lay_out(path: Path, headers: Sequence[Header], attributes: Mapping[str, object]) -> np.ndarray:  # -> [2, items]
    """Write a store that lacks only its features and their checksums; returns the places of both."""
    token = secrets.token_hex(16).encode()
    items = (
        (key, shape, {CHECKSUM_ATTRIBUTE: np.bytes_(PLACEHOLDER % (token, index))})
        for index, (key, shape) in enumerate(headers)
    )
    with replacing(path) as temporary:
        places = lay_out(temporary, items, attributes)
        return np.stack([places, _checksum_places(temporary, token, headers, places)])


def _checksum_places(path: Path, token: bytes, headers: Sequence[Header], places: np.ndarray) -> np.ndarray:
    pattern = re.compile(b"splavu-" + token + b"-([0-9]{24})")
    found = np.full(len(headers), -1, np.int64)
    with path.open("rb", buffering=0) as file:
        for start, stop in _gaps(headers, places, path.stat().st_size):
            file.seek(start)
            for match in pattern.finditer(file.read(stop - start)):
                found[int(match[1])] = start + match.start()
    if (found < 0).any():
        raise RuntimeError(f"{path}: HDF5 keeps attributes where they aren't looked for")
    return found


def _gaps(headers: Sequence[Header], places: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of what lies between the features, in a file of `size` bytes."""
    position = 0
    for place, index in sorted(zip(places.tolist(), range(len(headers)), strict=True)):
        if place > position:
            yield position, place
        position = place + int(np.prod(headers[index][1])) * FLOAT.itemsize
    if size > position:
        yield position, size
