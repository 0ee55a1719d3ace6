"""Writing an HDF5 store item by item, by one process or several, so that an interruption at any moment loses nothing.

Each item is kept in a part file of the journal. At the end the parts become one file without room for a second copy:
the new store is laid out with places for all features, then the content of a few parts at a time is written into it,
and a part is deleted once its content is on the disk. An interrupted merge goes on with the parts that are left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from splavu.errors import UserError
from splavu.runtime.files import replacing
from splavu.stores.hdf5 import FeatureStore
from splavu.stores.hdf5_layout import lay_out
from splavu.stores.journal import JournaledWriter
from splavu.stores.provenance import (
    ATTRIBUTES_FILE,
    CHECKSUM_ATTRIBUTE,
    EXTRACT_AGAIN,
    checksum,
    read_json,
    refuse_conflict,
)

logger = logging.getLogger(__name__)

BYTES_MOVED_AT_ONCE = 2**26
"""Of parts into the store that they become, before they are deleted."""


class StoreWriter(JournaledWriter):
    """Writes one HDF5 store item by item.

    Each `add` writes one part file into `<path>.partial/`; its checksum is tested on resuming. Leaving the `with` block
    normally merges the parts and the features of an existing store into one file, which then gets the store's name in
    one move. Leaving it by an exception keeps the parts for the next run. If nothing was ever added, no file is
    written. Keys are merged in sorted order, so the bytes of a store don't depend on where its run was interrupted.

    Several processes, also on several nodes that share a file system with `flock`, fill a store together when each has
    its `shard`. Their keys must differ. The last process to leave its block merges.

    Args:
        path: The store to write or to extend.
        attributes: Provenance, kept as the file's attributes.
        resume: Keep the journal and the store of an earlier run. False replaces both; not for a shard, which would
            delete the parts of the others.
        shard: (index, number of shards), or None for the only writer.

    Attributes:
        is_merged: Whether this writer merged the store when it left.
        failures: Key -> why it has no features, for the caller to fill; after merging, those of all shards.

    Raises:
        UserError: The existing store or journal has other attributes, or another process is writing this store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        attributes: Mapping[str, str | int | float],
        resume: bool = True,
        shard: tuple[int, int] | None = None,
    ) -> None:
        if shard is not None and not resume:
            raise ValueError("a shard can't replace a store")
        super().__init__(path, attributes)
        self.resume = resume
        self.shard = shard
        self.is_merged = False
        self.failures: dict[str, str] = {}
        self._is_shared = shard is not None
        self._described = self._journal.path / ATTRIBUTES_FILE
        self._unfilled = self._journal.path / "merging.h5"  # the store that the parts become, once that has begun
        self._stored: set[str] = set()  # keys of the finished store
        self._parts: dict[str, Path] = {}
        self._groups: set[str] = set()  # 'a' and 'a/b' of a key 'a/b/c'
        self._width: int | None = None

    def _take_up(self) -> None:
        if self.shard is None:
            if not self.resume:
                self._journal.clear()
            elif self._unfilled.exists():
                self._fill()
            self._recover()
            self._recover_parts()
            return
        while self._unfilled.exists():  # one shard ends the merge that was interrupted, the others wait
            self._journal.release()
            self._journal.acquire(shared=False, wait=True)
            if self._unfilled.exists():
                self._fill()
            self._journal.release()
            self._journal.acquire(shared=True)
        self._failures_of(*self.shard).unlink(missing_ok=True)
        self._recover()

    def _holds_work(self) -> bool:
        return bool(self._part_files()) or self._unfilled.exists() or self.shard is not None

    def _finish(self) -> None:
        if self.shard is None:
            self._merge()
        else:
            self._leave_shard(*self.shard)

    def __len__(self) -> int:
        return len(self._stored) + len(self._parts)

    def done(self, key: str) -> bool:
        """Whether `key` is in the store or the journal already."""
        if self.shard is not None and key not in self._stored and key not in self._parts:
            part = self._part(key)
            if part.exists():  # the parts of other shards are not read
                self._recover_part(part)
        return key in self._stored or key in self._parts

    def add(self, key: str, features: np.ndarray) -> None:  # [K, D] or [D]
        """Put the features of `key` into the journal, as float32.

        Raises:
            UserError: The key is no HDF5 name or is there already; the features are empty, of another width than
                those before, or not finite.
        """
        features = np.ascontiguousarray(features, dtype=np.float32)
        self._check(key, features)
        part = self._part(key)
        with replacing(part, durable=False) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(key), features=features)
        self._register(key, part, features.shape[-1])

    def _check(self, key: str, features: np.ndarray) -> None:
        if "\0" in key or any(name in ("", ".") for name in key.split("/")):
            raise UserError(self.path, f"'{key}' cannot be a key of an HDF5 file", "rename the video")
        if self.done(key):
            raise UserError(self.path, f"'{key}' is stored already", "give each video another name")
        if key in self._groups or any(self.done(group) for group in _groups_of(key)):
            raise UserError(self.path, f"'{key}' is both a feature and a folder of features", "rename the video")
        if features.ndim not in (1, 2) or features.size == 0:
            raise UserError(self.path, f"'{key}' has shape {features.shape}, (K, D) or (D,) expected")
        if self._width not in (None, features.shape[-1]):
            raise UserError(
                self.path,
                f"'{key}' is {features.shape[-1]} wide, what the store holds is {self._width} wide",
                "write another encoder's features to another file",
            )
        if not np.isfinite(features).all():
            raise UserError(self.path, f"the features of '{key}' are not finite", "check the video and the weights")

    def _register(self, key: str, part: Path, width: int) -> None:
        self._parts[key] = part
        self._groups.update(_groups_of(key))
        self._width = width

    def _recover(self) -> None:
        """Read the existing store, and check that store and journal have the attributes of this run."""
        if self.resume and self.path.exists():
            store = FeatureStore(self.path)
            refuse_conflict(self.path, store.attributes, self.attributes)
            self._stored, self._width = set(store), store.feature_dim
            self._groups.update(group for key in store for group in _groups_of(key))
            store.close()
        if self._part_files():
            refuse_conflict(self._journal.path, read_json(self._described), self.attributes)
        with replacing(self._described, durable=False) as temporary:
            temporary.write_text(json.dumps(self.attributes, indent=1), encoding="utf-8")

    def _recover_parts(self) -> None:
        """Read all parts; to be called when no other process writes any."""
        for part in self._part_files():
            self._recover_part(part)
        self._journal.clear_torn()

    def _recover_part(self, part: Path) -> None:
        try:
            key, features = _read_part(part)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            logger.warning("%s: damaged by an interruption, will be written again", part)
            part.unlink()
            return
        if key in self._stored:  # interrupted between the move and the removal of the journal
            part.unlink()
        else:
            self._register(key, part, features.shape[-1])

    def _leave_shard(self, index: int, count: int) -> None:
        """Mark this shard as done, and merge if it is the last: then no other process holds the lock."""
        with replacing(self._failures_of(index, count), durable=False) as temporary:
            temporary.write_text(json.dumps(self.failures), encoding="utf-8")
        self._journal.release()
        try:
            self._journal.acquire(shared=False)
        except UserError:  # other shards are still running
            return
        markers = [self._failures_of(other, count) for other in range(count)]
        if not all(marker.exists() for marker in markers):  # another has merged, or has not run yet
            if not any(self._journal.path.glob("*.json")):
                self._journal.remove()
            return
        for marker in markers:
            self.failures.update(read_json(marker))
        self._recover()
        self._recover_parts()
        self._merge()

    def _merge(self) -> None:
        if not self:
            logger.warning("%s: nothing was added, no file is written", self.path)
        elif self._parts:
            self._lay_out()
            self._fill()
        self._journal.remove()
        self.is_merged = True

    def _lay_out(self) -> None:
        """Write the new store: complete but for the content of the parts, whose places are there."""
        old = FeatureStore(self.path) if self._stored else None
        kept = {} if old is None else old.attributes
        attributes = self.attributes | {name: kept[name] for name in kept.keys() - self.attributes}
        copied: list[tuple[int, str]] = []  # places and keys of what the old store holds

        def items() -> Iterator[tuple[str, tuple[int, ...], Mapping[str, object]]]:
            for index, key in enumerate(sorted(self._parts.keys() | self._stored)):
                if key in self._parts:
                    features = _read_part(self._parts[key])[1]
                    yield key, features.shape, {CHECKSUM_ATTRIBUTE: np.bytes_(checksum(features))}
                else:
                    assert old is not None, "what is no part is stored"
                    copied.append((index, key))
                    yield key, old.header(key)[0], old.dataset_attributes(key)

        with replacing(self._unfilled) as temporary:
            places = lay_out(temporary, items(), attributes)
            with temporary.open("rb+") as file:
                if old is not None:
                    for index, key in copied:
                        _write(file, old[key], places[index])
                    old.close()

    def _fill(self) -> None:
        """Move the content of the parts into the new store, and that to its name."""
        moved: list[Path] = []
        num_bytes = 0

        def settle() -> None:
            content.flush()
            os.fsync(content.fileno())
            while moved:
                moved.pop().unlink()

        with h5py.File(self._unfilled, "r", locking=False) as file, self._unfilled.open("rb+") as content:
            for part in self._part_files():
                key, features = _read_part(part)
                dataset = h5py.Dataset(file[key.encode(errors="surrogateescape")].id)
                if dataset.shape != features.shape:
                    raise UserError(part, f"does not fit its place in {self._unfilled}", EXTRACT_AGAIN)
                _write(content, features, dataset.id.get_offset())
                moved.append(part)
                num_bytes += features.nbytes
                if num_bytes >= BYTES_MOVED_AT_ONCE:
                    settle()
                    num_bytes = 0
            settle()
        self._unfilled.replace(self.path)

    def _part(self, key: str) -> Path:
        """The file of the journal that holds the features of `key`."""
        return self._journal.path / (hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32] + ".npz")

    def _part_files(self) -> list[Path]:
        """All parts, in the order of their names."""
        return sorted(self._journal.path.glob("*.npz"))

    def _failures_of(self, index: int, count: int) -> Path:
        """The file that shard `index` of `count` leaves when it has done all it could: its failures."""
        return self._journal.path / f"shard-{index}-of-{count}.json"


def _read_part(part: Path) -> tuple[str, np.ndarray]:
    with np.load(part, allow_pickle=False) as content:  # a zip: reading tests the checksums
        return str(content["key"]), content["features"]


def _write(file: BinaryIO, features: np.ndarray, place: int) -> None:
    file.seek(place)
    file.write(np.ascontiguousarray(features, dtype="<f4").data)


def _groups_of(key: str) -> list[str]:
    names = key.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names))]
