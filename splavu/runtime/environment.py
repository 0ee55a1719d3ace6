"""Where and how a computation runs: device, precision, seeds, versions.

Randomness here is a function of (seed, epoch), never of what ran before: a run that was killed and resumed at the start
of an epoch therefore draws exactly what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import random
from importlib import metadata

import numpy as np
import torch

from splavu._version import __version__
from splavu.errors import UserError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; 'auto' takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: No such device, or it is absent from this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch answers an unknown or absent device in several lines; the first names the reason.
        raise UserError(
            "--device", f"'{name}' can't be used ({str(error).splitlines()[0]})", "try auto or cpu"
        ) from error
    return device


def autocast(device: torch.device, precision: str = "fp32") -> contextlib.AbstractContextManager:
    """Mixed precision on `device`: 'fp32' (none), 'bf16' or 'fp16'."""
    if precision not in PRECISIONS:
        raise UserError("precision", f"'{precision}' is unknown", f"use one of {', '.join(PRECISIONS)}")
    dtype = PRECISIONS[precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def derived_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers (a run's seed, an epoch, a purpose), well mixed."""
    # The count goes in because SeedSequence takes [0] and [0, 0] for the same.
    words = [len(parts), *(part & 0xFFFFFFFFFFFFFFFF for part in parts)]
    low, high = np.random.SeedSequence(words).generate_state(2)
    return (int(high) << 32 | int(low)) & 0x7FFFFFFFFFFFFFFF


def seed_everything(*parts: int) -> None:
    """Seed Python's, NumPy's and torch's global generators from `parts`, for libraries that draw from them."""
    seed = derived_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  scikit-learn falls back on the global generator
    torch.manual_seed(seed)


def only_deterministic_kernels() -> None:
    """Have torch refuse kernels whose result varies from run to run; of use on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def versions() -> dict[str, str]:
    """What ran: this package, Python, the libraries that decide a number, and the processor or GPU."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu x {torch.get_num_threads()}"
    return {**_software(), "device": device}


@functools.cache  # each checkpoint asks, and reading package metadata takes 20 ms
def _software() -> dict[str, str]:
    found = {"splavu": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in ("torch", "numpy", "h5py", "scikit-learn", "transformers", "av", "decord", "opencv-python-headless"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
