"""The one exception that a user sees: what is wrong, in which file, key or parameter, and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input, reported in one line. Entry points print it and exit with code 2 (`splavu.runtime.cli.run`).

    Args:
        culprit: The file, key or parameter at fault.
        problem: What was found there, and what was expected.
        remedy: What to do about it.
    """

    def __init__(self, culprit: object, problem: str, remedy: str = "") -> None:
        self.culprit, self.problem, self.remedy = str(culprit), problem, remedy
        super().__init__(printable(f"{culprit}: {problem}" + (f"; {remedy}" if remedy else "")))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        """For its way from one process to another."""
        return type(self), (self.culprit, self.problem, self.remedy)


def printable(text: str) -> str:
    r"""A text on one line that a terminal shows and doesn't obey, in any encoding that has the text's letters.

    What can't be printed (control characters, line ends, marks that turn the direction of writing) is written as
    Python's escape, such as `\x1b`; so is a byte of a file name that isn't UTF-8, such as `\udce9` for 0xE9, as which
    Python reads it (PEP 383). A text without such characters stays as it is, so this may be done twice.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def as_markdown(text: str) -> str:
    """Any text as Markdown that shows it on one line: no end of a cell, no element, nothing that a terminal obeys."""
    return re.sub(r"([\\|<])", r"\\\1", printable(" ".join(text.splitlines())))


def one_line(error: object) -> str:
    """What another package says of an error, without its line ends and indentation."""
    return " ".join(str(error).split())


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy that offers the name in `known` closest to `name`, or lists them all."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(known)}"


@contextmanager
def as_user_errors(kind: type[Exception]) -> Iterator[None]:
    """Raises errors of a package that stands alone (`kind`, with culprit, problem and remedy) as `UserError`."""
    try:
        yield
    except kind as error:
        culprit, problem, remedy = (getattr(error, name) for name in ("culprit", "problem", "remedy"))
        raise UserError(culprit, problem, remedy) from error


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Turns a failed write (disk full, read-only, no such place) into a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        remedy = "free space or choose another output folder, then run the same command to go on"
        raise UserError(path, f"can't be written ({error.strerror or error})", remedy) from error
