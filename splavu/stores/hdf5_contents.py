"""What an HDF5 file holds, found without trusting it: which keys, where their numbers lie, and what is no feature.

An HDF5 file can name other files (external links, external raw storage, virtual datasets), lead back into itself
(soft links, groups with two names), and declare terabytes in a kilobyte. HDF5 follows all of it without a word. Here
links are looked at one by one and never left to HDF5; each dataset is opened once, and its declared size is compared
with what the file holds before anything is allocated. What is no feature stays a key, with the reason.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5t  # pyright: ignore[reportAttributeAccessIssue]

from splavu.stores.provenance import CHECKSUM_ATTRIBUTE, plain

HDF5_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError)
"""What h5py raises for a file whose structure is damaged."""
FLOAT = np.dtype("<f4")
LONGEST_KEY = 4096
"""Bytes of a key, as of a path in a file system; so groups aren't nested without end."""
MOST_HOPS = 32
"""Links that lead to a dataset one after the other."""
FIRST_LOOK = 16
"""Links of a group that are read before all of them are: enough to know the first key of a store."""
FOLLOW = "give --follow-links to read it, or copy the features into this file"
_DIGEST_NAME = CHECKSUM_ATTRIBUTE.encode()
_DIGEST = np.empty((), "S64")
_DIGEST_TYPE = h5t.py_create(_DIGEST.dtype)


class Entry(NamedTuple):
    """A dataset of features."""

    shape: tuple[int, ...]
    dtype: np.dtype
    place: int | None
    """Where its little-endian float32 values lie in the file, in one piece; None: HDF5 is to read them."""
    digest: str | None
    """The checksum that is recorded."""
    file: Path
    name: bytes
    """Its path in that file, over no link."""
    num_bytes: int
    """Memory that reading it takes: its values, or one piece of it where that is larger."""


class Refusal(NamedTuple):
    """What stands under a key and is not read."""

    problem: str
    remedy: str


@dataclass
class _Group:
    """A group to be listed."""

    file: Path
    names: tuple[bytes, ...]
    """Its path in that file."""
    prefix: bytes
    """Of the keys in it: empty, or ends in a slash."""
    above: frozenset[tuple[Path, int]]
    """It and the groups that it lies in, by file and place."""


def entries(
    path: Path, opened: Callable[[Path], h5py.File], *, follow_links: bool
) -> Iterator[tuple[str, Entry | Refusal]]:
    """Every key of a file and what stands under it; groups are listed in the order of their names.

    Args:
        path: The file.
        opened: Opens a file, or gives it again; called for `path` and, with `follow_links`, for others in its folder.
        follow_links: Follow soft links, and external links to files within the folder of `path`.
    """
    return _Walk(path, opened, follow_links)()


