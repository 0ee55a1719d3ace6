"""What a command may read and how much memory it may take: `--follow-links` and `--memory`, said once for a process.

Feature stores are untrusted files. A store of a few kilobytes can declare terabytes, so the size of whatever is about
to be read is compared with the memory that is left before anything is allocated (`require`). The ceiling changes how
much is read at once, never a result.

Note: the ceiling is on the memory of the process as the system counts it (its resident set), Python and libraries
included. Pages of mapped features are not counted: the system takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from pathlib import Path

from splavu.errors import UserError

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LEAST = 2**28
"""Bytes that a command takes before it reads a feature: Python, NumPy and torch."""
MAPPED_LIBRARIES = 2**28
"""Bytes of mapped files that are counted at most: libraries. What is beyond are features."""

_ceiling: int | None = None
_follows_links = False


def add_reading(parser: argparse._ActionsContainer) -> None:
    """Add --memory and --follow-links, which every command that reads features has."""
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=str,
        help="most memory to take, such as 4G or 512M (default: half of what is free); never changes a result",
    )
    parser.add_argument(
        "--follow-links",
        action="store_true",
        help="read features that a store only links to, within its folder (default: refuse them by name)",
    )


def apply(args: argparse.Namespace) -> None:
    """Set the limits of this process as the arguments of `add_reading` say, where a command has them.

    Raises:
        UserError: --memory is no size, or too small for any command.
    """
    text = getattr(args, "memory", None)
    set_limits(
        memory=None if text is None else size_of(text, "--memory"), follow_links=getattr(args, "follow_links", False)
    )


def set_limits(*, memory: int | None = None, follow_links: bool = False) -> None:
    """Set the limits of this process: `memory` in bytes (None: half of what is free now)."""
    global _ceiling, _follows_links
    if memory is not None and memory < LEAST:
        raise UserError("--memory", f"{shown(memory)} is too little", f"a command itself takes {shown(LEAST)}")
    _ceiling, _follows_links = memory, follow_links


def size_of(text: str, culprit: str) -> int:
    """The bytes that a text such as '4G', '1.5 GiB', '512M' or '1000000' means.

    Raises:
        UserError: It means none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, flags=re.IGNORECASE | re.ASCII)
    if match is None or not float(match[1]):
        raise UserError(culprit, f"'{text}' is no size", "write it as 4G or 512M")
    return int(float(match[1]) * UNITS[match[2].upper()])


def shown(num_bytes: float) -> str:
    """`6.8 GiB`: a size for people."""
    size, unit = float(num_bytes), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1000 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def follows_links() -> bool:
    """Whether features that a store only links to are read."""
    return _follows_links


def ceiling() -> int:
    """Bytes that this process may take in all."""
    global _ceiling
    if _ceiling is None:
        _ceiling = max(LEAST, resident_memory() + free_memory() // 2)
    return _ceiling


def left() -> int:
    """Bytes that this process may still take."""
    return max(0, ceiling() - resident_memory())


def require(num_bytes: float, culprit: object, what: str = "reading it") -> None:
    """Refuse what would take more memory than is left.

    Args:
        num_bytes: That will be allocated.
        culprit: The file at fault.
        what: That takes it.

    Raises:
        UserError: It does; says how much would be needed.
    """
    if num_bytes > 2**24 and num_bytes > left():  # what is small isn't worth the look at what is left
        needed = shown(num_bytes + resident_memory())
        remedy = f"give --memory {needed.replace(' ', '').removesuffix('iB')} where there is so much, or fewer features"
        raise UserError(culprit, f"{what} takes {needed} of memory, the ceiling is {shown(ceiling())}", remedy)


def of_allocation(error: BaseException) -> str | None:
    """What Python, NumPy or torch say of memory that they couldn't get; None of any other error."""
    if isinstance(error, MemoryError):
        return " ".join(str(error).split()) or "it is used up"
    if isinstance(error, RuntimeError) and (found := re.search(r"tried to allocate \d+ bytes", str(error))):
        return found[0]
    return None


def free_memory() -> int:
    """Bytes that can be allocated without swapping; half of all where the system doesn't say."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def resident_memory() -> int:
    """Bytes that this process holds now, without mapped features; its peak where the system doesn't say."""
    with contextlib.suppress(OSError, ValueError):
        _, resident, mapped, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
        page = os.sysconf("SC_PAGE_SIZE")
        return (resident - mapped) * page + min(mapped * page, MAPPED_LIBRARIES)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
