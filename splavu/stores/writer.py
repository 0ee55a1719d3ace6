"""Writing a store, item by item, alone or together with others, so that a kill at any moment loses nothing."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from splavu.errors import UserError
from splavu.stores.files import read_json, written_aside
from splavu.stores.hdf5 import FeatureStore
from splavu.stores.journal import Journal, read_part
from splavu.stores.merging import fill, lay_out
from splavu.stores.provenance import Attributes, refuse_conflict

logger = logging.getLogger(__name__)


class StoreWriter:
    """Writes one HDF5 store, item by item, alone or together with others, and survives a kill at any moment.

    Each `add` puts one part file into `<path>.partial/` (written aside, then renamed; its checksum is tested on
    resuming). Leaving the `with` block normally merges the parts, and the store that existed before, into one file,
    which then takes the store's name in one move. Leaving it by an exception keeps the parts for the next run. If
    nothing was ever added, no file is written. Keys are merged in sorted order, so the bytes of a store don't depend on
    where its run was interrupted.

    Several processes, also on several nodes with one file system that knows `flock`, fill a store together when each is
    given its `shard`. Their keys must differ. Whoever is the last to leave its block merges.

    Args:
        path: The store to write or to extend.
        attributes: Provenance, kept as the file's attributes.
        resume: Keep what an earlier run left (journal and finished store). False starts anew and replaces both; not for
            a shard, which would delete what the others write.
        shard: (index, number of shards), or None for a writer that wants to be alone.

    Attributes:
        is_merged: Whether this writer merged the store when it left.
        failures: Key -> why it has no features, for the caller to fill; after merging, those of all shards.

    Raises:
        UserError: What exists was made with other attributes, or another process is writing this store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        attributes: Mapping[str, str | int | float],
        resume: bool = True,
        shard: tuple[int, int] | None = None,
    ) -> None:
        if shard is not None and not resume:
            raise ValueError("a shard can't start a store anew")
        self.path = Path(path)
        self.attributes: Attributes = dict(attributes)
        self.resume = resume
        self.shard = shard
        self.is_merged = False
        self.failures: dict[str, str] = {}
        self._journal = Journal(self.path)
        self._stored: set[str] = set()  # keys of the finished store
        self._parts: dict[str, Path] = {}
        self._groups: set[str] = set()  # 'a' and 'a/b' of a key 'a/b/c'
        self._width: int | None = None

    def __enter__(self) -> StoreWriter:
        self._journal.clear_removed()
        self._journal.acquire(shared=self.shard is not None)
        try:
            if self.shard is not None:
                while self._journal.merging.exists():  # one of us ends the merge that was killed, the others wait
                    self._journal.release()
                    self._journal.acquire(shared=False, wait=True)
                    self._end_killed_merge()
                    self._journal.release()
                    self._journal.acquire(shared=True)
                self._journal.marker(*self.shard).unlink(missing_ok=True)
                self._recover()
            else:
                self._end_killed_merge()
                self._recover()
                self._recover_parts()
        except BaseException:
            if not self._journal.parts() and not self._journal.merging.exists() and self.shard is None:
                self._journal.remove()
            self._journal.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.shard is not None:
                self._leave_shard(*self.shard)
            elif kind is None:
                self._merge()
        finally:
            self._journal.release()

    def __len__(self) -> int:
        return len(self._stored) + len(self._parts)

    def done(self, key: str) -> bool:
        """Whether `key` is in the store or the journal already."""
        if self.shard is not None and key not in self._stored and key not in self._parts:
            part = self._journal.part(key)
            if part.exists():  # only these are read: the other shards' parts are none of our business
                self._recover_part(part)
        return key in self._stored or key in self._parts

    def add(self, key: str, features: np.ndarray) -> None:  # [K, D] or [D]
        """Put the features of `key` into the journal, as float32.

        Raises:
            UserError: The key is no HDF5 name or is there already; the features are empty, of another width than
                those before, or not finite.
        """
        features = np.ascontiguousarray(features, dtype=np.float32)
        self._check(key, features)
        self._register(key, self._journal.write(key, features), features.shape[-1])

    def _check(self, key: str, features: np.ndarray) -> None:
        if "\0" in key or any(name in ("", ".") for name in key.split("/")):
            raise UserError(self.path, f"'{key}' cannot be a key of an HDF5 file", "rename the video")
        if self.done(key):
            raise UserError(self.path, f"'{key}' is stored already", "give each video a name of its own")
        if key in self._groups or any(self.done(group) for group in _groups_of(key)):
            raise UserError(self.path, f"'{key}' is both a feature and a folder of features", "rename the video")
        if features.ndim not in (1, 2) or features.size == 0:
            raise UserError(self.path, f"'{key}' has shape {features.shape}, (K, D) or (D,) expected")
        if self._width not in (None, features.shape[-1]):
            raise UserError(
                self.path,
                f"'{key}' is {features.shape[-1]} wide, what the store holds is {self._width} wide",
                "write another encoder's features to another file",
            )
        if not np.isfinite(features).all():
            raise UserError(self.path, f"the features of '{key}' are not finite", "check the video and the weights")

    def _register(self, key: str, part: Path, width: int) -> None:
        self._parts[key] = part
        self._groups.update(_groups_of(key))
        self._width = width

    def _recover(self) -> None:
        """Take up what an earlier run left, or clear it."""
        if not self.resume:
            self._journal.clear_parts()
        elif self.path.exists():
            store = FeatureStore(self.path)
            refuse_conflict(self.path, store.attributes, self.attributes)
            self._stored, self._width = set(store), store.feature_dim
            self._groups.update(group for key in store for group in _groups_of(key))
            store.close()
        if self._journal.parts():
            refuse_conflict(self._journal.path, read_json(self._journal.described), self.attributes)
        with written_aside(self._journal.described, durable=False) as temporary:
            temporary.write_text(json.dumps(self.attributes, indent=1), encoding="utf-8")

    def _recover_parts(self) -> None:
        """Read all parts; to be called when nobody else writes any."""
        for part in self._journal.parts():
            self._recover_part(part)
        self._journal.clear_torn()

    def _recover_part(self, part: Path) -> None:
        try:
            key, features = read_part(part)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            logger.warning("%s: torn by a crash, will be made again", part)
            part.unlink()
            return
        if key in self._stored:  # killed between the move and the removal of the journal
            part.unlink()
        else:
            self._register(key, part, features.shape[-1])

    def _leave_shard(self, index: int, count: int) -> None:
        """Say that this shard is done, and merge if it is the last: then nobody else holds the lock."""
        with written_aside(self._journal.marker(index, count), durable=False) as temporary:
            temporary.write_text(json.dumps(self.failures), encoding="utf-8")
        self._journal.release()
        try:
            self._journal.acquire(shared=False)
        except UserError:  # others are at work, one of whom will be last
            return
        markers = [self._journal.marker(other, count) for other in range(count)]
        if not all(marker.exists() for marker in markers):  # another has merged, or is yet to run
            if not any(self._journal.path.glob("*.json")):
                self._journal.remove()
            return
        for marker in markers:
            self.failures.update(read_json(marker))
        self._recover()
        self._recover_parts()
        self._merge()

    def _merge(self) -> None:
        if not self:
            logger.warning("%s: nothing to store, no file written", self.path)
        elif self._parts:
            lay_out(self._journal, self._parts, self.attributes, extends=bool(self._stored))
            fill(self._journal)
        self._journal.remove()
        self.is_merged = True

    def _end_killed_merge(self) -> None:
        if self._journal.merging.exists():
            if self.resume:
                fill(self._journal)
            else:
                self._journal.merging.unlink()


def _groups_of(key: str) -> list[str]:
    names = key.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names))]
