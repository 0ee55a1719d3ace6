"""The one exception that a user of `tridet` sees: what is wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input, reported in one line; the entry points print it and exit with code 2.

    Args:
        culprit: The file, video or configuration key at fault.
        problem: What was found there, and what was expected.
        remedy: What to do about it.
    """

    def __init__(self, culprit: object, problem: str, remedy: str = "") -> None:
        self.culprit, self.problem, self.remedy = str(culprit), problem, remedy
        line = f"{culprit}: {problem}" + (f"; {remedy}" if remedy else "")
        super().__init__(printable(line))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:  # crosses from a loader's process as it is
        return type(self), (self.culprit, self.problem, self.remedy)


def printable(text: str) -> str:
    """What a terminal would obey, and bytes of names that aren't UTF-8, as Python's escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def first_few(names: Sequence[str], count: int = 5) -> str:
    """The first names of a list that may be long, for a message."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
