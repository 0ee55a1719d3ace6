"""Tables in Markdown whose columns line up, so that a terminal shows them too, and numbers as they stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from splavu.errors import as_markdown


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; in cells `|` and `<` are escaped, and lines are joined."""
    lines = [[as_markdown(text) for text in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    padded.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(padded) + "\n"


def percent(value: float | None) -> str:
    """A share as per cent, empty where there is none."""
    return "" if value is None else f"{100 * value:.1f}"


def number(value: float | None) -> str:
    """Two digits, '-' where undefined."""
    return "-" if value is None else f"{value:.2f}"


def interval(bounds: Sequence[float | None], factor: float, digits: int) -> str:
    """`[low, high]` times `factor`, '-' for an undefined end."""
    return "[" + ", ".join("-" if bound is None else f"{factor * bound:.{digits}f}" for bound in bounds) + "]"
