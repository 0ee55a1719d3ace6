"""Figures as they stand on a report's page: rounded, with a true minus, '–' where undefined, intervals below them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splavu.audit.report.markup import Content, Markup, cell, element

UNITS = {"clip": "one clip", "video": "all clips of a video", "person": "all clips of a person"}
"""What an attacker sees, in words."""


def number(value: float | None, factor: float = 1.0, digits: int = 2) -> str:
    """A rounded figure; what rounds to nothing has no sign."""
    if value is None:
        return "–"
    shown = f"{factor * value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")


def share(value: float | None) -> str:
    """In whole per cent."""
    return "–" if value is None else f"{number(value, 100, 0)} %"


def bounds(estimate: Mapping[str, Any], factor: float = 1.0, digits: int = 2) -> str:
    return f"[{number(estimate.get('low'), factor, digits)}, {number(estimate.get('high'), factor, digits)}]"


def small(content: Content) -> Markup:
    """A line below a figure."""
    return element("span", content, class_="range")


def estimate_cell(
    estimate: Mapping[str, Any] | None, factor: float = 1.0, digits: int = 2, *, with_chance: bool = False
) -> Markup:
    """A figure, below it its interval, and what chance gives."""
    if not estimate or estimate.get("value") is None:
        return cell("–")
    lines = []
    if estimate.get("low") is not None or estimate.get("high") is not None:
        lines.append(small(bounds(estimate, factor, digits)))
    if with_chance and estimate.get("chance") is not None:
        lines.append(small(f"chance {number(estimate['chance'], factor, max(digits, 1))}"))
    return cell(number(estimate["value"], factor, digits), lines)


def verdict_cell(verdict: str, *below: Content) -> Markup:
    return cell(verdict, below, class_="verdict leaks" if verdict == "leaks" else "verdict")


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
