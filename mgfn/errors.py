"""The one exception that a user of `mgfn` sees."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input, reported in one line; the scripts print it and exit with code 2.

    Args:
        culprit: The file, video or option at fault.
        problem: What was found there, and what was expected.
        remedy: What to do about it.
    """

    def __init__(self, culprit: object, problem: str, remedy: str = "") -> None:
        self.culprit, self.problem, self.remedy = str(culprit), problem, remedy
        line = f"{culprit}: {problem}" + (f"; {remedy}" if remedy else "")
        super().__init__(printable(line))


def printable(text: str) -> str:
    """What a terminal would obey, and bytes of names that aren't UTF-8, as Python's escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy that offers the name in `known` closest to `name`, or lists some of them."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return f"did you mean '{match[0]}'?" if match else f"known: {listed or 'none'}"
