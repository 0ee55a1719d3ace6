"""Worker processes that end with the command that started them, however that ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess


@contextlib.contextmanager
def worker_processes(count: int, initializer: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    """`count` new processes, none of which is left when the block ends, also by an exception.

    They are no copies of this one: a copy of a process whose thread pools have run may wait for ever for threads that
    it hasn't got.

    Args:
        count: How many.
        initializer: Called in each of them first.
    """
    _start_tracker()
    spawning = _Context()
    pool = ProcessPoolExecutor(count, mp_context=spawning, initializer=_begin, initargs=(initializer,))
    try:
        yield pool
    except BaseException:
        for process in spawning.started:
            process.kill()
        pool.shutdown(wait=False)
        raise
    pool.shutdown()


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes started in this block don't see Ctrl-C, which a terminal sends to all processes of a command."""
    if os.name != "posix":
        yield
        return
    _start_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Multiprocessing's process that frees what killed processes leave: does so without a word about it."""
    sys.warnoptions.append("ignore:resource_tracker")  # handed to it on its command line
    try:
        resource_tracker.ensure_running()  # its start would end a block without Ctrl-C
    finally:
        sys.warnoptions.remove("ignore:resource_tracker")


def end_with_parent() -> None:
    """In a process of multiprocessing: end when the one that started it has ended, also by a kill."""
    threading.Thread(target=_wait_for_parent, name="parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _begin(initializer: Callable[[], None]) -> None:
    end_with_parent()
    initializer()


class _Process(SpawnProcess):
    def start(self) -> None:
        with without_ctrl_c():
            super().start()


class _Context(SpawnContext):
    """Remembers the processes that it made."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[_Process] = []

    def Process(self, *args: object, **options: object) -> _Process:
        self.started.append(_Process(*args, **options))  # pyright: ignore[reportArgumentType]
        return self.started[-1]
