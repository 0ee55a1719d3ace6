"""A store made of the parts of a journal, without room for a second copy.

First comes a file whose datasets have their places but no content (on disk, holes); from then on only content is
written into it, a few parts at a time, and a part is deleted once its content has reached the disk. Killed in between,
the next run goes on with the parts that are left.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from splavu.errors import UserError
from splavu.stores.files import written_aside
from splavu.stores.hdf5 import FeatureStore
from splavu.stores.journal import Journal, read_part
from splavu.stores.provenance import CHECKSUM_ATTRIBUTE, EXTRACT_AGAIN, Attributes, checksum

BYTES_MOVED_AT_ONCE = 2**26
"""Of part files into a store that is merged, before they are deleted."""


def lay_out(journal: Journal, parts: Mapping[str, Path], attributes: Attributes, *, extends: bool) -> None:
    """Write `journal.merging`: whole but for the content of the parts, whose places are there.

    Args:
        journal: Of the store to be made.
        parts: Key -> part file.
        attributes: Those of the store.
        extends: There is a store already, whose features and further attributes are copied.
    """
    places = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    places.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    places.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    old = FeatureStore(journal.store) if extends else None
    with written_aside(journal.merging, durable=True) as temporary, h5py.File(temporary, "w", locking=False) as file:
        others = old.attributes if old is not None else {}
        file.attrs.update(attributes | {name: others[name] for name in others.keys() - attributes})
        for key in sorted(parts.keys() | set(old or ())):
            features = read_part(parts[key])[1] if key in parts else old[key]
            dataset = file.create_dataset(key, features.shape, np.float32, dcpl=places)
            if key in parts:
                dataset.attrs[CHECKSUM_ATTRIBUTE] = np.bytes_(checksum(features))
            else:
                dataset.attrs.update(old.dataset_attributes(key))
                dataset[...] = features
    if old is not None:
        old.close()


def fill(journal: Journal) -> None:
    """Move the content of the parts into `journal.merging`, and that to the store's place."""
    moved: list[Path] = []
    num_bytes = 0

    def settle() -> None:
        content.flush()
        os.fsync(content.fileno())
        while moved:
            moved.pop().unlink()

    with h5py.File(journal.merging, "r", locking=False) as file, journal.merging.open("rb+") as content:
        for part in journal.parts():
            key, features = read_part(part)
            dataset = file[key]
            if dataset.shape != features.shape:
                raise UserError(part, f"is not what {journal.merging} has a place for", EXTRACT_AGAIN)
            content.seek(dataset.id.get_offset())
            content.write(np.ascontiguousarray(features, dtype="<f4").data)
            moved.append(part)
            num_bytes += features.nbytes
            if num_bytes >= BYTES_MOVED_AT_ONCE:
                settle()
                num_bytes = 0
        settle()
    journal.merging.replace(journal.store)
