"""Matplotlib in the style of the reports, through its objects: no global state, no display, imported when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splavu.errors import writing
from splavu.runtime import extras
from splavu.runtime.files import replacing

RAW, ALONE, BATCH, CHANCE = "#3d5a80", "#ee6c4d", "#e9b44c", "#8d99ae"
"""One colour a meaning, in every figure: raw features, one feature at a time, in a batch, chance."""


def check_drawing() -> None:
    """To be called before the work whose figures are drawn in the end.

    Raises:
        UserError: Matplotlib isn't installed.
    """
    extras.check("matplotlib", extra="report", why="figures are drawn with it")


def canvas(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure in the report's style, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
        axis.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    return figure, axes


def saved(figure: Any, path: Path) -> Path:
    """Write a figure as PNG; without its creation date and versions, the same runs give the same bytes."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if "$" in text.get_text():  # of a name; Matplotlib would read it as a formula
            text.set_parse_math(False)
    with writing(path), replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path
