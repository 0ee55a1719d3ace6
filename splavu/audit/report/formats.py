"""Figures as the page prints them: rounded, with a true minus, '–' where undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNITS = {"clip": "one clip", "video": "all clips of a video", "person": "all clips of a person"}
"""What an attacker sees, in words."""


def number(value: float | None, factor: float = 1.0, digits: int = 2) -> str:
    """A rounded figure; what rounds to nothing has no sign."""
    if not isinstance(value, (int, float)):  # None, or a part that the evidence lacks
        return "–"
    shown = f"{factor * value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")


def share(value: float | None) -> str:
    """In whole per cent."""
    return f"{text} %" if (text := number(value, 100, 0)) != "–" else text


def bounds(estimate: Mapping[str, Any], factor: float = 1.0, digits: int = 2) -> str:
    """The interval of an estimate."""
    low, high = ((estimate or {}).get(end) for end in ("low", "high"))
    return f"[{number(low, factor, digits)}, {number(high, factor, digits)}]"


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def unit_name(unit: str) -> str:
    """What an attacker of this unit sees."""
    return UNITS.get(unit, unit)
