"""Reading JSON that this program wrote: what was damaged or changed since is named, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splavu.errors import UserError, one_line

DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What Python raises for text that is no JSON, and for JSON whose values are of another kind than was written."""


@contextmanager
def as_written(path: object, remedy: str) -> Iterator[None]:
    """Turns what Python raises for damaged content of `path` into a `UserError`.

    Note: only for reading what this program wrote. Elsewhere it would hide our own faults.
    """
    try:
        yield
    except DAMAGE as error:
        problem = f"isn't as it was written ({type(error).__name__}: {one_line(error)[:200]})"
        raise UserError(path, problem, remedy) from error


def read_record(path: Path, remedy: str) -> Any:
    """The value in a file of JSON.

    Raises:
        UserError: It can't be read, or is no JSON.
    """
    with as_written(path, remedy):
        return json.loads(_text(path, remedy))


def read_records(path: Path, remedy: str) -> list[dict[str, Any]]:
    """The objects in a file with one a line; an incomplete last line, as an interruption leaves it, is left out.

    Raises:
        UserError: It can't be read, or another line is no JSON object.
    """
    with as_written(path, remedy):
        lines = _text(path, remedy).split("\n")
        records = [json.loads(line) for line in lines[:-1] if line]
        if not all(isinstance(record, dict) for record in records):
            raise ValueError("a line is no JSON object")
        return records


def _text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(path, f"can't be read ({error.strerror or error})", remedy) from error
