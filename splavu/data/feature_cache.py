"""The features of many videos as one table of rows: read into memory if they are few, else mapped from a cache file.

An HDF5 store costs a look-up and a read for each clip drawn. From a table, a batch is one gather. Mapped rows are page
cache: processes share them and the system reclaims them under memory pressure, so they don't count as memory of the
process. A data set therefore holds at most `IN_MEMORY_BYTES` for its clips and as much for its static clips (twice
that while it reads them), however large its stores are. Only where the disk is full may it hold more, with a warning.

The cache of a store is two files in `.packed/` beside it: `.npy`, the rows [R, D] of all videos, and `.npz`, the keys
and their numbers of rows. Their name has a fingerprint of the store, so a store that changed in size, time, inode or
attributes is cached again.

Note: the lock only spares other processes the same work. A file is complete because it gets its name last
(`splavu.runtime.files`), and the cache counts only if both files are there and fit together.

Letters: V videos, K clips of one video, R rows of all videos, D feature width.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.files import TEMPORARY, replacing
from splavu.runtime.progress import progress_bar
from splavu.stores import NPY_ERRORS, FeatureReader

logger = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2**29
"""Features up to this size are read at each opening; larger ones are cached once and mapped."""
FOLDER = ".packed"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The errors of a system that has no space."""
_FORMAT = 3


@dataclass(frozen=True)
class ClipTable:
    """Rows of features and where each video's rows begin.

    A mapped table is pickled by its path, and maps the file again when it is unpickled.
    """

    rows: NDArray
    """[R, D] float32."""
    start: NDArray
    """[V] int64: the first row of each video."""
    num_clips: NDArray
    """[V] int64: its number of rows."""
    path: Path | None = None
    """The cache file; None if the rows are in memory."""

    @property
    def feature_dim(self) -> int:
        """D."""
        return self.rows.shape[1]

    @property
    def num_bytes(self) -> int:
        """Size of all rows."""
        return self.rows.nbytes

    def __reduce__(self) -> tuple:
        if self.path is None:
            return ClipTable, (self.rows, self.start, self.num_clips)
        return _map_again, (self.path, self.start, self.num_clips)


def open_table(store: FeatureReader, keys: Sequence[str], *, cache: Path | None = None) -> ClipTable:
    """The features of `keys`, in memory if they take no more than `IN_MEMORY_BYTES` and half of what is left of the
    memory, else from `cached_table`.

    Raises:
        UserError: A feature is missing or faulty, or there is neither disk nor memory for them.
    """
    limit = min(IN_MEMORY_BYTES, limits.left() / 2)
    if store.path.stat().st_size * len(keys) <= limit * len(store):
        table = table_in_memory(store, keys, limit=limit)
        if table is not None:  # None: the store is compressed and takes more memory than disk
            return table
    return cached_table(store, keys, cache=cache)


def table_in_memory(store: FeatureReader, keys: Sequence[str], *, limit: float) -> ClipTable | None:
    """The features of `keys`, checked and read into memory; None if they take more bytes than `limit`.

    Takes twice their size while it reads.
    """
    features, num_bytes = [], 0
    for key in keys:
        features.append(store.verified(key).reshape(-1, store.feature_dim))  # [K, D]
        num_bytes += features[-1].nbytes
        if num_bytes > limit:
            return None
    num_clips = np.array([len(rows) for rows in features], dtype=np.int64)
    return ClipTable(np.concatenate(features), _starts(num_clips), num_clips)


def cached_table(store: FeatureReader, keys: Sequence[str] | None = None, *, cache: Path | None = None) -> ClipTable:
    """The features of `keys` (None takes all) from the store's cache, which is built if there is none.

    All features of the store are cached, and checked while the cache is built. Where the disk is full or no folder can
    be written, features that take half of what is left of the memory are read into it instead.

    Args:
        store: One file, of any format.
        keys: Videos, in the order of the table.
        cache: Folder for cache files; None takes `.packed/` beside the store or, where that can't be written, a folder
            below the system's folder for temporary files.

    Raises:
        UserError: A feature is missing or faulty, the store changes while it is read, or there is no room for its
            features.
    """
    try:
        file = _cached(store, cache)
    except OSError as error:
        return _uncached(store, store.keys() if keys is None else keys, error)
    place = {key: index for index, key in enumerate(file.keys)}
    wanted = file.keys if keys is None else keys
    if missing := [key for key in wanted if key not in place]:
        store.header(missing[0])  # raises, and says which keys there are
    chosen = np.array([place[key] for key in wanted], dtype=np.int64)
    return ClipTable(file.rows, _starts(file.num_clips)[chosen], file.num_clips[chosen], file.path)


@dataclass(frozen=True)
class CacheFile:
    """What a cache holds."""

    path: Path
    keys: list[str]
    """V videos, in the order of their rows."""
    num_clips: NDArray
    """[V] int64"""
    rows: NDArray
    """[R, D] float32, mapped."""


def read_cache(path: Path) -> CacheFile | None:
    """The cache whose rows are in `path`; None if there is none, or it is incomplete or damaged."""
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as index:
            keys = index["keys"].tobytes().decode(errors="surrogateescape").split("\0")
            num_clips = index["num_clips"]
        # Copy on write, since torch warns of arrays that can't be written. They are only read, so nothing is copied.
        rows = np.load(path, mmap_mode="c", allow_pickle=False)
        is_complete = path.stat().st_size == rows.offset + rows.nbytes
    except (*NPY_ERRORS, zipfile.BadZipFile, AttributeError):
        return None
    fits = is_complete and rows.ndim == 2 and len(rows) == num_clips.sum() and len(keys) == len(num_clips)
    return CacheFile(path, keys, num_clips, rows) if fits else None


