"""The packed file of a store: where it lies, how it is made, what is in it.

It lies in `.packed/` beside the store, and its name says of which store: one that changed in size, time, inode or
attributes has another name and is packed anew. What a reader would get wrong: the lock only spares others the same
work. That nobody reads half a file is due to the move under its name at the end.

File: what `numpy.save` writes for the rows [R, D] (`numpy.load` opens it), behind it an .npz with the keys and their
numbers of rows, and the length of that.

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
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from splavu.errors import UserError
from splavu.stores import NPY_ERRORS, FeatureReader
from splavu.stores.files import file_lock, written_aside

logger = logging.getLogger(__name__)

FOLDER = ".packed"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system answers where there is no space."""
_FORMAT = 1
_END = struct.Struct("<8sQ")  # mark, length of the index before it
_MARK = b"splavu-1"


@dataclass(frozen=True)
class PackedFile:
    """What a packed file holds."""

    path: Path
    keys: list[str]
    """V videos, in the order of their rows."""
    num_clips: NDArray
    """[V] int64"""
    rows: NDArray
    """[R, D] float32, mapped."""


def packed_file(store: FeatureReader, cache: Path | None = None) -> PackedFile:
    """All features of `store` in its packed file, which is made, and they are checked, if there is none.

    If several processes want the same file, one makes it and the others wait.

    Args:
        store: One file, of any format.
        cache: Folder for packed files; None takes `.packed/` beside the store or, where that can't be written, one
            below the folder for temporary files.

    Raises:
        OSError: There is no space (`DISK_FULL`), or no folder can be written.
        UserError: A feature is faulty, or the store changes meanwhile.
    """
    folders = _folders(store.path, cache)
    name = f"{store.path.name}-{_fingerprint(store)}.rows"
    for folder in folders:
        if (found := read_packed(folder / name)) is not None:
            return found
    for folder in folders:
        if _is_writable(folder):
            break
        logger.warning("%s can't be written", folder)
    return _made(store, folder / name)


def read_packed(path: Path) -> PackedFile | None:
    """A packed file; None if there is none, or it isn't whole."""
    try:
        with path.open("rb") as file:
            size = file.seek(-_END.size, os.SEEK_END) + _END.size
            mark, index_bytes = _END.unpack(file.read())
            file.seek(size - _END.size - index_bytes)
            with np.load(io.BytesIO(file.read(index_bytes)), allow_pickle=False) as content:
                keys = content["keys"].tobytes().decode(errors="surrogateescape").split("\0")
                num_clips = content["num_clips"]
        # Copy on write, since torch warns of arrays that can't be written; nobody writes, so nothing is copied.
        rows = np.load(path, mmap_mode="c", allow_pickle=False)
    except (*NPY_ERRORS, struct.error, zipfile.BadZipFile):
        return None
    is_whole = mark == _MARK and size == rows.offset + rows.nbytes + index_bytes + _END.size
    return PackedFile(path, keys, num_clips, rows) if is_whole and len(rows) == num_clips.sum() else None


def _folders(store: Path, cache: Path | None) -> list[Path]:
    """Where the packed file of `store` may lie, the better place first."""
    beside = store.resolve().parent
    shared = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]  # stores of two folders may have one name
    if cache is not None:
        return [Path(cache) / shared]
    user = os.getuid() if hasattr(os, "getuid") else 0
    temporary = Path(tempfile.gettempdir()) / f"splavu-packed-{user}"
    is_strange = temporary.exists() and temporary.stat().st_uid != user  # anyone may make it
    return [beside / FOLDER] + ([] if is_strange else [temporary / shared])


def _is_writable(folder: Path) -> bool:
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno in DISK_FULL


def _made(store: FeatureReader, path: Path) -> PackedFile:
    """The packed file `path`, made by this process or, while it waited, by another."""
    of_store = f"{glob.escape(store.path.name)}-{'[0-9a-f]' * 16}.rows"
    with _lock(path.with_name(f"{store.path.name}.lock")) as is_alone:
        if (found := read_packed(path)) is not None:
            return found
        if is_alone:
            for torn in path.parent.glob(f"{of_store}.tmp-*"):  # of builds that were killed
                torn.unlink()
        logger.info("%s: packed once into %s", store.path, path)
        _pack(store, path)
        for old in path.parent.glob(of_store):
            if old != path:
                old.unlink(missing_ok=True)  # who has it mapped keeps it
        if (made := read_packed(path)) is None:
            raise UserError(path, "isn't what was written", "check the disk")
        return made


def _pack(store: FeatureReader, path: Path) -> None:
    """Write the packed file, all features checked."""
    before, keys, stat = _fingerprint(store), store.keys(), store.status()
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
    stat = store.status()
    described = [_FORMAT, stat.st_size, stat.st_mtime_ns, stat.st_ino, store.feature_dim, store.attributes]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]
