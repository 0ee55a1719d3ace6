"""Video files that can't be opened, in one line."""

from __future__ import annotations

from pathlib import Path

from splavu.errors import UserError


def require_file(path: Path) -> None:
    """Raise UserError unless `path` is a file with something in it."""
    if not path.is_file():
        raise UserError(path, "no such video", "check the path")
    if path.stat().st_size == 0:
        raise UserError(path, "the file is empty", "replace the file or leave it out")


def unreadable(path: Path, reason: object) -> UserError:
    """For a file that doesn't open."""
    return UserError(path, f"not a readable video ({first_line(reason)})", "replace the file or leave it out")


def first_line(reason: object) -> str:
    """What an error says, cut to a line."""
    lines = str(getattr(reason, "strerror", None) or reason).strip().splitlines()
    return lines[0][:120] if lines else type(reason).__name__
