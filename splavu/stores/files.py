"""Files that come whole or not at all, and locks that a kill releases."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from splavu.errors import UserError


@contextlib.contextmanager
def written_aside(path: Path, *, durable: bool) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place at the end; `durable` also survives a loss of power."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")  # pids of nodes may agree
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_lock(path: Path, *, culprit: Path, shared: bool, wait: bool) -> int | None:
    """Hold `path` until its descriptor is closed, also by a kill. None if it was removed while we waited.

    `shared` locks bear each other, but none that is not.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(culprit, "another process is writing this store", "wait for it, or stop it") from error
        except OSError as error:
            os.close(descriptor)
            raise UserError(culprit, f"its folder's file system can't lock ({error})", "write elsewhere") from error
        if not path.exists() or os.fstat(descriptor).st_ino != path.stat().st_ino:
            os.close(descriptor)
            return None
    return descriptor


def read_json(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, "cannot be read", f"delete {path.parent} and extract again") from error
