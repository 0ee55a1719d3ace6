"""Many videos through one frozen encoder: decoding in threads, full batches across videos, one result per video.

Threads are enough, because decoding, resizing and encoding all release Python's lock. On a CPU a batch is dealt out to
as many encoding threads as torch may use, each computing on one core: the cores of one shared computation wait for each
other at every layer, and whenever a decoder takes one of them away, all of them stand still.

Which clips share a batch depends on how fast each video decodes. That changes a feature by float rounding only (about
1e-6), not in its content, since an encoder treats the clips of a batch apart from each other.

Letters: k clips of one piece, B clips of a batch, T frames (1 for a clip that is to be tiled), D feature width.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from feature_extraction.encoders import FrozenEncoder
from feature_extraction.preprocessing import normalise
from splavu.encoders import Preprocessing
from splavu.errors import UserError
from splavu.runtime import autocast

Pieces = Iterator[tuple[str, Tensor]]
"""(output name, clips [k, T, H, W, 3] uint8 with T frames, or 1 to be tiled), in the order of the clips."""


@dataclass(frozen=True)
class Job:
    """One video or image: its key, and how to get its clips. `pieces` runs in a thread and may raise UserError."""

    key: str
    pieces: Callable[[], Pieces]


@dataclass
class Result:
    """What became of a job: an array per output, or the reason why there is none."""

    key: str
    features: dict[str, np.ndarray] = field(default_factory=dict)  # output name -> [K, D] float32
    error: UserError | None = None


_Piece = tuple[str, str, Tensor]  # key, output, clips [k, T, H, W, 3]


class _Rows:
    """Features as they come, in one array that doubles when it is full.

    A list of small arrays would do, were they not born among large ones: each keeps the memory of a freed batch from
    being used again, and an hour of video would grow the process by hundreds of megabytes.
    """

    def __init__(self, width: int) -> None:
        self._rows = np.empty((256, width), np.float32)
        self._count = 0

    def extend(self, rows: np.ndarray) -> None:  # [k, D]
        stop = self._count + len(rows)
        if stop > len(self._rows):
            grown = np.empty((2 * stop, self._rows.shape[1]), np.float32)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : stop] = rows
        self._count = stop

    def array(self) -> np.ndarray:  # -> [K, D]
        return self._rows[: self._count].copy()


class _Open:
    """A job whose clips are on their way through the encoder."""

    def __init__(self) -> None:
        self.rows: dict[str, _Rows] = {}
        self.pending = 0
        self.is_decoded = False


def extract(
    jobs: Sequence[Job],
    encoder: FrozenEncoder,
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    batch_size: int = 32,
    num_workers: int = 2,
    precision: str = "fp32",
) -> Iterator[Result]:
    """Encode `jobs`; each result comes as soon as its last clip is encoded, in no fixed order.

    Memory is bounded: a few pieces per worker and two batches, however long the videos are. An error that is no
    UserError is a bug and ends the run.
    """
    encoder.to(device)
    num_streams = torch.get_num_threads() if device.type == "cpu" else 1
    share = -(-batch_size // num_streams)  # clips of a batch that one stream encodes
    open_jobs: dict[str, _Open] = {}
    batch: list[_Piece] = []
    in_flight: deque[tuple[list[_Piece], Future[np.ndarray]]] = deque()  # in the order of the clips

    def encoded(taken: list[_Piece]) -> np.ndarray:  # -> [B, D]
        clips = torch.cat([_tiled(clips, encoder.spec.num_frames) for *_, clips in taken]).to(device)
        with torch.inference_mode(), autocast(device, precision):
            return encoder(normalise(clips, preprocessing)).float().cpu().numpy()

    def hand_out() -> None:
        """Give the first clips of `batch` to a stream."""
        taken: list[_Piece] = []
        limit = share
        while batch and limit:
            key, output, clips = batch.pop(0)
            if len(clips) > limit:
                batch.insert(0, (key, output, clips[limit:]))
                clips = clips[:limit]
            limit -= len(clips)
            taken.append((key, output, clips))
        in_flight.append((taken, streams.submit(encoded, taken)))

    def collect(limit: int) -> Iterator[Result]:
        """Wait until at most `limit` shares are in flight, and keep the features of the others."""
        while len(in_flight) > limit:
            taken, future = in_flight.popleft()
            features = future.result()
            ends = np.cumsum([len(clips) for *_, clips in taken])
            for (key, output, clips), rows in zip(taken, np.split(features, ends[:-1]), strict=True):
                if (job := open_jobs.get(key)) is not None:  # else it failed in the meantime
                    if output not in job.rows:
                        job.rows[output] = _Rows(rows.shape[1])
                    job.rows[output].extend(rows)
                    job.pending -= len(clips)
            for key in dict.fromkeys(key for key, *_ in taken):
                yield from finished(key)

    def finished(key: str) -> Iterator[Result]:
        job = open_jobs.get(key)
        if job is not None and job.is_decoded and not job.pending:
            del open_jobs[key]
            yield Result(key, {output: rows.array() for output, rows in job.rows.items()})

    with ThreadPoolExecutor(
        num_streams, "encode", initializer=_on_one_core if device.type == "cpu" else None
    ) as streams:
        for key, item in _decoded(jobs, num_workers):
            if isinstance(item, UserError):
                open_jobs.pop(key, None)
                batch[:] = [waiting for waiting in batch if waiting[0] != key]
                yield Result(key, error=item)
                continue
            job = open_jobs.setdefault(key, _Open())
            if item is None:
                job.is_decoded = True
                yield from finished(key)
                continue
            output, clips = item
            batch.append((key, output, clips))
            job.pending += len(clips)
            while sum(len(clips) for *_, clips in batch) >= share:
                hand_out()
                yield from collect(num_streams)
        while batch:
            hand_out()
        yield from collect(0)


def _on_one_core() -> None:
    """To be called in a thread, for this thread alone."""
    torch.set_num_threads(1)


def _tiled(clips: Tensor, num_frames: int) -> Tensor:  # [k, T or 1, H, W, 3] -> [k, T, H, W, 3]
    return clips.expand(-1, num_frames, -1, -1, -1)


def _decoded(jobs: Iterable[Job], num_workers: int) -> Iterator[tuple[str, tuple[str, Tensor] | UserError | None]]:
    """(key, piece) of all jobs as workers make them; (key, None) ends a job, (key, UserError) too."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    num_open = 0
    for job in jobs:
        waiting.put(job)
        num_open += 1
    ready: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=4 * num_workers)
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
        _on_one_core()
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            end: Exception | None = None
            try:
                for piece in job.pieces():
                    if not hand_over(job.key, piece):
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
            num_open -= item is None or isinstance(item, UserError)
            yield key, item
    finally:
        stop.set()
        for thread in threads:
            thread.join()
