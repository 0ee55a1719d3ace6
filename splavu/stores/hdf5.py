"""Reading a store in one HDF5 file, the format of the published features."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.stores.hdf5_contents import HDF5_ERRORS, Entry, Refusal, entries
from splavu.stores.provenance import EXTRACT_AGAIN, Attributes, checksum, scalar_attributes, warn_without_attributes
from splavu.stores.reader import Examined, FeatureReader

READING = 1.25
"""Memory that reading and checking an array takes, by that of the array."""


class FeatureStore(FeatureReader):
    """An HDF5 file with one float dataset [K, D] or [D] per key, the format of the published features.

    A key with slashes is a dataset in nested groups. The file is opened again in each process, so the object may be
    pickled and may be used in the workers of a DataLoader, forked or spawned. Attributes are read at construction,
    keys on first use. Links, data of other files and datasets that declare more than the file holds are keys, too,
    but reading one is refused (`hdf5_contents`).

    Args:
        path: The file.
        feature_dim: Width expected; checked on the first key now and on every array read. None takes the store's own.
        check_first: False leaves the first key unchecked, for `verify`, which reports the faults of all keys.

    Raises:
        UserError: The file is missing, is no complete HDF5 file, is open for writing elsewhere, holds nothing, or has
            another width.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, feature_dim: int | None = None, check_first: bool = True
    ) -> None:
        self.path = Path(path)
        self._feature_dim = feature_dim
        self._follows_links = limits.follows_links()
        self._files: dict[Path, h5py.File] = {}
        self._pid = 0
        file = self._open(self.path)
        try:
            self.attributes = self._attributes(file)
            first = next(self._listed(), None)
        except HDF5_ERRORS as error:
            raise self._damaged(error) from error
        if first is None:
            raise UserError(self.path, "the store is empty", EXTRACT_AGAIN)
        self._first, found = first
        if isinstance(found, Refusal):
            if check_first:
                self._refuse(self._first, found)
        else:
            if self._feature_dim is None and found.shape:
                self._feature_dim = found.shape[-1]
            if check_first:
                self._check_shape(self._first, found.shape)
        if not self.attributes:
            warn_without_attributes(str(self.path))

    def keys(self) -> list[str]:
        return list(self._entries)

    @functools.cached_property
    def _entries(self) -> dict[str, Entry | Refusal]:
        """Key -> what stands under it, sorted by key."""
        try:
            return dict(sorted(self._listed()))
        except HDF5_ERRORS as error:
            raise self._damaged(error) from error

    def _listed(self) -> Iterator[tuple[str, Entry | Refusal]]:
        return entries(self.path, self._open, follow_links=self._follows_links)

    def __getitem__(self, key: str) -> np.ndarray:
        entry = self._entry(key)
        self._check_kind(key, entry.dtype)
        self._check_shape(key, entry.shape)
        limits.require(READING * entry.num_bytes, self.path, f"'{key}' (shape {entry.shape})")
        features = np.empty(entry.shape, dtype=np.float32)
        try:
            file = self._open(entry.file)
            if entry.place is None:
                h5py.h5d.open(file.id, entry.name).read(h5py.h5s.ALL, h5py.h5s.ALL, features)
            elif os.preadv(file.id.get_vfd_handle(), [features.reshape(-1).view(np.uint8)], entry.place) != (
                features.nbytes
            ):
                raise ValueError("it is cut short")
        except HDF5_ERRORS as error:
            raise UserError(self.path, f"'{key}' cannot be read ({error})", EXTRACT_AGAIN) from error
        return features

    def status(self) -> os.stat_result:
        return os.fstat(self._open(self.path).id.get_vfd_handle())

    def files(self) -> list[Path]:
        """The file, and those in its folder that it links to where links are followed."""
        if not self._follows_links:
            return [self.path]
        others = {entry.file for entry in self._entries.values() if isinstance(entry, Entry)}
        return [self.path, *sorted(others - {self.path})]

    def examined(self, key: str) -> Examined:
        features, recorded = self[key], self._entry(key).digest
        digest = checksum(features)
        return Examined(features, digest, None if recorded is None else recorded == digest)

    def dataset_attributes(self, key: str) -> dict[str, object]:
        """The attributes of the dataset `key`, such as its checksum."""
        entry = self._entry(key)
        attributes = h5py.Dataset(h5py.h5d.open(self._open(entry.file).id, entry.name)).attrs
        return {name: np.bytes_(value) if isinstance(value, bytes) else value for name, value in attributes.items()}

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        while self._files:
            self._files.popitem()[1].close()

    def _attributes(self, file: h5py.File) -> Attributes:
        def found() -> Iterator[tuple[str, object]]:
            for name in file.attrs:
                try:
                    yield name, file.attrs[name]
                except HDF5_ERRORS as error:
                    raise UserError(self.path, f"its attribute '{name}' is damaged ({error})", EXTRACT_AGAIN) from error

        return scalar_attributes(self.path, found())

    def _first_key(self) -> str:
        if isinstance(self._entries[self._first], Entry):
            return self._first
        return next((key for key, found in self._entries.items() if isinstance(found, Entry)), self._first)

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        entry = self._entry(key)
        return entry.shape, entry.dtype

    def _entry(self, key: str) -> Entry:
        found = self._entries.get(key)
        if isinstance(found, Entry):
            return found
        if found is not None:
            self._refuse(key, found)
        self._require(key)
        raise AssertionError("a key that isn't there is refused")

    def _refuse(self, key: str, found: Refusal) -> None:
        raise UserError(self.path, f"'{key}' {found.problem}", found.remedy or EXTRACT_AGAIN)

    def _damaged(self, error: Exception) -> UserError:
        return UserError(self.path, f"its table of contents is damaged ({error})", EXTRACT_AGAIN)

    def _open(self, path: Path) -> h5py.File:
        if self._pid != os.getpid():
            self.close()  # after a fork: the parent's handles share their state with ours
            self._pid = os.getpid()
        if path not in self._files:
            self._files[path] = _open_hdf5(path)
        return self._files[path]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_files": {}}


def _open_hdf5(path: Path) -> h5py.File:
    if not path.is_file():
        problem = "is no regular file" if path.exists() else "no such feature store"
        raise UserError(path, problem, "check the path, or extract the features first")
    if _is_being_written(path):  # what was written to it so far may lie in that program's memory alone
        raise UserError(path, "another program has it open for writing (h5py?)", "close it there, then try again")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        with path.open("rb") as file:
            is_hdf5 = file.read(8) == HDF5_SIGNATURE
        if is_hdf5 and "already open for write" in str(error):
            problem = "a program that wrote it has not closed it, and may have been killed"
            raise UserError(path, problem, "close it there, or " + EXTRACT_AGAIN) from error
        problem = "not a complete HDF5 file (truncated)" if is_hdf5 else "not an HDF5 file"
        remedy = EXTRACT_AGAIN if is_hdf5 else "give a store of features"
        raise UserError(path, problem, remedy) from error


HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _is_being_written(path: Path) -> bool:
    """Whether another program holds the lock that HDF5 takes to write a file."""
    if os.name != "posix":
        return False
    import fcntl

    with contextlib.suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
