"""The processes of one training under torchrun: rank, count, collectives. Without torchrun there is one.

Each process draws its own slice of every batch, and a loss term is a process's share of the mean over the whole batch:
the sum over its rows, divided by the rows of all. So terms and gradients are *added* over processes, never averaged,
and N processes compute what one does, to rounding. Parameters start equal, get equal gradients and stay equal.

The collectives are Lightning Fabric's (docs/training.md says why); a single process never imports it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from splavu.errors import UserError
from splavu.runtime import extras
from splavu.runtime.environment import pick_device


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Of this process."""
    rank: int = 0
    count: int = 1
    fabric: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """(rank, count): which slice of a batch is this process's."""
        return self.rank, self.count

    def rows(self, num_rows: int) -> slice:
        """This process's slice of so many rows; may be empty."""
        return slice(*_bounds(num_rows, self.rank, self.count))

    def gather(self, rows: Tensor, num_rows: int) -> Tensor:  # [b, D] -> [B, D]
        """The rows of all processes in their order, with gradients; b is this process's slice of B = `num_rows`."""
        if self.count == 1:
            return rows
        counts = [stop - start for start, stop in (_bounds(num_rows, rank, self.count) for rank in range(self.count))]
        # Slices differ by one row at most, collectives want them equal.
        padded = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
        gathered = self.fabric.all_gather(padded, sync_grads=True)  # [count, max, D]
        return torch.cat([some[:length] for some, length in zip(gathered, counts, strict=True)])

    def total(self, values: Tensor) -> Tensor:
        """The sum over processes, without gradients."""
        return values if self.count == 1 else self.fabric.all_reduce(values.detach().clone(), reduce_op="sum")

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over processes, in one message a data type."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
            alike = [gradient for gradient in gradients if gradient.dtype == dtype]
            summed = self.total(torch.cat([gradient.flatten() for gradient in alike]))
            parts = summed.split([gradient.numel() for gradient in alike])
            torch._foreach_copy_(alike, [part.view_as(own) for part, own in zip(parts, alike, strict=True)])

    def wait(self) -> None:
        """Block until every process has called this."""
        if self.count > 1:
            self.fabric.barrier()


NOT_DISTRIBUTED = Processes()
"""One process, on the CPU."""


def _bounds(num_rows: int, rank: int, count: int) -> tuple[int, int]:
    return rank * num_rows // count, (rank + 1) * num_rows // count


def connect(device: str = "auto") -> Processes:
    """This process among those that torchrun started; the only one if it wasn't torchrun.

    Args:
        device: As for `pick_device`; under torchrun 'auto' or 'cuda' is a GPU for each process (NCCL), 'cpu' is gloo.

    Raises:
        UserError: No such device, or more processes than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(pick_device(device))
    # Imported here: it takes two seconds, and only several processes need it.
    lightning = extras.require("lightning_fabric", extra="distributed", why="several processes are joined by it")
    on_gpu = pick_device(device).type == "cuda"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if on_gpu and local > torch.cuda.device_count():
        problem = f"{local} processes on this machine, but {torch.cuda.device_count()} GPUs"
        raise UserError("--nproc_per_node", problem, "start a process a GPU, or give --device cpu")
    fabric = lightning.Fabric(
        accelerator="cuda" if on_gpu else "cpu", devices=local, num_nodes=max(1, count // local), strategy="ddp"
    )
    fabric.launch()
    return Processes(fabric.device, fabric.global_rank, fabric.world_size, fabric)


def refuse_several_processes(script: str) -> None:
    """For a script that would only do the same work in each of them.

    Raises:
        UserError: torchrun started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(script, "has no work for several processes", "start it with python instead of torchrun")
