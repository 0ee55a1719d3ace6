"""The features of many videos as one table of rows: read into memory if they are few, else mapped from a packed file.

An HDF5 store costs a look-up and a read for each clip drawn. From a table, a batch is one gather. Mapped rows are page
cache, shared by processes and given up under pressure; they don't count as memory of the process. So a data set holds
`IN_MEMORY_BYTES` at most for its clips and as much for its static clips (twice while it reads them), however large its
stores are; only where the disk is full may it be more, and it says so.

Letters: V videos, K clips of one video, R rows of all videos, D feature width.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splavu.data.packing import DISK_FULL, packed_file, read_packed
from splavu.errors import UserError
from splavu.stores import FeatureReader

logger = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2**29
"""Features up to this size are read at each opening; larger ones are packed once and mapped."""


@dataclass(frozen=True)
class PackedTable:
    """Rows of features and where each video's begin.

    A table with mapped rows that is pickled opens its file again.
    """

    rows: NDArray
    """[R, D] float32."""
    start: NDArray
    """[V] int64: the first row of each video."""
    num_clips: NDArray
    """[V] int64: its number of rows."""
    path: Path | None = None
    """The packed file; None if the rows are in memory."""

    @property
    def feature_dim(self) -> int:
        """D."""
        return self.rows.shape[1]

    @property
    def num_bytes(self) -> int:
        """Of all rows."""
        return self.rows.nbytes

    def __reduce__(self) -> tuple:
        if self.path is None:
            return PackedTable, (self.rows, self.start, self.num_clips)
        return _reopened, (self.path, self.start, self.num_clips)


def open_table(store: FeatureReader, keys: Sequence[str], *, cache: Path | None = None) -> PackedTable:
    """The features of `keys`, in memory if they take no more than `IN_MEMORY_BYTES`, else `packed`.

    Raises:
        UserError: A feature is missing or faulty, or there is neither disk nor memory for them.
    """
    if store.path.stat().st_size * len(keys) <= IN_MEMORY_BYTES * len(store):
        table = in_memory(store, keys, limit=IN_MEMORY_BYTES)
        if table is not None:  # else the store is compressed
            return table
    return packed(store, keys, cache=cache)


def in_memory(store: FeatureReader, keys: Sequence[str], *, limit: float) -> PackedTable | None:
    """The features of `keys`, checked and read into memory; None if they take more bytes than `limit`.

    Takes twice their size while it reads.
    """
    features, num_bytes = [], 0
    for key in keys:
        features.append(np.atleast_2d(store.verified(key)))  # [K, D]
        num_bytes += features[-1].nbytes
        if num_bytes > limit:
            return None
    num_clips = np.array([len(rows) for rows in features], dtype=np.int64)
    return PackedTable(np.concatenate(features), _starts(num_clips), num_clips)


def packed(store: FeatureReader, keys: Sequence[str] | None = None, *, cache: Path | None = None) -> PackedTable:
    """The features of `keys` (of all) from the store's packed file, which is made if there is none.

    All features of the store are packed, and checked on that occasion. Where the disk is full or nothing can be
    written, features that fit into half the free memory are read into it instead.

    Args:
        store: One file, of any format.
        keys: Videos, in the order of the table.
        cache: As of `packed_file`.

    Raises:
        UserError: A feature is missing or faulty, the store changes meanwhile, or there is no room for its features.
    """
    try:
        file = packed_file(store, cache)
    except OSError as error:
        return _unpacked(store, store.keys() if keys is None else keys, error)
    place = {key: index for index, key in enumerate(file.keys)}
    wanted = file.keys if keys is None else keys
    if missing := [key for key in wanted if key not in place]:
        store.header(missing[0])  # raises and says what there is
    chosen = np.array([place[key] for key in wanted], dtype=np.int64)
    return PackedTable(file.rows, _starts(file.num_clips)[chosen], file.num_clips[chosen], file.path)


def _reopened(path: Path, start: NDArray, num_clips: NDArray) -> PackedTable:
    """The table of a packed file in another process."""
    file = read_packed(path)
    if file is None:
        raise UserError(path, "is gone or damaged", "start again: it is made anew")
    return PackedTable(file.rows, start, num_clips, path)


def _unpacked(store: FeatureReader, keys: Sequence[str], error: OSError) -> PackedTable:
    """The features that could not be packed, in memory if they fit."""
    problem = f"can't be packed ({error})"
    if error.errno in DISK_FULL:
        problem = f"no space to pack it, {store.path.stat().st_size / 2**30:.2f} GiB are needed"
    table = in_memory(store, keys, limit=_free_memory() / 2)
    if table is None:
        raise UserError(store.path, f"{problem}, and the memory is too small for it", "free the disk") from error
    logger.warning("%s: %s; it is read into memory instead", store.path, problem)
    return table


def _free_memory() -> int:
    """Bytes that can be had without swapping; half of all where the system doesn't say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _starts(num_clips: NDArray) -> NDArray:  # [V] -> [V]
    return np.cumsum(num_clips) - num_clips
