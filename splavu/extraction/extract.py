"""Many videos through one frozen encoder: decoding beside encoding, full batches across videos, one result per video.

Encoding is threaded, for it releases Python's lock. On a CPU a batch is dealt out to as many encoding threads as torch
may use, each computing on one core: the cores of one shared computation wait for each other at every layer, and
whenever a decoder takes one of them away, all of them stand still.

Which clips meet in a batch depends on how fast each video decodes, and a matrix product may round a row differently for
another number of rows. So every pass through the encoder has the same number of clips, filled up where they run out: a
store has the same bytes for any order of decoding, number of workers and number of interruptions.

Letters: k clips of one piece, B clips of a batch, T frames (1 for a clip that is to be tiled), D feature width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from splavu.data.encoders import Preprocessing
from splavu.errors import UserError
from splavu.extraction.decoding import (
    Event,
    Job,
    Mark,
    Pieces,
    in_processes,
    in_threads,
    keep_freed_memory,
)
from splavu.extraction.encoders import FrozenEncoder
from splavu.extraction.settings import TIMEOUT

__all__ = ["Job", "Pieces", "Result", "extract"]


@dataclass
class Result:
    """What became of a job: an array per output, or the reason why there is none."""

    key: str
    features: dict[str, np.ndarray] = field(default_factory=dict)  # output name -> [K, D] float32
    error: UserError | None = None


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

    def __init__(self, key: str) -> None:
        self.key = key
        self.rows: dict[str, _Rows] = {}
        self.pending = 0
        self.is_decoded = False


_Piece = tuple[_Open, str, Tensor]  # job, output, clips [k, T, H, W, 3]


def extract(
    jobs: Sequence[Job],
    encoder: FrozenEncoder,
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    batch_size: int = 32,
    num_workers: int = 2,
    precision: str = "fp32",
    is_isolated: bool = False,
    timeout: float = TIMEOUT,
) -> Iterator[Result]:
    """Encode `jobs`; each result comes as soon as its last clip is encoded, in no fixed order.

    Memory is bounded: a few pieces per worker and two batches, however long the videos are. An error that is no
    UserError is a bug and ends the run.

    Args:
        batch_size: Clips in one pass through the encoder on a GPU; on a CPU, clips in flight.
        num_workers: Decoders.
        is_isolated: Whether they are processes, so that the jobs must be picklable, or threads of this process.
        timeout: Seconds that a process may be silent over one file before the file counts as hung.
    """
    if device.type == "cpu":
        keep_freed_memory()
    num_streams = torch.get_num_threads() if device.type == "cpu" else 1
    share = _clips_together(device, batch_size, preprocessing)
    # So many that no stream waits for us, who may wait for another or for a decoder.
    most_in_flight = max(2 * num_streams, batch_size // share) if device.type == "cpu" else 1
    num_open = len(jobs)
    open_jobs: dict[str, _Open] = {}
    batch: list[_Piece] = []
    in_flight: deque[tuple[list[_Piece], Future[np.ndarray]]] = deque()  # in the order of the clips

    def encoded(taken: list[_Piece]) -> np.ndarray:  # -> [B, D]
        clips = torch.cat([_tiled(clips, encoder.spec.num_frames) for *_, clips in taken])
        with torch.inference_mode():
            features = extractor.result()(_filled_up(clips, share)).cpu()
        return features[: len(clips)].numpy()

    def hand_out() -> None:
        """Give the first clips of `batch` to a stream: one pass through the encoder."""
        taken: list[_Piece] = []
        limit = share
        while batch and limit:
            job, output, clips = batch.pop(0)
            if len(clips) > limit:
                batch.insert(0, (job, output, clips[limit:]))
                clips = clips[:limit]
            limit -= len(clips)
            taken.append((job, output, clips))
        in_flight.append((taken, streams.submit(encoded, taken)))

    def collect(limit: int) -> Iterator[Result]:
        """Wait until at most `limit` shares are in flight, and keep the features of the finished ones."""
        while len(in_flight) > limit:
            taken, future = in_flight.popleft()
            features = future.result()
            ends = np.cumsum([len(clips) for *_, clips in taken])
            for (job, output, clips), rows in zip(taken, np.split(features, ends[:-1]), strict=True):
                if output not in job.rows:
                    job.rows[output] = _Rows(rows.shape[1])
                job.rows[output].extend(rows)
                job.pending -= len(clips)
            for job in {id(job): job for job, *_ in taken}.values():
                yield from finished(job)

    def finished(job: _Open) -> Iterator[Result]:
        # A job that failed, or started again, is no longer the one that is open under its key.
        if open_jobs.get(job.key) is job and job.is_decoded and not job.pending:
            del open_jobs[job.key]
            yield Result(job.key, {output: rows.array() for output, rows in job.rows.items()})

    def events() -> Iterator[Event]:
        if is_isolated:
            return in_processes(jobs, num_workers, timeout=timeout)
        return in_threads(jobs, num_workers)

    with ThreadPoolExecutor(
        num_streams, "encode", initializer=_on_one_core if device.type == "cpu" else None
    ) as streams:
        # Beside the start of the decoders, which takes as long.
        extractor = streams.submit(encoder.extractor, preprocessing, device=device, precision=precision)
        for key, item in events():
            if isinstance(item, tuple):
                job = open_jobs.setdefault(key, _Open(key))
                batch.append((job, *item))
                job.pending += len(item[1])
            elif item is Mark.END:
                num_open -= 1
                job = open_jobs.setdefault(key, _Open(key))
                job.is_decoded = True
                yield from finished(job)
            else:
                lost = open_jobs.pop(key, None)
                batch[:] = [waiting for waiting in batch if waiting[0] is not lost]
                if isinstance(item, UserError):
                    num_open -= 1
                    yield Result(key, error=item)
            # The last of them now, too: it takes a while until `events` has stopped the decoders.
            while batch and (not num_open or sum(len(clips) for *_, clips in batch) >= share):
                hand_out()
                yield from collect(most_in_flight)
        yield from collect(0)


def _clips_together(device: torch.device, batch_size: int, preprocessing: Preprocessing) -> int:
    """Clips in one pass through the encoder: all of a batch on a GPU. One core has enough to do with a clip of 224
    pixels, and is slower the more there are; only of small ones, of the demo encoder, are several faster than one."""
    if device.type != "cpu":
        return batch_size
    return 8 if preprocessing.crop <= 112 else 1


def _filled_up(clips: Tensor, count: int) -> Tensor:  # [k, T, H, W, 3] -> [count, T, H, W, 3]
    missing = count - len(clips)
    return torch.cat([clips, clips[:1].expand(missing, *clips.shape[1:])]) if missing else clips


def _on_one_core() -> None:
    """To be called in a thread, for this thread alone."""
    torch.set_num_threads(1)


def _tiled(clips: Tensor, num_frames: int) -> Tensor:  # [k, T or 1, H, W, 3] -> [k, T, H, W, 3]
    return clips.expand(-1, num_frames, -1, -1, -1)
