"""Stores made in one pass, in an order known beforehand: what a release writes.

`StoreWriter` takes videos in any order and keeps each in a file until it merges them. Here all names and shapes are
known before the first features come, so each item goes straight to its final place, and progress is a log of checksums.

Note: nothing is trusted on resuming. An item counts as done if the log has its checksum and the content of its place
still matches. An interruption at any moment therefore costs at most `BYTES_AT_RISK` bytes of work, and the bytes of the
finished store don't depend on how often it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from splavu.errors import UserError
from splavu.runtime.files import replacing
from splavu.stores.formats import open_features
from splavu.stores.journal import PLAN, JournaledWriter
from splavu.stores.provenance import ORIGIN_ATTRIBUTE, read_json, refuse_conflict
from splavu.stores.scanning import Header

logger = logging.getLogger(__name__)

BYTES_AT_RISK = 2**26
"""Bytes written between two points at which everything is on the disk: what a loss of power can cost."""
DIGEST_BYTES = hashlib.sha256().digest_size

Written = TypeVar("Written")


class OrderedWriter(JournaledWriter, Generic[Written]):
    """Writes one store, item after item.

    Leaving the `with` block normally, with all items written, gives the store its name in one move. Leaving it by an
    exception keeps the journal, and the next writer continues at `position`. A finished store with the same attributes
    and items that says it was made from the same origin is left as it is: `position` is then `num_items`.

    Args:
        path: The store to write. An existing one is refused if its attributes differ, and replaced if its items do.
        num_items: Number of items to be written.
        attributes: Provenance, kept with the store.
        origin: Identifies the content that the items are made from, such as its SHA-256, and is kept with the
            attributes: a journal or a store with another origin is made again. "" for none.

    Attributes:
        position: Number of items that are done; set on entering.

    Raises:
        UserError: What exists was made with other attributes, or another process is writing this store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        num_items: int,
        attributes: Mapping[str, str | int | float],
        origin: str,
    ) -> None:
        super().__init__(path, {**attributes, ORIGIN_ATTRIBUTE: origin} if origin else attributes)
        self.num_items = num_items
        self.origin = origin
        self.position = 0
        self._plan = self._journal.path / PLAN
        self._log = self._journal.path / "digests"
        self._digests: list[bytes] = []
        self._num_logged = 0
        self._bytes_at_risk = 0
        self._is_current = False

    def _take_up(self) -> None:
        self._is_current = self.path.exists() and self._check_finished()
        if self._is_current:
            self.position = self.num_items
        else:
            self._recover()

    def _holds_work(self) -> bool:
        return self._plan.exists()

    def _finish(self) -> None:
        if self.position != self.num_items:
            raise RuntimeError(f"{self.path}: {self.position} of {self.num_items} items were written")
        if not self._is_current:
            self._secure()
            self._complete()
        self._close()
        self._journal.remove()

    def _stop(self) -> None:
        self._close()
        if not self.position:
            self._journal.remove()

    def write(self, item: Written) -> None:
        """Write the item at `position`, and go on to the next."""
        try:
            num_bytes, digest = self._put(self.position, item)
            self._digests.append(digest)
            self.position += 1
            self._bytes_at_risk += num_bytes
            if self._bytes_at_risk >= BYTES_AT_RISK:
                self._secure()
        except OSError as error:
            raise UserError(
                self.path, f"can't be written ({error.strerror or error})", "free space and run the same command again"
            ) from error

    @abstractmethod
    def _check_finished(self) -> bool:
        """Whether the existing store at `path` has the items that are to be written, made from the same origin.

        Raises:
            UserError: It was made with other attributes.
        """

    @abstractmethod
    def _put(self, index: int, item: Written) -> tuple[int, bytes]:
        """Write an item to its place in the journal; its length in bytes, and its SHA-256."""

    @abstractmethod
    def _complete(self) -> None:
        """Make the journal's items the store."""

    def _open(self) -> None:
        """Make the journal ready for items, or continue the existing one."""

    def _place(self, index: int) -> Path:
        """The file of an item, where each has one."""
        raise NotImplementedError

    def _digest(self, index: int) -> bytes:
        """SHA-256 of the content of an item's place.

        Raises:
            OSError: There is none.
        """
        return hashlib.sha256(self._place(index).read_bytes()).digest()

    def _sync(self) -> None:
        """Force the items that are not in the log yet to the disk."""
        for index in range(self._num_logged, self.position):
            with self._place(index).open("rb+") as file:
                os.fsync(file.fileno())

    def _close(self) -> None:
        """Close what `_open` opened."""

    def _is_made_from_origin(self, found: Mapping[str, object]) -> bool:
        """Whether a finished store with these attributes is; one of an older version doesn't say it."""
        if found.get(ORIGIN_ATTRIBUTE, "") == self.origin:
            return True
        logger.warning("%s: was made from other features, or doesn't say from which, and is written again", self.path)
        return False

    def _recover(self) -> None:
        plan = {"attributes": self.attributes, "origin": self.origin, "num_items": self.num_items}
        found = read_json(self._plan) if self._plan.exists() else {}
        if found:
            if not isinstance(found.get("attributes"), dict):
                remedy = f"delete {self._journal.path}, an unfinished store, to start again"
                raise UserError(self._plan, "names no attributes", remedy)
            refuse_conflict(self._journal.path, found["attributes"], self.attributes)
        if {**found, "attributes": None} != {**plan, "attributes": None}:
            if found:
                logger.warning("%s: was begun from other features and is restarted", self._journal.path)
            self._journal.clear()
            with replacing(self._plan) as temporary:
                temporary.write_text(json.dumps(plan, indent=1), encoding="utf-8")
        self._open()
        logged = self._log.read_bytes() if self._log.exists() else b""
        for index in range(len(logged) // DIGEST_BYTES):
            digest = logged[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            try:
                if self._digest(index) != digest:
                    break
            except OSError:
                break
            self._digests.append(digest)
        self.position = self._num_logged = len(self._digests)
        with self._log.open("ab") as file:
            file.truncate(self._num_logged * DIGEST_BYTES)

    def _secure(self) -> None:
        self._sync()
        with self._log.open("ab") as file:
            file.write(b"".join(self._digests[self._num_logged :]))
            file.flush()
            os.fsync(file.fileno())
        self._num_logged, self._bytes_at_risk = len(self._digests), 0


class FeatureWriter(OrderedWriter[np.ndarray]):
    """An `OrderedWriter` of arrays under keys.

    Args:
        headers: Key and shape of each item, in the order in which they are written: sorted by key.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        headers: Sequence[Header],
        attributes: Mapping[str, str | int | float],
        origin: str,
    ) -> None:
        super().__init__(path, num_items=len(headers), attributes=attributes, origin=origin)
        self.headers = headers

    def _check_finished(self) -> bool:
        store = open_features(self.path)
        refuse_conflict(self.path, store.attributes, self.attributes)
        expected = dict(self.headers)
        if set(store) != expected.keys() or any(store.header(key)[0] != shape for key, shape in self.headers):
            logger.warning("%s: has other keys or shapes than its origin and is written again", self.path)
            return False
        return self._is_made_from_origin(store.attributes)

    def _checked(self, index: int, features: np.ndarray) -> np.ndarray:
        key, shape = self.headers[index]
        if features.shape != shape:
            raise RuntimeError(f"'{key}' has shape {features.shape}, {shape} expected")
        if not np.isfinite(features).all():
            raise UserError(self.path, f"the features of '{key}' are not finite", "check the weights")
        return np.ascontiguousarray(features, dtype="<f4")
