"""Locks of files: held by one process, or shared by several, until they are closed, also by a kill.

The system keeps them, so a process that has died holds none, whatever files it has left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from splavu.errors import UserError

_HELD: dict[Path, int] = {}
"""Lock files that this process holds in `locked` -> its descriptor."""


def lock_file(
    path: Path, *, culprit: object, problem: str, shared: bool = False, wait: bool = False, mark: bytes = b""
) -> int | None:
    """Make a file and hold it until the descriptor that is returned is closed; None if it was removed meanwhile.

    Args:
        path: The lock file.
        culprit: What an error blames.
        problem: What it says where another process holds the lock.
        shared: Several processes may hold it so, but then none otherwise.
        wait: Until no other process holds it.
        mark: Content of a new file.

    Raises:
        UserError: Another process holds it, or the file system has no locks.
        OSError: The file can't be made.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise UserError(culprit, problem, "wait for it, or stop it") from error
            except OSError as error:
                raise UserError(culprit, f"its folder's file system can't lock ({error})", "write elsewhere") from error
            if not path.exists() or os.fstat(descriptor).st_ino != path.stat().st_ino:
                os.close(descriptor)
                return None
        if not os.fstat(descriptor).st_size:
            os.write(descriptor, mark)  # several shards at once write the same bytes
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def locked(path: Path, *, culprit: object, problem: str) -> Iterator[None]:
    """Hold a lock file in this block, and remove it; a block within a block of the same file holds it already.

    Raises:
        UserError: As `lock_file`.
        OSError: As `lock_file`.
    """
    path = path.resolve()
    if path in _HELD:
        yield
        return
    while (descriptor := lock_file(path, culprit=culprit, problem=problem, mark=b"lock of splavu\n")) is None:
        pass
    _HELD[path] = descriptor
    try:
        yield
    finally:
        del _HELD[path]
        with contextlib.suppress(OSError):  # first: who waits for it finds another file, or none
            path.unlink()
        os.close(descriptor)