def _cached(store: FeatureReader, cache: Path | None) -> CacheFile:
    """All features of `store` in its cache; if several processes want the same one, one builds it and the others wait.

    Raises:
        OSError: There is no space (`DISK_FULL`), or no folder can be written.
        UserError: A feature is faulty, or the store changes while it is read.
    """
    folders = _folders(store.path, cache)
    name = f"{store.path.name}-{_fingerprint(store)}.npy"
    for folder in folders:
        if (found := read_cache(folder / name)) is not None:
            return found
    folder = folders[0]
    for folder in folders:
        if _is_writable(folder):
            break
        logger.warning("%s can't be written", folder)
    path = folder / name
    with _lock(folder / f"{store.path.name}.lock") as is_locked:
        if (found := read_cache(path)) is not None:
            return found
        of_store = f"{glob.escape(store.path.name)}-{'[0-9a-f]' * 16}.*"
        if is_locked:
            for torn in folder.glob(f".{of_store}{TEMPORARY}"):  # left by processes that were killed
                torn.unlink()
        logger.info("%s: cached once in %s", store.path, path)
        _build(store, path)
        for old in folder.glob(of_store):
            if old not in (path, path.with_suffix(".npz")):
                old.unlink(missing_ok=True)  # existing memory maps remain valid after unlink
        if (built := read_cache(path)) is None:
            raise UserError(path, "is not what was written", "check the disk")
        return built


def _build(store: FeatureReader, path: Path) -> None:
    """Write the two files of a cache, all features checked."""
    before, keys, stat = _fingerprint(store), store.keys(), store.status()
    num_clips = np.zeros(len(keys), dtype=np.int64)
    if shutil.disk_usage(path.parent).free < stat.st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    mode = stat.st_mode & 0o777 | 0o600  # a user who may not read the store may not read its cache
    with replacing(path.with_suffix(".npz")) as index, replacing(path) as rows:
        with rows.open("wb") as file:
            rows.chmod(mode)
            _write_header(file, 0, store.feature_dim)
            shown = progress_bar(keys, desc=f"caching {store.path.name}", unit=" videos", disable=None)
            for place, key in enumerate(shown):
                features = store.verified(key).reshape(-1, store.feature_dim)  # [K, D]
                file.write(np.ascontiguousarray(features, dtype="<f4").data)
                num_clips[place] = len(features)
            file.seek(0)
            _write_header(file, int(num_clips.sum()), store.feature_dim)
        with index.open("wb") as file:
            index.chmod(mode)
            names = "\0".join(keys).encode(errors="surrogateescape")
            np.savez(file, keys=np.frombuffer(names, dtype=np.uint8), num_clips=num_clips)
        if _fingerprint(store) != before:
            raise UserError(store.path, "changes while it is read", "wait until it is written")


def _write_header(file: BinaryIO, num_rows: int, feature_dim: int) -> None:
    # The same length for any number of rows: NumPy leaves room for a growing first axis.
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, feature_dim)}
    np.lib.format.write_array_header_1_0(file, header)


def _map_again(path: Path, start: NDArray, num_clips: NDArray) -> ClipTable:
    """The table of a cache in another process."""
    file = read_cache(path)
    if file is None:
        raise UserError(path, "is missing or damaged", "start again: it is built again")
    return ClipTable(file.rows, start, num_clips, path)


def _uncached(store: FeatureReader, keys: Sequence[str], error: OSError) -> ClipTable:
    """The features that could not be cached, in memory if they fit."""
    problem = f"can't be cached ({error})"
    if error.errno in DISK_FULL:
        problem = f"no space to cache it, {store.path.stat().st_size / 2**30:.2f} GiB are needed"
    table = table_in_memory(store, keys, limit=limits.left() / 2)
    if table is None:
        raise UserError(store.path, f"{problem}, and the memory is too small for it", "free disk space") from error
    logger.warning("%s: %s; it is read into memory instead", store.path, problem)
    return table


def _folders(store: Path, cache: Path | None) -> list[Path]:
    """Where the cache of `store` may be, the better place first."""
    beside = store.resolve().parent
    shared = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]  # stores of two folders may have one name
    if cache is not None:
        return [Path(cache) / shared]
    user = os.getuid() if hasattr(os, "getuid") else 0
    temporary = Path(tempfile.gettempdir()) / f"splavu-packed-{user}"
    is_strange = temporary.exists() and temporary.stat().st_uid != user  # any user may make it
    return [beside / FOLDER] + ([] if is_strange else [temporary / shared])


def _is_writable(folder: Path) -> bool:
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno in DISK_FULL


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Holds the lock of a cache; False where files can't be locked."""
    lock = FileLock(path)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        logger.warning("%s: can't be locked (%s)", path, error)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _fingerprint(store: FeatureReader) -> str:
    """A digest that differs for another content of the store's file."""
    states = [store.status(), *(path.stat() for path in store.files() if path != store.path)]
    times = [(stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in states]
    described = [_FORMAT, times, store.feature_dim, store.attributes]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _starts(num_clips: NDArray) -> NDArray:  # [V] -> [V]
    return np.cumsum(num_clips) - num_clips
