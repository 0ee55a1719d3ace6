"""The folder `<store>.partial/`, in which the features of a store wait, a part file a key, until they are merged.

Whoever holds its lock writes it: one writer alone, or several shards that share the lock and only write parts.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np

from splavu.stores.files import file_lock, written_aside
from splavu.stores.provenance import ATTRIBUTES_FILE


class Journal:
    """Names, parts and lock of one journal.

    Args:
        store: The store that its parts are to make.

    Attributes:
        path: The folder.
        described: Its file of attributes.
        merging: The store that is being made of the parts, where that has begun.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.path = store.with_name(store.name + ".partial")
        self.described = self.path / ATTRIBUTES_FILE
        self.merging = self.path / "merging.h5"
        self._lock: int | None = None

    def part(self, key: str) -> Path:
        """Where the features of `key` wait."""
        return self.path / (hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32] + ".npz")

    def parts(self) -> list[Path]:
        """All that wait, in an order of their own."""
        return sorted(self.path.glob("*.npz"))

    def write(self, key: str, features: np.ndarray) -> Path:
        """Put the features of `key` into their part."""
        part = self.part(key)
        with written_aside(part, durable=False) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(key), features=features)
        return part

    def marker(self, index: int, count: int) -> Path:
        """What shard `index` of `count` leaves when it has done all it could: its failures."""
        return self.path / f"shard-{index}-of-{count}.json"

    def clear_torn(self) -> None:
        """Remove what a kill left unnamed; to be called when nobody else writes."""
        for torn in self.path.glob("*.tmp-*"):
            torn.unlink()

    def clear_parts(self) -> None:
        """Remove what an earlier run left, torn files too."""
        for old in self.path.glob("*.npz*"):
            old.unlink()

    def clear_removed(self) -> None:
        """Remove the folders whose removal was killed."""
        for leftover in self.store.parent.glob(glob.escape(self.path.name) + ".old-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder."""
        # Moved first: whoever waits for its lock must find either the whole journal or none.
        old = self.path.with_name(f"{self.path.name}.old-{os.getpid()}")
        self.path.rename(old)
        shutil.rmtree(old, ignore_errors=True)

    def acquire(self, *, shared: bool, wait: bool = False) -> None:
        """Make the folder where there is none, and take its lock.

        Raises:
            UserError: Another process holds it, and `wait` is False.
        """
        while self._lock is None:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the journal was removed just now
                wait = wait or (shared and self.merging.exists())
                self._lock = file_lock(self.path / "lock", culprit=self.store, shared=shared, wait=wait)

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def read_part(part: Path) -> tuple[str, np.ndarray]:
    with np.load(part, allow_pickle=False) as content:  # a zip: reading tests the checksums
        return str(content["key"]), content["features"]
