"""A run: its folder, where nothing is half written, and what it starts with: device, seed, logging."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tqdm import tqdm

from mgfn.errors import InputError
from mgfn.option import Options


class Run:
    """The folder `output/model_name`."""

    def __init__(self, options: Options) -> None:
        self.path = Path(options.output) / options.model_name
        self._writer = None

    def write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=1) + "\n"
        write_whole(self.path / name, lambda file: file.write(text.encode()))

    def record(self, options: Options) -> None:
        """Write down what was asked for, and the versions of everything that decides a number."""
        self.write_json("options.json", dataclasses.asdict(options))
        self.write_json("versions.json", versions())

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one record to metrics.jsonl and TensorBoard; `step` counts epochs from 0."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._writer is None:
            # Imported late: TensorBoard takes a second to load, and only training needs it.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.path / "tensorboard"), purge_step=step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """Drop the records from `step` on, and a line cut off by a kill: a resumed run writes them again."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        kept = [line for line in path.read_bytes().splitlines(keepends=True) if _step(line) < step]
        write_whole(path, lambda file: file.writelines(kept))

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _step(line: bytes) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that it's there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def pick_device(name: str) -> torch.device:
    """The device called `name`; 'auto' takes CUDA, then Apple's MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError("--device", f"'{name}' can't be used ({str(error).splitlines()[0]})", "try auto") from error
    return device


def seed_everything(seed: int, epoch: int) -> None:
    """Seed torch's generators from (seed, epoch), so that a resumed run draws what it would have drawn."""
    high, low = np.random.SeedSequence([seed, epoch]).generate_state(2)
    torch.manual_seed(int(high) << 31 | int(low) >> 1)


def start(options: Options) -> None:
    """Logging and progress bars as the options ask."""
    level = logging.WARNING if options.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", force=True)
    if options.quiet:
        # TQDM_DISABLE is read when tqdm is imported, which was before the options were.
        tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)


def versions() -> dict[str, str]:
    """What ran: Python, the libraries that decide a number, and the processor or GPU."""
    found = {name: metadata.version(name) for name in ("torch", "numpy", "scikit-learn")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu x {torch.get_num_threads()}"
    return {"python": platform.python_version(), "platform": platform.platform(terse=True), **found, "device": device}
