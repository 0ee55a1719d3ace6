"""Which files of a data set a process extracts when several do it together, on one node or many.

A shard is every N-th key in sorted order, the same in every process, so the processes don't communicate while they
work.

Note: `torchrun` stops all ranks as soon as one exits with an error. Under it, a rank whose files failed exits with 0,
and one rank that knows all failures exits with 1: for one store the last to finish, which finds the lists of the other
ranks (`splavu.stores`), for a folder the first rank (`sum_over_ranks`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from splavu.errors import UserError


@dataclass(frozen=True)
class Shard:
    """One part of `count`, counted from 0."""

    index: int
    count: int

    def keys(self, keys: Iterable[str]) -> list[str]:
        """Those of this shard, sorted."""
        return sorted(keys)[self.index :: self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def find_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The shard called `text` ('0/4'), else that of RANK and WORLD_SIZE as torchrun sets them; None is everything.

    Raises:
        UserError: It is written otherwise, or there is no such shard.
    """
    culprit = "--shard"
    if text is None:
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return None
        culprit, text = "RANK/WORLD_SIZE", f"{environment['RANK']}/{environment['WORLD_SIZE']}"
    numbers = re.fullmatch(r"(\d+)/(\d+)", text)
    if numbers is None or int(numbers[1]) >= int(numbers[2]):
        raise UserError(culprit, f"is '{text}', I/N with I from 0 to N - 1 expected", "for example --shard 0/4")
    return Shard(int(numbers[1]), int(numbers[2])) if int(numbers[2]) > 1 else None


def ranks_here(environment: Mapping[str, str] = os.environ) -> int:
    """How many ranks share this node's cores, by torchrun's word; 1 if it says nothing."""
    text = environment.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(text)) if text.isdigit() else 1


def device_name(asked: str, environment: Mapping[str, str] = os.environ) -> str:
    """`asked`, but for 'auto' under torchrun a GPU of each rank's own, dealt out in turn where there are too few."""
    rank = environment.get("LOCAL_RANK", "")
    if asked == "auto" and rank.isdigit() and torch.cuda.is_available():
        return f"cuda:{int(rank) % torch.cuda.device_count()}"
    return asked


def is_under_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an exit code other than 0 would stop the other ranks."""
    return "TORCHELASTIC_RUN_ID" in environment


def is_first_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is rank 0, by torchrun's word."""
    return environment.get("RANK", "0") == "0"


def sum_over_ranks(count: int) -> int:
    """The sum of every rank's `count` under torchrun; to be called once, at the end. Waits until all have come."""
    distributed.init_process_group("gloo", timeout=timedelta(days=30))  # one rank may have much longer videos
    try:
        total = torch.tensor(count)
        distributed.all_reduce(total)
        return int(total)
    finally:
        distributed.destroy_process_group()
