"""Batches of a data set, epoch after epoch, gathered on the device that trains.

What is drawn is a pure function of the seed and the position in the endless sequence of batches. There is no state, so
a resumed run, a short data set that is cycled, and each of several processes only need to know their position.

The order and the draws of an epoch are computed together; a step is then a gather of rows. The rows are in the memory
of the device if they fit there; otherwise a thread gathers them in host memory some steps ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splavu.data.clips import ClipBatch, Draws, FeatureDataset
from splavu.data.feature_cache import IN_MEMORY_BYTES
from splavu.runtime.environment import derived_seed

GPU_SHARE = 0.5
"""Share of a GPU's free memory that the tables of a data set may take; larger ones stay on the host."""
STEPS_AHEAD = 3
"""Number of batches gathered in advance, where the rows aren't on the device."""


class BatchLoader:
    """Batches of a data set in a new order each epoch.

    Args:
        dataset: The videos.
        batch_size: Videos of a global batch, whatever the number of processes.
        seed: Seed of the order; the draws use the data set's.
        shuffle: False keeps the file order, as evaluation does.
        device: Device of the batches; None takes the CPU.
        share: (rank, world): of the B videos of a batch this process gets
            `[rank * B // world : (rank + 1) * B // world]`, also of a shorter last batch. That may be no video: tensors
            of 0 rows.
    """

    def __init__(
        self,
        dataset: FeatureDataset,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        device: torch.device | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.dataset, self.batch_size, self.seed, self.shuffle = dataset, batch_size, seed, shuffle
        self.device, self.share = torch.device(device or "cpu"), share
        self._tables: Tables | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """The store's attributes."""
        return self.dataset.provenance

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[ClipBatch]:
        """All batches of epoch number `epoch`."""
        return self.steps(epoch * len(self), len(self))

    def steps(self, first: int, count: int) -> Iterator[ClipBatch]:
        """Batches number `first` to `first + count - 1`, counted over all epochs."""
        if self._tables is None:
            self._tables = Tables(self.dataset, self.device)
        batches = self._batches(first, first + count, self._tables)
        return batches if self._tables.are_on_device else _ahead(batches, self.device)

    def _batches(self, first: int, stop: int, tables: Tables) -> Iterator[ClipBatch]:
        while first < stop:
            epoch, step = divmod(first, len(self))
            count = min(len(self) - step, stop - first)
            order = self._order(epoch)
            slices, totals = zip(*(self._slice(at, len(order)) for at in range(step, step + count)), strict=True)
            draws = self.dataset.drawn(np.concatenate([order[part] for part in slices]), epoch)
            yield from tables.batches(draws, [part.stop - part.start for part in slices], totals)
            first += count

    def _order(self, epoch: int) -> NDArray:  # [V]
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng(derived_seed(self.seed, epoch, 0)).permutation(len(self.dataset))

    def _slice(self, step: int, num_videos: int) -> tuple[slice, int]:
        """This process's slice of batch `step`, and how many videos the batch has."""
        first = step * self.batch_size
        total, (rank, world) = min(self.batch_size, num_videos - first), self.share
        return slice(first + rank * total // world, first + (rank + 1) * total // world), total


class Tables:
    """The rows and labels of a data set, on the device of a loader or, if they don't fit there, in host memory."""

    def __init__(self, dataset: FeatureDataset, device: torch.device) -> None:
        tables = [table for table in (dataset.clips, dataset.static) if table is not None]
        self.are_on_device = _fit(device, tables)
        self._keys = dataset.keys
        self._gather: Gather = _gather_on_host
        place: Callable[[NDArray], Any] = np.asarray
        if device.type != "cpu" and self.are_on_device:
            self._gather, place = _gather_on_device, lambda array: torch.from_numpy(array).to(device)
        elif device.type == "cuda":
            self._gather = _gather_pinned
        self._place = place
        self._clips = place(dataset.clips.rows)
        self._static = None if dataset.static is None else place(dataset.static.rows)
        self._labels = None if dataset.labels is None else place(dataset.labels)

    def batches(self, draws: Draws, sizes: Sequence[int], totals: Sequence[int]) -> Iterator[ClipBatch]:
        """`draws` cut into batches of `sizes`, each a slice of a global batch of `totals`."""
        clips = self._place(draws.clips)
        videos = None if self._labels is None else self._place(draws.videos)
        pairs = None if self._static is None or draws.static_pairs is None else self._place(draws.static_pairs)
        stop = 0
        for size, total in zip(sizes, totals, strict=True):
            part = slice(stop, stop := stop + size)
            yield ClipBatch(
                clips=self._gather(self._clips, clips[part]),
                labels=None if videos is None else self._gather(self._labels, videos[part]),
                videos=draws.videos[part],
                keys=self._keys,
                num_total=total,
                static_pairs=None if pairs is None else self._gather(self._static, pairs[part]),
            )


Gather = Callable[[Any, Any], Tensor]
"""(table [R, ...], row numbers [B] or [B, M]) -> [B, ...] or [B, M, ...]; both on the table's device."""


def _gather_on_device(table: Tensor, rows: Tensor) -> Tensor:
    return table.index_select(0, rows.flatten()).view(*rows.shape, *table.shape[1:])


def _gather_on_host(table: NDArray, rows: NDArray) -> Tensor:
    # NumPy, on one thread: torch would start all of its threads, which takes longer than copying a few megabytes.
    return torch.from_numpy(table.take(rows, axis=0))


def _gather_pinned(table: NDArray, rows: NDArray) -> Tensor:
    gathered = torch.empty((*rows.shape, *table.shape[1:]), dtype=torch.from_numpy(table[:0]).dtype, pin_memory=True)
    table.take(rows, axis=0, out=gathered.numpy(), mode="clip")  # other modes make a copy of `out`
    return gathered


def _fit(device: torch.device, tables: list[Any]) -> bool:
    """Whether the rows of `tables` may be on `device`."""
    if device.type == "cpu":
        return all(table.path is None for table in tables)
    num_bytes = sum(table.num_bytes for table in tables)
    if device.type == "cuda":
        return num_bytes <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]
    return num_bytes <= IN_MEMORY_BYTES


def _ahead(batches: Iterator[ClipBatch], device: torch.device) -> Iterator[ClipBatch]:
    """The same batches on `device`, `STEPS_AHEAD` of them drawn in advance by a thread."""
    side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def draw() -> tuple[ClipBatch | None, Any]:
        batch = next(batches, None)
        if batch is None or side is None:
            return batch if batch is None else batch.to(device), None
        with torch.cuda.stream(side):
            return batch.to(device), side.record_event()

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
    try:
        waiting = deque(pool.submit(draw) for _ in range(STEPS_AHEAD))
        while True:
            batch, arrived = waiting.popleft().result()
            if batch is None:
                return
            waiting.append(pool.submit(draw))
            if arrived is not None:
                _hand_over(batch, arrived, device)
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _hand_over(batch: ClipBatch, arrived: Any, device: torch.device) -> None:
    """Let the stream that computes wait for a batch that another copied, and keep its memory until it is used."""
    current = torch.cuda.current_stream(device)
    current.wait_event(arrived)
    for tensor in (batch.clips, batch.labels, batch.static_pairs):
        if tensor is not None:
            tensor.record_stream(current)
