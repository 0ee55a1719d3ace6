"""What an anonymizer is apart from what it hides and keeps: its cost, and its budget of bits.

Note: a time depends on the machine and its load. Rows of one table may be compared if nothing else ran; those of two
tables may not.

Shapes: N clips, D feature width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splavu.anonymizers import Anonymizer, one_by_one
from splavu.anonymizers.guarantees import budget_of
from splavu.anonymizers.loading import load_anonymizer
from splavu.stores import open_features
from study.compare.plan import Comparison, Entry
from study.experiments.runner import Outcome

TIMED_ROWS = 1024


@dataclass(frozen=True)
class AnonymizerCost:
    """An anonymizer, whatever it was made for."""

    seconds: float
    """To make it: the whole command, with Python's start and reading the data; NaN where it wasn't kept."""
    numbers: int
    """In its checkpoint's weights and buffers."""
    microseconds: float
    """To anonymize a feature, of `TIMED_ROWS` at once, on one thread."""
    budget: float | None = None
    """Bits a clip at most, by its architecture; None without a bound."""
    distinct: int | None = None
    """Vectors that differ in the released test store; of one with a budget."""


def cost_of(
    entry: Entry, comparison: Comparison, outcomes: Mapping[str, Outcome], *, device: torch.device | str
) -> AnonymizerCost | None:
    """Of the first seed that has been made, its seconds the mean over seeds; None where none has."""
    made = {seed: outcomes[job] for seed, job in entry.jobs["make"].items() if outcomes[job].state == "done"}
    if not made:
        return None
    seed = next(iter(made))
    anonymizer = load_anonymizer(entry.candidate.checkpoint(comparison.runs, seed))
    seconds = [outcome.seconds for outcome in made.values() if outcome.seconds is not None]
    raw = comparison.raw_stores["test"]
    budget, distinct = budget_of(anonymizer.architecture), None
    release = entry.jobs["release"][seed]
    if budget is not None and outcomes[release].state == "done":
        distinct = len(np.unique(_clips(comparison.runs / release / raw.name), axis=0))
    return AnonymizerCost(
        seconds=float(np.mean(seconds)) if seconds else float("nan"),
        numbers=sum(value.numel() for value in anonymizer.state_dict().values()),
        microseconds=microseconds(anonymizer, torch.from_numpy(_clips(raw)), device=device),
        budget=budget,
        distinct=distinct,
    )


def microseconds(anonymizer: Anonymizer, rows: torch.Tensor, *, device: torch.device | str, repeats: int = 7) -> float:
    """Time per row: the best of several runs over `TIMED_ROWS` rows [N, D], each anonymized alone, on one thread."""
    rows = rows.repeat(-(-TIMED_ROWS // len(rows)), 1)[:TIMED_ROWS].to(device)
    anonymizer = anonymizer.to(device).eval()
    threads, best = torch.get_num_threads(), math.inf
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            one_by_one(anonymizer, rows)
            for _ in range(repeats):
                begun = time.perf_counter()
                one_by_one(anonymizer, rows).cpu()  # waits for the device
                best = min(best, time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
    return 1e6 * best / len(rows)


def _clips(path: Path) -> np.ndarray:  # -> [N, D] float32
    store = open_features(path)
    return np.concatenate([np.atleast_2d(store[key]) for key in store.keys()]).astype(np.float32)  # noqa: SIM118
