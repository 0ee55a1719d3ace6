"""Files of .npy in a folder, found and opened without trusting them.

A folder of features is a file format: nothing outside it is read. A symbolic link, a pipe or a device under the name of
a feature file is refused by name. The size that a header declares is compared with the size of the file before anything
is allocated; objects (pickles) are never loaded.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.files import is_companion
from splavu.stores.provenance import EXTRACT_AGAIN

NPY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, KeyError, OverflowError, MemoryError)
"""What NumPy raises for a .npy file whose header is damaged: it reads the header as Python."""
PREFIX = 12
"""Bytes before a header: magic, version, length."""


class NpyHeader(NamedTuple):
    """What a .npy file declares, as far as the file is long enough for it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    place: int
    """Where its values begin."""
    num_bytes: int
    """Of its values."""


def npy_names(folder: Path, *, follow_links: bool) -> Iterator[tuple[str, str]]:
    """Path within the folder of each .npy file, and why it is not to be read ('' where it is).

    Companions of macOS (`._a.npy`) are none. A link to a folder is a name that is not to be read; with `follow_links`
    links are followed to what lies within the folder.
    """
    root = folder.resolve()
    todo = [("", folder)]
    while todo:
        prefix, place = todo.pop()
        with os.scandir(place) as found:
            inside = sorted(found, key=lambda entry: entry.name)
        for entry in inside:
            if is_companion(entry.name):
                continue
            name = prefix + entry.name
            is_features, problem = entry.name.endswith(".npy"), ""
            if entry.is_symlink() and (is_features or entry.is_dir()):
                problem = _problem_of_link(Path(entry.path), root, follow_links=follow_links)
                if problem:
                    yield name, problem
                    continue
            if entry.is_dir():
                todo.append((f"{name}/", Path(entry.path)))
            elif is_features:
                yield name, "" if entry.is_file() else "is no regular file"


def read_npy_header(path: Path) -> NpyHeader:
    """What a file declares.

    Raises:
        UserError: It is no .npy file of numbers, or shorter than it declares.
    """
    try:
        with _opened(path) as file:
            return _header(file, path)
    except NPY_ERRORS as error:
        raise UserError(path, f"cannot be read ({error})", EXTRACT_AGAIN) from error


def read_npy(path: Path) -> tuple[np.ndarray, bytearray]:
    """The values of a file as stored, which may be written to, and the bytes of the file, which they are part of.

    Raises:
        UserError: As `read_npy_header`; it takes more memory than is left.
    """
    try:
        with _opened(path) as file:
            header = _header(file, path)
            size = os.fstat(file.fileno()).st_size
            limits.require(size + 4 * header.num_bytes // header.dtype.itemsize, path, f"an array of {header.shape}")
            content = bytearray(size)
            file.seek(0)
            if file.readinto(content) != size:  # pyright: ignore[reportAttributeAccessIssue]
                raise ValueError("it changes while it is read")
    except NPY_ERRORS as error:
        raise UserError(path, f"cannot be read ({error})", EXTRACT_AGAIN) from error
    count = header.num_bytes // header.dtype.itemsize
    values = np.frombuffer(content, header.dtype, count, header.place)
    return values.reshape(header.shape, order="F" if header.is_fortran else "C"), content


def map_npy(path: Path) -> np.ndarray:
    """The values of a file, mapped: only what is looked at is read.

    Raises:
        UserError: As `read_npy_header`.
    """
    header = read_npy_header(path)
    if not header.num_bytes:
        return np.zeros(header.shape, header.dtype)
    order = "F" if header.is_fortran else "C"
    return np.memmap(path, header.dtype, "r", header.place, header.shape, order)


def _opened(path: Path) -> io.BufferedReader:
    # A pipe that took the name would make a plain open wait for ever.
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")


def _header(file: io.BufferedReader, path: Path) -> NpyHeader:
    prefix = file.read(PREFIX)
    is_long = prefix[6:7] >= b"\x02"
    length = int.from_bytes(prefix[8:12] if is_long else prefix[8:10], "little")
    size = os.fstat(file.fileno()).st_size
    place = (12 if is_long else 10) + length
    if len(prefix) < PREFIX or place > size:
        raise ValueError("it is no .npy file, or cut short")
    shape, is_fortran, dtype = _parsed(prefix + file.read(place - PREFIX))
    num_bytes = dtype.itemsize
    for count in shape:
        num_bytes *= count
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, not numbers")
    if num_bytes > size - place:
        problem = f"it declares shape {shape} of {dtype}, {limits.shown(num_bytes)}, and holds {size - place} bytes"
        raise ValueError(problem)
    return NpyHeader(shape, dtype, is_fortran, place, num_bytes)


@functools.lru_cache(maxsize=1024)
def _parsed(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and kind that the beginning of a file declares; many files of a folder have the same."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version in read:
        shape, is_fortran, dtype = read[version](file)
    elif version == (3, 0):  # as 2.0, in UTF-8: for names of fields alone
        raise ValueError("it holds records, not numbers")
    else:
        raise ValueError(f"its version {version} is unknown")
    if any(count < 0 for count in shape):
        raise ValueError(f"it declares shape {shape}")
    return shape, is_fortran, dtype


def _problem_of_link(link: Path, root: Path, *, follow_links: bool) -> str:
    target = Path(os.path.realpath(link))
    if not follow_links:
        return f"is a link to '{target}'"
    if not target.is_relative_to(root):
        return f"is a link to '{target}': outside the folder nothing is read"
    if not target.exists():
        return f"is a link to '{target}', which isn't there"
    if target.is_dir() and link.parent.resolve().is_relative_to(target):
        return "is a link to a folder that it lies in"
    return ""
