"""Ctrl-C and SIGTERM: every command ends in one line, with exit code 130 or 143, and no process of it is left.

A signal is raised in the main thread as an exception, so that files and processes are cleaned up as after any error.
Python does that between two steps of its own: one long step of a library would hold it up. So a thread watches too, and
`PATIENCE` seconds after the signal it ends the process as a kill would, which loses nothing (`splavu.runtime.files`).
While a script still imports there is nothing to clean up, and the signal ends it at once.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""What is said of each signal that ends a command; the exit code is 128 and its number."""
PATIENCE = 1.0
PROGRAMS: set[subprocess.Popen[bytes]] = set()
"""Programs that a command has started and waits for: they are ended with it."""

HELPERS: set[int] = set()
"""Processes that would take their time to see that this one has ended, by their number."""


class Stopped(KeyboardInterrupt):
    """One of the signals has come."""


class _State:
    """Of this process: the signal that has come, and whether there is something that the same command would take up."""

    number: int | None = None
    is_kept = False
    is_said = False
    is_registered = False


def leave_at_once() -> None:
    """Let a signal end this process, for the time of a script's imports; to be called before them."""
    for number in WORDS:
        signal.signal(number, _leave)


def work_is_kept() -> None:
    """To be called where something is written that the same command goes on from: the line at the end then says so."""
    _State.is_kept = True


def received() -> int | None:
    """The number of the signal that has come, if one has."""
    return _State.number


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """In this block a signal raises `Stopped`; elsewhere than in the main thread, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.number, _State.is_kept, _State.is_said = None, False, False
    before = {number: signal.signal(number, _raise) for number in WORDS}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakes_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    over = threading.Event()
    if not _State.is_registered:
        _State.is_registered = True
        os.register_at_fork(after_in_child=_as_a_child)
        atexit.register(_ignore)
    threading.Thread(target=_watch, args=(reader, over), name="signals", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(wakes_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)


def leave(number: int) -> NoReturn:
    """Say that the signal ended the command, and end the process without a wait for its threads."""
    _say(number)
    with contextlib.suppress(OSError, ValueError):  # the reader of our output may have gone
        sys.stdout.flush()
    for program in list(PROGRAMS):
        program.terminate()
    for helper in HELPERS:
        with contextlib.suppress(OSError):
            os.kill(helper, signal.SIGKILL)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(128 + number)


def line(number: int) -> str:
    """What is said of it."""
    way_on = "; run the same command to go on" if _State.is_kept else ""
    return f"{WORDS[signal.Signals(number)]}{way_on}\n"


def _say(number: int) -> None:
    if _State.is_said or os.environ.get("RANK", "0") != "0":  # of several ranks the first one speaks
        return
    _State.is_said = True
    with contextlib.suppress(OSError):
        os.write(2, line(number).encode())  # not by way of a lock that somebody holds


def _leave(number: int, _frame: FrameType | None) -> None:
    _say(number)
    os._exit(128 + number)


def _raise(number: int, _frame: FrameType | None) -> None:
    if _State.number is not None:  # impatience
        leave(number)
    _State.number = number
    raise Stopped


def _watch(reader: int, over: threading.Event) -> None:
    while byte := os.read(reader, 1):
        if byte[0] in WORDS:
            if not over.wait(PATIENCE):
                leave(byte[0])
            break
    os.close(reader)


def _ignore() -> None:
    """What is left is Python's own end, in which a signal would change the exit code of a command that is done."""
    for number in WORDS:
        signal.signal(number, signal.SIG_IGN)


def _as_a_child() -> None:
    """A process that was forked is ended by its parent, and says nothing."""
    with contextlib.suppress(ValueError):  # not in the main thread
        if signal.getsignal(signal.SIGINT) is _raise:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
