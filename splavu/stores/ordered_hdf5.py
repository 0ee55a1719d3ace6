"""An HDF5 store whose features go straight to their places in it.

HDF5 isn't safe against a kill, so it writes only while there is nothing to lose: it lays the file out when all there is
are names and shapes. From then on features and checksums are plain bytes written to known places; writing them again
does no harm. HDF5 tells where features belong. Where checksums do, it doesn't: each is laid out as a text of its own,
which is then looked for.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from splavu.stores.files import written_aside
from splavu.stores.ordered import FeatureWriter
from splavu.stores.provenance import CHECKSUM_ATTRIBUTE
from splavu.stores.scanning import FLOAT, Header

PLACEHOLDER = b"splavu-checksum-of-item-%040d"
"""As long as a checksum in hexadecimal, 64 characters."""


class StoreInOrder(FeatureWriter):
    """A `FeatureWriter` of one HDF5 file; keys as `StoreWriter` takes them."""

    _content: int | None = None

    def _open(self) -> None:
        self._unfinished = self._journal.path / "store.h5"
        places = self._journal.path / "places.npy"
        if not places.exists():
            found = _lay_out(self._unfinished, self.headers, self.attributes)
            with written_aside(places, durable=True) as temporary, temporary.open("wb") as file:
                np.save(file, found)
        self._places, self._checksum_places = np.load(places).tolist()
        self._content = os.open(self._unfinished, os.O_RDWR)

    def _put(self, index: int, item: np.ndarray) -> tuple[int, bytes]:
        features = self._checked(index, item)
        digest = hashlib.sha256(features.reshape(-1))
        _write_at(self._content, features.data.cast("B"), self._places[index])
        _write_at(self._content, memoryview(digest.hexdigest().encode()), self._checksum_places[index])
        return features.nbytes, digest.digest()

    def _digest(self, index: int) -> bytes:
        length = int(np.prod(self.headers[index][1])) * FLOAT.itemsize
        digest = hashlib.sha256(os.pread(self._content, length, self._places[index]))
        is_noted = os.pread(self._content, 64, self._checksum_places[index]) == digest.hexdigest().encode()
        return digest.digest() if is_noted else b""

    def _sync(self) -> None:
        os.fsync(self._content)

    def _finish(self) -> None:
        self._unfinished.replace(self.path)

    def _close(self) -> None:
        if self._content is not None:
            os.close(self._content)
            self._content = None


def _lay_out(path: Path, headers: Sequence[Header], attributes: Mapping[str, object]) -> np.ndarray:  # -> [2, items]
    """Write a store that lacks but its features, which are holes, and their checksums; returns the places of both."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    early.set_obj_track_times(False)  # the same bytes whenever it is made
    scalar, text = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.py_create(np.dtype("S64"), logical=True)
    number = h5py.h5t.py_create(FLOAT, logical=True)
    spaces = {shape: h5py.h5s.create_simple(shape) for shape in {shape for _, shape in headers}}
    places = np.empty(len(headers), np.int64)
    with written_aside(path, durable=True) as temporary:
        with h5py.File(temporary, "w", locking=False) as file:
            file.attrs.update(attributes)
            parent, parent_name = file, ""
            for index, (key, shape) in enumerate(headers):
                # h5py's low level, which takes half as long as create_dataset and makes the same bytes.
                folder, _, name = key.rpartition("/")
                if folder != parent_name:
                    parent, parent_name = file.require_group(folder) if folder else file, folder
                name = name.encode(errors="surrogateescape")
                dataset = h5py.h5d.create(parent.id, name, number, spaces[shape], early)
                checksum = h5py.h5a.create(dataset, CHECKSUM_ATTRIBUTE.encode(), text, scalar)
                checksum.write(np.array(PLACEHOLDER % index))
                places[index] = dataset.get_offset()
        return np.stack([places, _checksum_places(temporary, headers, places)])


def _checksum_places(path: Path, headers: Sequence[Header], places: np.ndarray) -> np.ndarray:
    pattern = re.compile(PLACEHOLDER.replace(b"%040d", b"([0-9]{40})"))
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


def _write_at(descriptor: int, content: memoryview, position: int) -> None:
    while content:  # one call may write less than it was given
        written = os.pwrite(descriptor, content, position)
        content, position = content[written:], position + written
