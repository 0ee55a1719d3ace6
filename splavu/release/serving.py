"""Features through an anonymizer as fast as one matrix product after the other, each as if it had come alone.

Rows of many videos share a tile, since a video of ten clips would leave most of `SERVING_TILE` empty, and tiles are
wider where that is shown to change no bit (`widest_tile`). Several tiles are computed at once, one thread each: threads
within one small product would spend their time waiting.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splavu.anonymizers import SERVING_TILE, Anonymizer, in_tiles

BLOCK_ROWS = 16 * SERVING_TILE
"""Rows that a thread takes at once."""
TILES = (1024, 512, 256, 128)
"""Rows of a product, more than `SERVING_TILE`, that are tried: larger ones are faster and may have the same bits."""
BLOCKS_AHEAD = 8
"""Blocks read ahead of what is written: enough to compute on while the disk is waited for."""


@dataclass
class Block:
    """Rows of several items, or some of one item's."""

    rows: np.ndarray  # [BLOCK_ROWS, D]
    num_rows: int = 0
    segments: list[tuple[int, int]] = field(default_factory=list)
    """(rows, of the item's rows that are still to come) of each item, in order."""


def serve_rows(
    items: Iterable[np.ndarray], anonymizer: Anonymizer, *, device: torch.device | str = "cpu"
) -> Iterator[np.ndarray]:  # each [..., D] float32 -> the same
    """Each item with every row of it anonymized alone, in the order of `items`.

    `items` is read in a thread of its own, some blocks ahead; what it raises is raised here. Takes the memory of the
    largest item twice, and of `BLOCKS_AHEAD` blocks.

    Args:
        items: Features of one width; the leading dimensions don't matter.
        anonymizer: In evaluation mode, on `device`.
        device: Where it computes.
    """
    shapes: deque[tuple[int, ...]] = deque()
    tile = widest_tile(anonymizer, device=device)
    with _read_ahead(_blocks(_noting(items, shapes))) as blocks:
        partial: list[np.ndarray] = []
        for block, served in _in_order(blocks, lambda block: _serve_block(block, anonymizer, tile, device), device):
            start = 0
            for num_rows, num_missing in block.segments:
                partial.append(served[start : start + num_rows])
                start += num_rows
                if not num_missing:
                    whole = partial[0] if len(partial) == 1 else np.concatenate(partial)
                    partial.clear()
                    yield whole.reshape(shapes.popleft())


def serve_each(
    items: Iterable[np.ndarray], function: Callable[[Tensor], Tensor], *, device: torch.device | str = "cpu"
) -> Iterator[np.ndarray]:
    """`function` of each item, in the order of `items`, which are read in a thread of their own."""

    def serve(item: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return function(torch.from_numpy(item).to(device)).cpu().numpy()

    with _read_ahead(items) as ahead:
        for _, served in _in_order(ahead, serve, device):
            yield served


def widest_tile(anonymizer: Anonymizer, *, device: torch.device | str = "cpu") -> int:
    """The most rows a product may have, here and now, to give the very bits that tiles of `SERVING_TILE` rows give.

    A library chooses by the shape, not by the values, in which order it sums, so random rows tell: any other order
    would change some of their last bits. They are tried in several places of a tile.
    """
    width = anonymizer.architecture["feature_dim"]
    rows = torch.randn(TILES[0], width, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode(), _one_thread():
        expected = in_tiles(anonymizer.map_rows, rows)
        for tile in TILES:
            if all(
                torch.equal(torch.cat([anonymizer.map_rows(part) for part in moved.split(tile)]), expected.roll(by, 0))
                for by, moved in ((by, rows.roll(by, 0)) for by in (0, 1, 37))
            ):
                return tile
    return SERVING_TILE


def _serve_block(block: Block, anonymizer: Anonymizer, tile: int, device: torch.device | str) -> np.ndarray:
    num_rows = -(-block.num_rows // tile) * tile
    block.rows[block.num_rows : num_rows] = 0
    with torch.inference_mode():
        rows = torch.from_numpy(block.rows[:num_rows]).to(device)
        tiles = [anonymizer.map_rows(part) for part in rows.split(tile)]
        return (tiles[0] if len(tiles) == 1 else torch.cat(tiles)).cpu().numpy()[: block.num_rows]


def _noting(items: Iterable[np.ndarray], shapes: deque[tuple[int, ...]]) -> Iterator[np.ndarray]:
    for item in items:
        shapes.append(item.shape)
        yield item.reshape(-1, item.shape[-1])


def _blocks(items: Iterable[np.ndarray]) -> Iterator[Block]:
    block = None
    for rows in items:
        start = 0
        while start < len(rows):
            block = block or Block(np.empty((BLOCK_ROWS, rows.shape[1]), np.float32))
            count = min(len(rows) - start, BLOCK_ROWS - block.num_rows)
            block.rows[block.num_rows : block.num_rows + count] = rows[start : start + count]
            start += count
            block.num_rows += count
            block.segments.append((count, len(rows) - start))
            if block.num_rows == BLOCK_ROWS:
                yield block
                block = None
    if block is not None:
        yield block


def _in_order(items, function, device):  # Iterable[T], T -> R -> Iterator[tuple[T, R]]
    """(item, function(item)) in the order of `items`, computed a thread a processor; one thread feeds a GPU."""
    num_workers = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    pending: deque[tuple[Any, Future]] = deque()
    with _one_thread(), ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in items:
                pending.append((item, pool.submit(function, item)))
                if len(pending) > BLOCKS_AHEAD or pending[0][1].done():
                    done, future = pending.popleft()
                    yield done, future.result()
            while pending:
                done, future = pending.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A product computes on one thread; afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _read_ahead(items: Iterable) -> Iterator[Iterator]:
    """`items`, drawn in a thread of its own that leaves with the block."""
    ahead: queue.Queue = queue.Queue(maxsize=BLOCKS_AHEAD)
    end, stopped = object(), threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ahead.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))

    def drawn() -> Iterator:
        while True:
            item, error = ahead.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield drawn()
    finally:
        stopped.set()
        thread.join()
