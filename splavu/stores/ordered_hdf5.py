"""An HDF5 store whose features go straight to their places in it.

HDF5 itself isn't safe against a kill, so it never writes while there is something to lose. It lays the file out when
all there is are names and shapes, and a second time, beside it, when all checksums are known; both files are equal but
for these. What is written in between, and what is copied from the second layout at the end, are plain bytes at known
places: writing them again does no harm.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from splavu.stores.files import written_aside
from splavu.stores.ordered import FeatureWriter, Header
from splavu.stores.provenance import CHECKSUM_ATTRIBUTE

FLOAT = np.dtype("<f4")


class StoreInOrder(FeatureWriter):
    """A `FeatureWriter` of one HDF5 file; keys as `StoreWriter` takes them."""

    _content: int | None = None

    def _open(self) -> None:
        unfinished, places = self._journal.path / "store.h5", self._journal.path / "places.npy"
        if not places.exists():
            offsets = _lay_out(unfinished, self.headers, self.attributes, digests=None)
            with written_aside(places, durable=True) as temporary, temporary.open("wb") as file:
                np.save(file, offsets)
        self._places: list[int] = np.load(places).tolist()
        self._lengths = [int(np.prod(shape)) * FLOAT.itemsize for _, shape in self.headers]
        self._unfinished = unfinished
        self._content = os.open(unfinished, os.O_RDWR)

    def _put(self, index: int, item: np.ndarray) -> tuple[int, bytes]:
        features = self._checked(index, item)
        _write_at(self._content, features.data.cast("B"), self._places[index])
        return features.nbytes, hashlib.sha256(features.reshape(-1)).digest()

    def _digest(self, index: int) -> bytes:
        return hashlib.sha256(os.pread(self._content, self._lengths[index], self._places[index])).digest()

    def _sync(self) -> None:
        os.fsync(self._content)

    def _finish(self) -> None:
        checksummed = self._journal.path / "checksummed.h5"
        places = _lay_out(checksummed, self.headers, self.attributes, digests=self._digests)
        if places.tolist() != self._places:
            raise RuntimeError(f"{self._journal.path}: HDF5 laid the same file out in two ways")
        size = checksummed.stat().st_size
        with checksummed.open("rb", buffering=0) as layout:
            for start, stop in _gaps(self._places, self._lengths, size):
                layout.seek(start)
                _write_at(self._content, memoryview(layout.read(stop - start)), start)
        os.ftruncate(self._content, size)
        self._sync()
        self._unfinished.replace(self.path)

    def _close(self) -> None:
        if self._content is not None:
            os.close(self._content)
            self._content = None


def _lay_out(
    path: Path, headers: Sequence[Header], attributes: Mapping[str, object], *, digests: Sequence[bytes] | None
) -> np.ndarray:  # -> [items] int64
    """Write a store that is whole but for its features, in whose places are holes; returns these places in the file."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    scalar, text = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.py_create(np.dtype("S64"), logical=True)
    number = h5py.h5t.py_create(FLOAT, logical=True)
    places = np.empty(len(headers), np.int64)
    with written_aside(path, durable=True) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.attrs.update(attributes)
        parent, parent_name = file, ""
        for index, (key, shape) in enumerate(headers):
            # h5py's low level, which takes half as long as create_dataset and makes the same bytes.
            folder, _, name = key.rpartition("/")
            if folder != parent_name:
                parent, parent_name = file.require_group(folder) if folder else file, folder
            space = h5py.h5s.create_simple(shape)
            dataset = h5py.h5d.create(parent.id, name.encode(errors="surrogateescape"), number, space, early)
            checksum = h5py.h5a.create(dataset, CHECKSUM_ATTRIBUTE.encode(), text, scalar)
            checksum.write(np.array(digests[index].hex().encode() if digests else b"0" * 64))
            places[index] = dataset.get_offset()
    return places


def _gaps(places: Sequence[int], lengths: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of what lies between the features, in a file of `size` bytes."""
    position = 0
    for place, length in sorted(zip(places, lengths, strict=True)):
        if place > position:
            yield position, place
        position = place + length
    if size > position:
        yield position, size


def _write_at(descriptor: int, content: memoryview, position: int) -> None:
    while content:  # one call may write less than it was given
        written = os.pwrite(descriptor, content, position)
        content, position = content[written:], position + written