class _Walk:
    def __init__(self, path: Path, opened: Callable[[Path], h5py.File], follow_links: bool) -> None:
        self.path, self.opened, self.follow_links = path, opened, follow_links
        self.folder = path.resolve().parent
        self.sizes: dict[Path, int] = {}
        self.num_links = 0
        self.most_links = path.stat().st_size  # a link takes some bytes: more of them only by loops or in damaged files
        self.named: set[tuple[Path, int]] = set()  # groups that were listed under a name

    def __call__(self) -> Iterator[tuple[str, Entry | Refusal]]:
        root = self.opened(self.path).id
        todo = [_Group(self.path, (), b"", frozenset([(self.path, _place(root))]))]
        while todo:
            group = todo.pop()
            inner: list[_Group] = []
            for name, kind in self.links(group):
                key = group.prefix + name
                if len(key) > LONGEST_KEY:
                    key, found = key[:LONGEST_KEY], Refusal(f"the name is longer than {LONGEST_KEY} bytes", "rename it")
                elif name in (b".", b".."):
                    found = Refusal("is no name of a feature: it would lead out of a folder", "rename it")
                elif kind == h5l.TYPE_HARD:
                    found = self.object(group, group.file, (*group.names, name), key)
                else:
                    found = self.followed(group, name, kind, key)
                if isinstance(found, _Group):
                    inner.append(found)
                elif found is not None:
                    yield key.decode(errors="surrogateescape"), found
            todo += reversed(inner)

    def links(self, group: _Group) -> Iterator[tuple[bytes, int]]:
        """Name and kind of the links of a group."""
        found: list[tuple[bytes, int]] = []
        most = FIRST_LOOK

        def collect(name: bytes, info: h5l.LinkInfo) -> bool:
            found.append((name, info.type))
            return len(found) >= most

        opened = self.group(group.file, group.names)  # to be held: its links don't hold it
        start = 0
        while True:
            found.clear()
            _, start = opened.links.iterate(collect, info=True, idx=start)
            self.num_links += len(found)
            if self.num_links > self.most_links:
                raise RuntimeError("it names more datasets than it has bytes")
            yield from found
            if len(found) < most or start >= opened.get_num_objs():
                return
            most = self.most_links + 1

    def group(self, file: Path, names: tuple[bytes, ...]) -> h5g.GroupID:
        """The group at a path over hard links."""
        root = self.opened(file).id
        return h5g.open(root, b"/".join(names)) if names else root

    def size(self, file: Path) -> int:
        """Bytes of a file."""
        if file not in self.sizes:
            self.sizes[file] = file.stat().st_size
        return self.sizes[file]

    def object(
        self, group: _Group, file: Path, names: tuple[bytes, ...], key: bytes
    ) -> Entry | Refusal | _Group | None:
        """What stands at a path over hard links."""
        try:
            found = h5o.open(self.opened(file).id, b"/".join(names) or b"/")
            if isinstance(found, h5d.DatasetID):
                return _entry(found, file, b"/".join(names), self.size(file))
            if not isinstance(found, h5g.GroupID):
                return None
            place = (file, _place(found))
        except HDF5_ERRORS as error:
            return Refusal(f"cannot be opened ({error})", "")
        if place in group.above:
            return Refusal("is a group that holds itself: the link leads back", "remove the link")
        if place in self.named and not self.follow_links:
            return Refusal("is a second name of a group of features (a hard link)", FOLLOW)
        self.named.add(place)
        return _Group(file, names, key + b"/", group.above | {place})

    def followed(self, group: _Group, name: bytes, kind: int, key: bytes) -> Entry | Refusal | _Group | None:
        """What a link that is no hard link leads to; what it is, where it isn't followed."""
        try:
            value = self.value(group.file, group.names, name, kind)
            if not self.follow_links:
                return Refusal(f"is {value}", FOLLOW)
            target = self.resolved(group.file, (*group.names, name), value)
        except _NotFollowed as error:
            return Refusal(str(error), "remove the link, or copy the features into this file")
        except HDF5_ERRORS as error:
            return Refusal(f"is a link that cannot be followed ({error})", "remove the link")
        return self.object(group, *target, key)

    def resolved(self, file: Path, names: tuple[bytes, ...], value: _Link) -> tuple[Path, tuple[bytes, ...]]:
        """File and path over hard links alone.

        Raises:
            _NotFollowed: It leads nowhere, round in circles, or out of the folder.
        """
        at, todo, hops = list(names[:-1]), deque([names[-1]]), 0
        while todo:
            name = todo.popleft()
            if name in (b"", b"."):
                continue
            parent = self.group(file, tuple(at))
            if not parent.links.exists(name):
                raise _NotFollowed(f"is {value}, which leads nowhere")
            kind = parent.links.get_info(name).type
            if kind == h5l.TYPE_HARD:
                at.append(name)
                continue
            hops += 1
            if hops > MOST_HOPS:
                raise _NotFollowed(f"is {value}, which leads round in circles")
            link = self.value(file, tuple(at), name, kind)
            if link.file is not None:
                file, at = self.other(file, link), []
            elif link.path.startswith(b"/"):
                at = []
            todo.extendleft(reversed(link.path.split(b"/")))
        return file, tuple(at)

    def value(self, file: Path, names: tuple[bytes, ...], name: bytes, kind: int) -> _Link:
        group = self.group(file, names)
        if kind == h5l.TYPE_SOFT:
            return _Link(None, group.links.get_val(name))
        if kind == h5l.TYPE_EXTERNAL:
            return _Link(*group.links.get_val(name))
        raise _NotFollowed("is a link of a kind that only another program knows")

    def other(self, file: Path, link: _Link) -> Path:
        """The file of an external link, a regular one in the folder of the store."""
        named = Path(os.fsdecode(link.file or b""))
        path = (file.resolve().parent / named).resolve()
        if not path.is_relative_to(self.folder):
            raise _NotFollowed(f"is {link}: outside the store's folder nothing is read")
        if not path.is_file():
            raise _NotFollowed(f"is {link}, and there is no such file")
        self.most_links += path.stat().st_size
        return path


