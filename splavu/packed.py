"""The features of many videos as one table of rows: read into memory if they are few, else mapped from a packed file.

An HDF5 store costs a look-up and a read for each clip drawn. A packed file holds the same rows one after another, so a
batch is one gather, processes share the pages, and none of it counts as memory of a process. It is made once, in
`.packed/` beside the store, and its name says of which store: one that changed in size, time, inode or attributes has
another name and is packed anew. What a reader would get wrong: the lock only spares others the same work. That nobody
reads half a file is due to the move under its name at the end.

File: a .npy of the rows [R, D] (`numpy.load` opens it), behind it an .npz with the keys and their numbers of rows, and
the length of that.

Letters: V videos, K clips of one video, R rows of all videos, D feature width.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import json
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from splavu.errors import UserError
from splavu.stores import FeatureReader
from splavu.stores.files import file_lock, written_aside

logger = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2**29
"""Features up to this size are read at each opening; larger ones are packed once and mapped."""

FOLDER = ".packed"
_FORMAT = 1
_END = struct.Struct("<8sQ")  # mark, length of the index before it
_MARK = b"splavu-1"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class PackedTable:
    """Rows of features and where each video's begin.

    Mapped rows are page cache, not memory of the process; a table that is pickled opens its file again.
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
        return _mapped, (self.path, self.start, self.num_clips)


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

    All features of the store are packed, and checked on that occasion. If several processes want the same file, one
    makes it and the others wait. Where the disk is full, features that fit into half the free memory are read instead.

    Args:
        store: Not a folder of long videos.
        keys: Videos, in the order of the table.
        cache: Folder for packed files; None takes `.packed/` beside the store or, where that can't be written, one
            below the folder for temporary files.

    Raises:
        UserError: A feature is missing or faulty, the store changes meanwhile, or there is no room for its features.
    """
    try:
        path = _packed_file(store, _folders(store.path, cache))
    except OSError as error:
        return _unpacked(store, store.keys() if keys is None else keys, error)
    stored, num_clips = _index(path)
    wanted = stored if keys is None else keys
    place = {key: index for index, key in enumerate(stored)}
    if missing := [key for key in wanted if key not in place]:
        store.header(missing[0])  # names it
    chosen = np.array([place[key] for key in wanted], dtype=np.int64)
    return _mapped(path, _starts(num_clips)[chosen], num_clips[chosen])


def _folders(store: Path, cache: Path | None) -> list[Path]:
    """Where the packed file of `store` may lie, the better place first."""
    beside = store.resolve().parent
    shared = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]  # stores of two folders may have one name
    if cache is not None:
        return [Path(cache) / shared]
    user = os.getuid() if hasattr(os, "getuid") else "all"
    return [beside / FOLDER, Path(tempfile.gettempdir()) / f"splavu-packed-{user}" / shared]


def _packed_file(store: FeatureReader, folders: Sequence[Path]) -> Path:
    """The packed file of `store`, made in the first of `folders` that can be written.

    Raises:
        OSError: None can, or there is no space.
    """
    name = f"{store.path.name}-{_fingerprint(store)}.npy"
    for folder in folders:
        if _is_whole(folder / name):
            return folder / name
    for folder in folders:
        if _is_writable(folder):
            break
        logger.warning("%s can't be written", folder)
    return _made(store, folder / name)


def _is_writable(folder: Path) -> bool:
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno in _FULL


def _made(store: FeatureReader, path: Path) -> Path:
    """`path`, made by this process or, while it waited, by another."""
    of_store = f"{glob.escape(store.path.name)}-{'[0-9a-f]' * 16}.npy"
    with _lock(path.with_name(f"{store.path.name}.lock")) as is_alone:
        if _is_whole(path):
            return path
        if is_alone:
            for torn in path.parent.glob(f"{of_store}.tmp-*"):  # of builds that were killed
                torn.unlink()
        logger.info("%s: packed once into %s", store.path, path)
        _pack(store, path)
        for old in path.parent.glob(of_store):
            if old != path:
                old.unlink(missing_ok=True)  # who has it mapped keeps it
    return path


def _pack(store: FeatureReader, path: Path) -> None:
    """Write the packed file, all features checked."""
    before, keys, stat = _fingerprint(store), store.keys(), store.path.stat()
    num_clips = np.zeros(len(keys), dtype=np.int64)
    if shutil.disk_usage(path.parent).free < stat.st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    with written_aside(path, durable=True) as temporary, temporary.open("wb") as file:
        temporary.chmod(stat.st_mode & 0o777 | 0o600)  # who may not read the store may not read this
        _write_header(file, 0, store.feature_dim)
        for index, key in enumerate(tqdm(keys, desc=f"packing {store.path.name}", unit=" videos", disable=None)):
            features = np.atleast_2d(store.verified(key))  # [K, D]
            file.write(np.ascontiguousarray(features, dtype="<f4").data)
            num_clips[index] = len(features)
        table_of_contents = io.BytesIO()
        names = "\0".join(keys).encode(errors="surrogateescape")
        np.savez(table_of_contents, keys=np.frombuffer(names, dtype=np.uint8), num_clips=num_clips)
        file.write(table_of_contents.getbuffer())
        file.write(_END.pack(_MARK, table_of_contents.getbuffer().nbytes))
        file.seek(0)
        _write_header(file, int(num_clips.sum()), store.feature_dim)
        if _fingerprint(store) != before:
            raise UserError(store.path, "changes while it is read", "wait until it is written")


def _write_header(file: BinaryIO, num_rows: int, feature_dim: int) -> None:
    # As long for any number of rows: NumPy leaves room for a growing first axis.
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, feature_dim)}
    np.lib.format.write_array_header_1_0(file, header)


def _rows_place(file: BinaryIO) -> tuple[int, tuple[int, int]]:
    """Where in the file the rows begin, and their shape [R, D]."""
    file.seek(0)
    np.lib.format.read_magic(file)
    shape, _, _ = np.lib.format.read_array_header_1_0(file)
    return file.tell(), shape


def _is_whole(path: Path) -> bool:
    """Whether there is such a packed file, as long as it says it is."""
    try:
        with path.open("rb") as file:
            offset, (num_rows, feature_dim) = _rows_place(file)
            size = file.seek(0, os.SEEK_END)
            file.seek(size - _END.size)
            mark, index_bytes = _END.unpack(file.read())
            return mark == _MARK and size == offset + 4 * num_rows * feature_dim + index_bytes + _END.size
    except (OSError, ValueError, struct.error):
        return False


def _index(path: Path) -> tuple[list[str], NDArray]:  # -> V keys, [V]
    """Keys and numbers of clips, in the order of the rows."""
    with path.open("rb") as file:
        file.seek(-_END.size, os.SEEK_END)
        _, index_bytes = _END.unpack(file.read())
        file.seek(-_END.size - index_bytes, os.SEEK_END)
        with np.load(io.BytesIO(file.read(index_bytes)), allow_pickle=False) as content:
            keys = content["keys"].tobytes().decode(errors="surrogateescape").split("\0")
            return keys, content["num_clips"]


def _mapped(path: Path, start: NDArray, num_clips: NDArray) -> PackedTable:
    """The table of a packed file; also how one is unpickled."""
    try:
        with path.open("rb") as file:
            offset, shape = _rows_place(file)
        # Copy on write, since torch warns of arrays that can't be written; nobody writes, so nothing is copied.
        rows = np.memmap(path, dtype="<f4", mode="c", offset=offset, shape=shape)
    except (OSError, ValueError) as error:
        raise UserError(path, f"can't be mapped ({error})", "delete it and start again: it is made anew") from error
    return PackedTable(rows, start, num_clips, path)


def _unpacked(store: FeatureReader, keys: Sequence[str], error: OSError) -> PackedTable:
    """The features that could not be packed, in memory if they fit."""
    problem = f"can't be packed ({error})"
    if error.errno in _FULL:
        problem = f"no space to pack it, {store.path.stat().st_size / 2**30:.2f} GiB are needed"
    table = in_memory(store, keys, limit=_free_memory() / 2)
    if table is None:
        raise UserError(store.path, f"{problem}, and the memory is too small for it", "free the disk") from error
    logger.warning("%s: %s; it is read into memory instead", store.path, problem)
    return table


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether nobody else makes this file; False only where files can't be locked."""
    descriptor = None
    try:
        while descriptor is None:
            descriptor = file_lock(path, culprit=path, shared=False, wait=True)
    except UserError as error:
        logger.warning("%s", error)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _fingerprint(store: FeatureReader) -> str:
    """What tells one content of a store's file from another."""
    stat = store.path.stat()
    described = [_FORMAT, stat.st_size, stat.st_mtime_ns, stat.st_ino, store.feature_dim, store.attributes]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _free_memory() -> int:
    """Bytes that can be had without swapping; half of all where the system doesn't say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _starts(num_clips: NDArray) -> NDArray:  # [V] -> [V]
    return np.cumsum(num_clips) - num_clips
