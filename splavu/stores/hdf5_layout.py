"""An HDF5 store whose datasets have their places but no content yet (on disk, holes).

HDF5 isn't safe against an interruption, so it writes only while there is nothing to lose: it lays the file out. From
then on features are plain bytes written to known places, and writing them again does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np

FLOAT = np.dtype("<f4")


def lay_out(
    path: Path, items: Iterable[tuple[str, tuple[int, ...], Mapping[str, object]]], attributes: Mapping[str, object]
) -> np.ndarray:  # -> [items] int64
    """Write a store that lacks only its features; returns the place of each dataset in the file, in bytes.

    Args:
        path: The file to write.
        items: Key, shape and attributes of each dataset, in the order of the file.
        attributes: Those of the store.
    """
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    early.set_obj_track_times(False)  # the same bytes whenever it is made
    scalar, number = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.py_create(FLOAT, logical=True)
    spaces: dict[tuple[int, ...], h5py.h5s.SpaceID] = {}
    places: list[int] = []
    with h5py.File(path, "w", locking=False) as file:
        for name, value in attributes.items():
            _note(file.attrs, name, value)
        parent, parent_name = file.id, ""
        for key, shape, noted in items:
            # h5py's low level, which takes half as long as create_dataset and makes the same bytes.
            folder, _, name = key.rpartition("/")
            if folder != parent_name:
                parent, parent_name = _group(file.id, folder) if folder else file.id, folder
            if shape not in spaces:
                spaces[shape] = h5py.h5s.create_simple(shape)
            name = name.encode(errors="surrogateescape")
            dataset = h5py.h5d.create(parent, name, number, spaces[shape], early)
            for label, value in noted.items():
                if isinstance(value, np.bytes_):
                    text = h5py.h5t.py_create(value.dtype, logical=True)
                    h5py.h5a.create(dataset, label.encode(), text, scalar).write(np.array(value))
                else:
                    _note(h5py.Dataset(dataset).attrs, label, value)
            places.append(dataset.get_offset())
    return np.array(places, np.int64)


def _note(attributes: h5py.AttributeManager, name: str, value: object) -> None:
    """Write an attribute; a name or text whose bytes aren't UTF-8 is written as those bytes."""
    if isinstance(value, str) and _is_opaque(value):
        value = np.bytes_(value.encode(errors="surrogateescape"))
    attributes[name.encode(errors="surrogateescape") if _is_opaque(name) else name] = value


def _is_opaque(text: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def _group(root: h5py.h5g.GroupID, folder: str) -> h5py.h5g.GroupID:
    """The group of this path, made as needed. h5py's high level takes no name that isn't UTF-8."""
    group = root
    for name in folder.encode(errors="surrogateescape").split(b"/"):
        group = (h5py.h5g.open if group.links.exists(name) else h5py.h5g.create)(group, name)
    return group


def write_at(descriptor: int, content: memoryview, place: int) -> None:
    """Write bytes to a place of an open file."""
    while content:  # one call may write less than it was given
        written = os.pwrite(descriptor, content, place)
        content, place = content[written:], place + written