class _NotFollowed(Exception):
    """A link that leads to nothing that may be read."""


class _Link(NamedTuple):
    file: bytes | None
    path: bytes

    def __str__(self) -> str:
        path = self.path.decode(errors="backslashreplace")
        if self.file is None:
            return f"a soft link to '{path}'"
        return f"an external link to '{path}' of '{self.file.decode(errors='backslashreplace')}'"


def _place(group: h5g.GroupID) -> int:
    return h5o.get_info(group).addr


def _entry(dataset: h5d.DatasetID, file: Path, name: bytes, size: int) -> Entry | Refusal:
    """A dataset's header and place, in a file of `size` bytes.

    Raises:
        HDF5_ERRORS: It is damaged.
    """
    shape = dataset.shape
    kind = dataset.get_type()
    dtype = FLOAT if kind.equal(h5t.IEEE_F32LE) else dataset.dtype
    place = dataset.get_offset()
    num_bytes = logical = math.prod(shape) * dtype.itemsize
    if place is None and logical:  # not in one piece in this file
        layout = dataset.get_create_plist()
        if layout.get_layout() == h5d.VIRTUAL:
            return Refusal("is a virtual dataset: its numbers are those of other files", "copy the features into it")
        if layout.get_external_count():
            other = os.fsdecode(layout.get_external(0)[0])
            return Refusal(f"keeps its numbers in another file ('{other}')", "copy the features into this one")
        if layout.get_layout() == h5d.CHUNKED:
            chunk = layout.get_chunk()
            declared = math.prod(-(-length // size) for length, size in zip(shape, chunk, strict=True))
            written = dataset.get_num_chunks()
            if written < declared:
                found = f"declares {declared} pieces (shape {shape}), of which the file holds {written}"
                return Refusal(found, "")
            num_bytes = max(logical, math.prod(chunk) * dtype.itemsize)
        elif dataset.get_storage_size() < logical:
            return Refusal(f"declares {logical} bytes (shape {shape}), of which the file holds none", "")
    elif place is not None and place + logical > size:
        return Refusal(f"declares {logical} bytes (shape {shape}), more than are left in the file", "")
    return Entry(shape, dtype, place if dtype == FLOAT else None, _digest(dataset), file, name, num_bytes)


def _digest(dataset: h5d.DatasetID) -> str | None:
    if not h5a.exists(dataset, _DIGEST_NAME):
        return None
    attribute = h5a.open(dataset, _DIGEST_NAME)
    if attribute.get_storage_size() == _DIGEST.nbytes:
        text = np.empty_like(_DIGEST)
        with contextlib.suppress(TypeError, OSError):  # as this program writes it
            attribute.read(text, _DIGEST_TYPE)
            return text.item().decode(errors="replace")
    return str(plain(h5py.Dataset(dataset).attrs[CHECKSUM_ATTRIBUTE]))
