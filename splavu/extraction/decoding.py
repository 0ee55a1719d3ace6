"""Decoding, apart from encoding: in threads of this process, or in processes that may die or hang without harm.

A decoder is C code fed with files from anywhere. In a separate process it can lose one file and no more: a process
that dies, or is silent for `timeout` seconds, is replaced and its file reported, while the other processes continue.

Note: clips are not pickled. A worker writes each piece into one of a few anonymous files in memory, and the main
process copies it from there. Their pages are reused, because allocating, clearing and mapping new ones for every piece
takes longer than that copy; the kernel frees them when both sides have ended.

Letters: k clips of one piece, T frames (1 for a clip that is to be tiled).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from multiprocessing import connection, forkserver, reduction
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from splavu.errors import UserError
from splavu.extraction.settings import TIMEOUT
from splavu.runtime import signals
from splavu.runtime.workers import end_with_parent, without_ctrl_c

Pieces = Iterator[tuple[str, Tensor] | None]
"""(output name, clips [k, T, H, W, 3] uint8 with T frames, or 1 to be tiled), in the order of the clips; None says no
more than that the work goes on."""

_PIECES_AHEAD = 4
"""Pieces a worker makes before the first of them is taken: this bounds the memory."""


@dataclass(frozen=True)
class Job:
    """One video or image: its key, and how to get its clips. `pieces` runs elsewhere and may raise UserError.

    For `in_processes` it must be something that can be pickled: a partial of a function or method, no lambda.
    """

    key: str
    pieces: Callable[[], Pieces]
    path: Path | None = None
    """The file, where an error is to name it."""


class Mark(Enum):
    """What can come of a job, besides its pieces and errors."""

    END = "all pieces have come"
    AGAIN = "forget its pieces, the job starts again"


Event = tuple[str, tuple[str, Tensor] | Mark | UserError]
"""(key, piece), or (key, how the job ended)."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoders(asked: int | None, *, sharing: int = 1) -> tuple[int, bool]:
    """(number of decoders, whether each is a separate process).

    Args:
        asked: Number of processes; 0 is two threads of this process, None a process per core.
        sharing: Ranks that share this machine's cores.
    """
    is_possible = os.name == "posix"  # only there can descriptors be handed from process to process
    if asked == 0 or not is_possible:
        return asked or 2, False
    return asked or max(1, num_cores() // sharing), True


def in_threads(jobs: Sequence[Job], num_workers: int) -> Iterator[Event]:
    """Decode in `num_workers` threads. A fault of the decoder's own ends this process.

    An error that is no UserError is a bug and raised here.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    num_open = len(jobs)
    ready: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=_PIECES_AHEAD * num_workers)
    stop = threading.Event()

    def hand_over(key: str, item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put((key, item), timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        torch.set_num_threads(1)
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            end: object = Mark.END
            try:
                for piece in job.pieces():
                    if piece is not None and not hand_over(job.key, piece):
                        return
            except Exception as error:  # handed to the main thread, which raises what is no UserError
                end = error
            hand_over(job.key, end)

    threads = [threading.Thread(target=work, name=f"decode-{i}", daemon=True) for i in range(max(1, num_workers))]
    for thread in threads:
        thread.start()
    try:
        while num_open:
            key, item = ready.get()
            if isinstance(item, Exception) and not isinstance(item, UserError):
                raise item
            num_open -= not isinstance(item, tuple)
            yield key, item
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def in_processes(jobs: Sequence[Job], num_workers: int, *, timeout: float = TIMEOUT) -> Iterator[Event]:
    """Decode in `num_workers` processes; one that dies or hangs loses the file at hand and is replaced.

    A worker killed from outside (SIGKILL: the system short of memory, or a person) is no fault of the file's, which is
    tried once more.

    Args:
        jobs: What can be pickled.
        num_workers: Processes, one job at a time each.
        timeout: Seconds without a piece or another sign of work before a worker counts as hung.

    Raises:
        RuntimeError: A bug: a worker could not start, or met an error that is no UserError.
    """
    waiting, num_open, tried_again = deque(jobs), len(jobs), set()
    workers: list[_Worker] = []
    try:
        while num_open:
            while len(workers) < min(num_workers, num_open):
                workers.append(_Worker())
            for worker in workers:
                # One more than the job at hand spares a worker the wait for us, but not at the end, when it would keep
                # a long video from a worker with nothing to do.
                while waiting and worker.is_ready and len(worker.jobs) < (2 if len(waiting) > num_workers else 1):
                    worker.assign(waiting.popleft())
            heard_from = connection.wait([worker.connection for worker in workers], timeout=min(1.0, timeout / 4))
            for worker in list(workers):
                reason = ""
                if worker.connection in heard_from:
                    try:
                        message = worker.receive()
                    except (EOFError, OSError):
                        reason = "the decoder died"
                    else:
                        if isinstance(message, tuple):
                            yield worker.jobs[0].key, message
                            worker.acknowledge()
                        elif message is not None:
                            num_open -= 1
                            yield worker.jobs.popleft().key, message
                        continue
                elif worker.silence() > timeout:
                    reason = f"the decoder hung: {timeout:g} s without a sign of work"
                if not reason:
                    continue
                workers.remove(worker)
                signal_number = worker.stop()
                if not worker.is_ready:
                    raise RuntimeError("a decoding process could not start; its own words are above")
                if not worker.jobs:
                    continue
                job = worker.jobs.popleft()
                waiting.extendleft(reversed(worker.jobs))
                if signal_number == signal.SIGKILL and "died" in reason and job.key not in tried_again:
                    tried_again.add(job.key)
                    waiting.appendleft(job)
                    yield job.key, Mark.AGAIN
                    continue
                num_open -= 1
                if "died" in reason and signal_number:
                    reason += f" of {signal.Signals(signal_number).name}"
                yield job.key, UserError(job.path or job.key, reason, "replace the file or leave it out")
    finally:
        for worker in workers:  # all of them first: a process takes a while to go
            worker.end()
        for worker in workers:
            worker.stop()


class _Inherited:
    """A descriptor of ours that a process has from its start on.

    Note: `reduction.DupFd` made before the start would be fetched through a socket, by a thread that prints a traceback
    where the process is ended meanwhile.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple:  # while the process starts
        return _as_it_is, (reduction.DupFd(self._descriptor),)


def _as_it_is(arrived: reduction.DupFd) -> reduction.DupFd:
    return arrived


class _Worker:
    """A decoding process, as its owner sees it."""

    def __init__(self) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self._slots = [_nameless_file() for _ in range(_PIECES_AHEAD)]
        slots = [_Inherited(slot.fileno()) for slot in self._slots]
        self._process = context.Process(target=_work, args=(theirs, slots), daemon=True)
        with without_ctrl_c():
            self._process.start()
        theirs.close()
        self.is_ready = False  # its imports are done
        self.jobs: deque[Job] = deque()  # the first is at hand
        self._heard = time.monotonic()

    def assign(self, job: Job) -> None:
        if not self.jobs:
            self._heard = time.monotonic()
        self.jobs.append(job)
        self._send(job)

    def receive(self) -> tuple[str, Tensor] | Mark | UserError | None:
        """The next message: a piece, an end, or None where it says no more than that it lives."""
        kind, *content = self.connection.recv()
        self._heard = time.monotonic()
        if kind == "piece":
            output, shape, window, slot = content
            return output, _received(self._slots[slot].fileno(), shape, window)
        if kind == "error":
            return UserError(*content)
        if kind == "bug":
            raise RuntimeError(f"while decoding '{self.jobs[0].key}':\n{content[0]}")
        self.is_ready = True
        return Mark.END if kind == "end" else None

    def acknowledge(self) -> None:
        """Let it make another piece."""
        self._heard = time.monotonic()  # it may have waited for this
        self._send(None)

    def silence(self) -> float:
        """Seconds since it was last heard, if it has something to do."""
        return time.monotonic() - self._heard if self.is_ready and self.jobs else 0.0

    def end(self) -> None:
        """End it without a wait."""
        self._process.kill()

    def stop(self) -> int:
        """End it; returns the signal it died of, 0 if it left by itself."""
        self.connection.close()
        if self._process.is_alive():
            self._process.join(1)  # its end of the connection closes a moment before it is gone
        self._process.kill()
        self._process.join()
        for slot in self._slots:
            slot.close()
        return max(0, -(self._process.exitcode or 0))

    def _send(self, message: Job | None) -> None:
        with contextlib.suppress(OSError):  # it died: the next `receive` says so
            self.connection.send(message)


def warm_up(asked: int | None) -> None:
    """Let the server of `decoders(asked)` begin its imports, which take seconds, while its owner does other things."""
    if decoders(asked)[1]:
        _context()
        with without_ctrl_c():
            forkserver.ensure_running()
        # Python's own name for it isn't public. Without it, the server ends after its imports, which take seconds.
        if server := getattr(forkserver._forkserver, "_forkserver_pid", None):
            signals.HELPERS.add(server)


def _context() -> multiprocessing.context.BaseContext:
    """Processes that begin as if spawned, but from a server that has torch and the decoders imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["splavu.extraction.extract_source", "av", "cv2"])
    return context


def _work(owner: connection.Connection, shared: Sequence[reduction.DupFd]) -> None:
    """The life of a decoding process.

    Args:
        shared: A file for each piece that may be ahead. They are filled in turn, and freed in turn as the owner
            acknowledges pieces.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's
    end_with_parent()
    jobs: deque[Job] = deque()
    descriptors = [slot.detach() for slot in shared]
    num_allowed, slots = len(descriptors), itertools.cycle(range(len(descriptors)))

    def listen() -> None:
        nonlocal num_allowed
        message = owner.recv()
        if message is None:
            num_allowed += 1
        else:
            jobs.append(message)

    with contextlib.suppress(EOFError, ConnectionError):  # the owner has closed: no more work
        owner.send(("ready",))
        while True:
            while not jobs:
                listen()
            job = jobs.popleft()
            try:
                for piece in job.pieces():
                    if piece is None:
                        owner.send(("at work",))
                        continue
                    while not num_allowed:
                        listen()
                    num_allowed -= 1
                    slot = next(slots)
                    owner.send(("piece", *_written(descriptors[slot], *piece), slot))
            except UserError as error:
                owner.send(("error", error.culprit, error.problem, error.remedy))
            except (EOFError, ConnectionError):
                raise
            except Exception:  # not swallowed: the owner raises it, with this traceback
                owner.send(("bug", traceback.format_exc()))
            else:
                owner.send(("end",))


def keep_freed_memory() -> None:
    """Let glibc reuse blocks of a batch's size, which it otherwise gives back and faults in again for every batch."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes
        libc.mallopt(trim_threshold, 64 << 20)


def _written(
    descriptor: int, output: str, clips: Tensor
) -> tuple[str, tuple[int, ...], tuple[int, int] | None]:  # [k, T, H, W, 3]
    """Write a piece to a file; returns what `_received` needs to know of it."""
    # Clips that overlap are windows on the same frames: the frames are sent once.
    frames, window = clips, None
    step, each = clips.stride()[:2]
    num_clips, length = clips.shape[:2]
    if num_clips > 1 and length > 1 and step % each == 0 and step < length * each:
        window = (length, step // each)
        frames = clips.as_strided(((num_clips - 1) * window[1] + length, *clips.shape[2:]), clips.stride()[1:])
    # Written, not mapped: the kernel would stop the process at every page.
    levels, done = _bytes(frames.contiguous()), 0
    while done < len(levels):
        done += os.pwrite(descriptor, levels[done:], done)
    return output, tuple(frames.shape), window


def _received(descriptor: int, shape: tuple[int, ...], window: tuple[int, int] | None) -> Tensor:
    frames = torch.empty(shape, dtype=torch.uint8)
    levels, done = _bytes(frames), 0
    while done < len(levels):
        count = os.preadv(descriptor, [levels[done:]], done)
        if not count:
            raise EOFError("a piece is shorter than its worker said")
        done += count
    return frames if window is None else frames.unfold(0, *window).movedim(-1, 1)


def _bytes(frames: Tensor) -> memoryview:
    return memoryview(frames.numpy()).cast("B")


def _nameless_file() -> BinaryIO:
    """Shared memory, or on macOS a file without a name."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("clips"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
