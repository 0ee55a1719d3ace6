"""The folder `<store>.partial/`: all that an interrupted writer leaves, and all that the next one takes up.

`JournaledWriter` is what the writers of all formats have in common: a lock, so that a store has one writer or several
shards; a journal that holds what is done; one move at the end that makes it the store.

Note: the journal is deleted in the end, so only a folder that this program made is ever used as one. Its lock file has
a content that says so (`MARK`); a folder without it, and a link, are refused. So is one in which something lies that no
writer puts there: a foreign file, or a link by which files would be written elsewhere.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from splavu.errors import UserError
from splavu.runtime import signals
from splavu.runtime.files import TEMPORARY, check_target, is_companion
from splavu.runtime.locks import lock_file
from splavu.stores.provenance import ATTRIBUTES_FILE, Attributes

MARK = b"journal of a feature store that splavu writes\n"
"""Content of the lock file."""
PLAN = "plan.json"
FILES, REPLACED = "files", "replaced"
"""Folders of a journal: the features of a folder to be, and the folder that it replaces."""
_WRITTEN = re.compile(
    rf"lock|{re.escape(PLAN)}|{re.escape(ATTRIBUTES_FILE)}|digests|places\.npy|store\.h5|merging\.h5|table\.parquet"
    rf"|[0-9a-f]{{32}}\.npz|part-\d+\.arrow|shard-\d+-of-\d+\.json|\..*{re.escape(TEMPORARY)}"
)
"""Names of all other files that the writers put there."""

Writer = TypeVar("Writer", bound="JournaledWriter")


class JournaledWriter(ABC):
    """Writes one store in a journal folder `<path>.partial/` that becomes the store at the end.

    Args:
        path: The store.
        attributes: Provenance, kept with the store.

    Attributes:
        is_folder: Whether the store is a folder of files.
    """

    is_folder = False

    def __init__(self, path: str | os.PathLike[str], attributes: Mapping[str, str | int | float]) -> None:
        self.path = Path(path)
        self.attributes: Attributes = dict(attributes)
        self._journal = Journal(self.path)
        self._is_shared = False

    def __enter__(self: Writer) -> Writer:
        check_target(self.path, is_folder=self.is_folder)
        self._journal.clear_removed()
        self._journal.acquire(shared=self._is_shared)
        try:
            self._take_up()
        except BaseException:
            if not self._holds_work():
                self._journal.remove()
            self._journal.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._stop()
                if self._holds_work():
                    signals.work_is_kept()
        finally:
            self._journal.release()

    @abstractmethod
    def _take_up(self) -> None:
        """Read what an earlier run left: a finished store, a journal."""

    @abstractmethod
    def _holds_work(self) -> bool:
        """Whether the journal has anything that another run could use."""

    @abstractmethod
    def _finish(self) -> None:
        """Make the journal the store, and remove it."""

    def _stop(self) -> None:  # noqa: B027  most need nothing
        """Called when the block is left by an error: the journal stays for the next run."""


class Journal:
    """Names and lock of one journal.

    Args:
        store: The store that it becomes.

    Attributes:
        path: The folder.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.path = store.with_name(store.name + ".partial")
        self._lock: int | None = None

    def clear(self) -> None:
        """Remove all that it holds; to be called under its lock."""
        for entry in self.path.iterdir():
            if entry.name != "lock":
                _delete(entry)

    def clear_torn(self) -> None:
        """Remove temporary files of processes that were killed; to be called when no other process writes."""
        for torn in self.path.glob(f".*{TEMPORARY}"):
            torn.unlink()

    def clear_removed(self) -> None:
        """Remove the folders whose removal was interrupted."""
        for leftover in self.store.parent.glob(glob.escape(self.path.name) + ".old-*"):
            with contextlib.suppress(OSError):
                if _is_journal(leftover):
                    _delete_journal(leftover)

    def remove(self) -> None:
        """Remove the folder."""
        # Moved first: a process that waits for its lock must find either the whole journal or none.
        old = self.path.with_name(f"{self.path.name}.old-{os.getpid()}")
        self.path.rename(old)
        with contextlib.suppress(OSError):
            _delete_journal(old)

    def acquire(self, *, shared: bool, wait: bool = False) -> None:
        """Make the folder where there is none, and take its lock.

        Raises:
            UserError: Another process holds it, and `wait` is False; or there is something else of that name.
        """
        while self._lock is None:
            with contextlib.suppress(FileNotFoundError):  # the journal was removed just now
                if self.path.is_symlink() or (self.path.exists() and not _is_journal(self.path)):
                    raise UserError(self.path, "was not made by this program, which would delete it", "move it away")
                if (foreign := _foreign(self.path)) is not None:
                    raise UserError(foreign, "is no file of this journal, which would be deleted", "move it away")
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = lock_file(
                    self.path / "lock",
                    culprit=self.store,
                    problem="another process is writing this store",
                    shared=shared,
                    wait=wait,
                    mark=MARK,
                )

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _foreign(path: Path) -> Path | None:
    """Something in a journal that no writer puts there; None where there is nothing."""
    if not path.is_dir():
        return None
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name in (FILES, REPLACED) and entry.is_dir(follow_symlinks=False):
                link = next((Path(inner) for inner in _links_in(Path(entry.path))), None)
                if link is not None:
                    return link
            elif not entry.is_file(follow_symlinks=False) or not (
                _WRITTEN.fullmatch(entry.name) or is_companion(entry.name)
            ):
                return Path(entry.path)
    return None


def _links_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files) if Path(place, name).is_symlink())


def _is_journal(path: Path) -> bool:
    """Whether this program made the folder: it has our lock file, or nothing that could be lost."""
    lock = path / "lock"
    if path.is_symlink() or not path.is_dir() or lock.is_symlink() or lock.exists() > lock.is_file():
        return False
    names = {entry.name for entry in path.iterdir()} - {lock.name}
    content = lock.read_bytes() if lock.is_file() else None
    is_unmarked = content == b"" and bool(names & {ATTRIBUTES_FILE, PLAN})  # version 0.1 left the lock file empty
    return content == MARK or is_unmarked or (not names and not content)


def _delete_journal(path: Path) -> None:
    """The lock goes last: what an interrupted removal leaves can still be recognised."""
    for entry in path.iterdir():
        if entry.name != "lock":
            _delete(entry)
    (path / "lock").unlink(missing_ok=True)
    path.rmdir()


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
