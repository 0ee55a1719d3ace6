"""The page's charts as inline SVG: figures with intervals on one axis, and curves.

Note: SVG scales its letters with everything else, so a chart drawn for a desk can't be read on a phone. Each is drawn
twice, and the page shows one of them (`templates/style.css`). Colours, which differ in dark mode, come from there too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDE, NARROW = 760, 350
"""Pixels."""
LETTER = 6.8
"""Mean width of a letter, in pixels."""

Drawing = tuple[int, Markup]
"""Height and what is on it."""


@dataclass(frozen=True)
class Dot:
    """One figure and its interval; None where undefined."""

    kind: str
    """raw or released: how it looks."""
    value: float | None
    low: float | None
    high: float | None
    label: str
    """In words, shown where the pointer is on it."""


@dataclass(frozen=True)
class Band:
    """One line of a chart: a name and the figures that stand on it. Without figures, a heading."""

    name: str
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class LineSeries:
    """A line through points (x, y), x ascending and positive."""

    name: str
    points: tuple[tuple[float, float], ...]


def dot_chart(
    bands: Sequence[Band],
    *,
    title: str,
    description: str,
    axis: str,
    caption: str,
    chance: float = 0.0,
    margin: float | None = None,
) -> Markup:
    """Figures with intervals, a band each, over one horizontal axis that holds chance. Nothing where nothing is known.

    Args:
        bands: From top to bottom.
        title: Names the chart; unique on a page.
        description: What it shows, for readers who can't see it.
        axis: What is measured, with its unit.
        caption: Below it.
        chance: Where the axis has its strong line.
        margin: A tinted strip around it.
    """
    ends = [end for band in bands for dot in band.dots for end in (dot.value, dot.low, dot.high) if end is not None]
    if not ends:
        return Markup("")
    reach = margin or 0.0
    marks = ticks(min(chance - reach, *ends), max(chance + reach, *ends))
    return _figure(lambda width: _dots(bands, marks, axis, (chance, reach), width), title, description, caption)


def curve_chart(
    curves: Sequence[LineSeries],
    *,
    title: str,
    description: str,
    axes: tuple[str, str],
    level: float | None,
    caption: str,
) -> Markup:
    """Curves over a logarithmic axis; `level` is a line of its own, chance. Nothing where there are no two points."""
    points = [point for curve in curves for point in curve.points]
    if len({x for x, _ in points}) < 2:
        return Markup("")
    heights = [y for _, y in points] + ([] if level is None else [level])
    marks = ticks(min(heights), max(heights))
    return _figure(lambda width: _curves(curves, marks, axes, level, width), title, description, caption)


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers, evenly spaced, that enclose low and high."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * place, 10) for place in range(first, max(last, first + 1) + 1)]


def _figure(draw: Callable[[int], Drawing], title: str, description: str, caption: str) -> Markup:
    """Both widths; one of them is displayed, so one is read out."""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    made = []
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        height, drawn = draw(width)
        ids = f"{name}-{kind}-title", f"{name}-{kind}-description"
        about = element("title", title, id=ids[0]), element("desc", description, id=ids[1])
        options = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria_labelledby": " ".join(ids)}
        made.append(element("div", element("svg", *about, drawn, **options), class_=kind))
    return element("figure", made, element("figcaption", caption))


def _dots(bands: Sequence[Band], marks: Sequence[float], axis: str, chance: tuple[float, float], width: int) -> Drawing:
    is_wide = width >= WIDE
    longest = max(len(band.name) for band in bands if band.dots)
    left = min(300.0, longest * LETTER + 20) if is_wide else 0.0
    scale = _scale(marks[0], marks[-1], left + 8, width - 14)
    drawn: list[Markup] = []
    spans: list[list[float]] = []  # the heights between which the grid is drawn: it stops at headings
    y = 4.0
    for band in bands:
        if not band.dots:
            y += 14 if drawn else 0
            drawn.append(_text(0, y + 12, band.name, class_="head"))
            y += 20
            spans.append([y, y])
            continue
        spans = spans or [[y, y]]
        if not is_wide:
            y += 16
        drawn.append(_text(0, y + (14 if is_wide else 0) + 4 * (len(band.dots) - 1) * is_wide, band.name))
        room = 22 + 9 * (len(band.dots) - 1)
        for place, dot in enumerate(band.dots):
            drawn.append(_dot(dot, scale, y + 10 + 10 * place))
        y += room
        spans[-1][1] = y
    grid: list[Markup] = []
    for top, bottom in spans:
        if chance[1]:
            start, end = scale(chance[0] - chance[1]), scale(chance[0] + chance[1])
            grid.append(element("rect", x=start, y=top, width=end - start, height=bottom - top, class_="margin"))
        for mark in dict.fromkeys([*marks, chance[0]]):
            style = "zero" if mark == chance[0] else "grid"
            grid.append(element("line", x1=scale(mark), x2=scale(mark), y1=top, y2=bottom, class_=style))
    grid += [_text(scale(mark), y + 16, _short(mark), text_anchor="middle", class_="faint") for mark in marks]
    grid.append(_text((left + width) / 2, y + 35, axis, text_anchor="middle", class_="faint"))
    return int(y + 42), Markup("").join([*grid, *drawn])


def _dot(dot: Dot, scale: Callable[[float], float], y: float) -> Markup:
    if dot.value is None:
        return Markup("")
    parts: list[Markup] = [element("title", dot.label)]
    if dot.low is not None and dot.high is not None:
        parts.append(element("line", x1=scale(dot.low), x2=scale(dot.high), y1=y, y2=y, class_=dot.kind))
        for end in (dot.low, dot.high):
            parts.append(element("line", x1=scale(end), x2=scale(end), y1=y - 3, y2=y + 3, class_=f"{dot.kind} end"))
    parts.append(element("circle", cx=scale(dot.value), cy=y, r=4, class_=dot.kind))
    return element("g", parts)


def _curves(
    curves: Sequence[LineSeries], marks: Sequence[float], axes: tuple[str, str], level: float | None, width: int
) -> Drawing:
    height = 300 if width >= WIDE else 260
    left, right, top, bottom = 46.0, width - 8 - max(len(c.name) for c in curves) * LETTER, 30.0, height - 46.0
    places = sorted({x for curve in curves for x, _ in curve.points})
    across = _scale(math.log(places[0]), math.log(places[-1]), left + 8, right - 8)
    up = _scale(marks[0], marks[-1], bottom, top)
    drawn = [_text(0, 14, axes[1], class_="faint")]
    for mark in marks:
        drawn.append(element("line", x1=left, x2=right, y1=up(mark), y2=up(mark), class_="grid"))
        drawn.append(_text(left - 8, up(mark) + 4, _short(mark), text_anchor="end", class_="faint"))
    for x in places:
        drawn.append(_text(across(math.log(x)), bottom + 18, _short(x), text_anchor="middle", class_="faint"))
    drawn.append(_text((left + right) / 2, bottom + 38, axes[0], text_anchor="middle", class_="faint"))
    if level is not None:
        drawn.append(element("line", x1=left, x2=right, y1=up(level), y2=up(level), class_="zero dashed"))
        drawn.append(_text(left + 8, up(level) - 6, "chance", class_="faint"))
    names = _apart([up(curve.points[-1][1]) + 4 for curve in curves], 15.0)
    for place, (curve, name_at) in enumerate(zip(curves, names, strict=True)):
        dots = [(across(math.log(x)), up(y)) for x, y in curve.points]
        line = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
        style = "stroke-dasharray: " + ("none", "6 4", "2 3", "9 3 2 3")[place % 4]
        drawn.append(element("path", d=line, class_="line", style=style))
        for (x, y), (people, value) in zip(dots, curve.points, strict=True):
            said = element("title", f"{curve.name}, {_short(people)}: {value:.1f}")
            drawn.append(element("g", said, element("circle", cx=x, cy=y, r=3.5, class_="released")))
        drawn.append(_text(right + 4, name_at, curve.name))
    return height, Markup("").join(drawn)


def element(tag: str, /, *content: str | Sequence[str], **attributes: str | float) -> Markup:
    """`<tag attributes>content</tag>`, escaped; an attribute `class_` is class, '_' in a name is '-'."""
    given = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), f"{value:.5g}" if isinstance(value, float) else value
        )
        for key, value in attributes.items()
    )
    parts = Markup("").join(escape(one) for part in content for one in ([part] if isinstance(part, str) else part))
    return Markup("<{0}{1}>{2}</{0}>").format(tag, given, parts)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The same, moved down where they would overlap."""
    moved = list(heights)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + gap)
    return moved


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def _short(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _text(x: float, y: float, content: str, **options: str) -> Markup:
    return element("text", content, x=x, y=y, **options)
