"""Anti-aliased shapes on an RGB array, in sub-pixel coordinates.

The array is drawn at twice the size of the frame and averaged down when it is read. OpenCV is imported when a
canvas is made, so that importing this package doesn't need it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Colour = tuple[float, float, float]
Point = tuple[float, float]

_SHIFT = 4
_UNIT = 1 << _SHIFT


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter, within 0..255."""
    return tuple(min(255.0, max(0.0, c * factor)) for c in colour)


def blend(first: Colour, second: Colour, share: float) -> Colour:
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


class Canvas:
    """Draws in place on `pixels`, uint8 [H, W, 3]. Points are (column, row) in pixels, angles degrees."""

    def __init__(self, pixels: np.ndarray) -> None:
        import cv2

        self.pixels, self._cv2 = pixels, cv2

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        corners = np.array(points, np.float64) * _UNIT
        self._cv2.fillPoly(self.pixels, [corners.astype(np.int32)], colour, self._cv2.LINE_AA, _SHIFT)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        at = (int(centre[0] * _UNIT), int(centre[1] * _UNIT))
        self._cv2.circle(self.pixels, at, max(1, int(radius * _UNIT)), colour, -1, self._cv2.LINE_AA, _SHIFT)

    def ellipse(
        self, centre: Point, axes: tuple[float, float], colour: Colour, *, tilt: float = 0.0, arc: Point = (0, 360)
    ) -> None:
        at = (int(centre[0] * _UNIT), int(centre[1] * _UNIT))
        half = (max(1, int(axes[0] * _UNIT)), max(1, int(axes[1] * _UNIT)))
        self._cv2.ellipse(
            self.pixels, at, half, tilt, arc[0], arc[1], colour, -1, self._cv2.LINE_AA, _SHIFT
        )  # fmt: skip

    def stroke(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        first = (int(start[0] * _UNIT), int(start[1] * _UNIT))
        last = (int(end[0] * _UNIT), int(end[1] * _UNIT))
        self._cv2.line(self.pixels, first, last, colour, max(1, round(width)), self._cv2.LINE_AA, _SHIFT)

    def taper(self, start: Point, end: Point, radii: tuple[float, float], colour: Colour) -> None:
        """A limb: two discs and what lies between them."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy)
        self.disc(start, radii[0], colour)
        self.disc(end, radii[1], colour)
        if length < 1e-3:
            return
        nx, ny = -dy / length, dx / length
        self.polygon(
            (
                (start[0] + nx * radii[0], start[1] + ny * radii[0]),
                (end[0] + nx * radii[1], end[1] + ny * radii[1]),
                (end[0] - nx * radii[1], end[1] - ny * radii[1]),
                (start[0] - nx * radii[0], start[1] - ny * radii[0]),
            ),
            colour,
        )

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self._cv2.rectangle(
            self.pixels, (round(left), round(top)), (round(right), round(bottom)), colour, -1, self._cv2.LINE_8
        )

    def shadow(self, centre: Point, axes: tuple[float, float], strength: float) -> None:
        """Darken an elliptic patch of ground softly."""
        height, width = self.pixels.shape[:2]
        left, right = max(0, int(centre[0] - axes[0])), min(width, int(centre[0] + axes[0]) + 1)
        top, bottom = max(0, int(centre[1] - axes[1])), min(height, int(centre[1] + axes[1]) + 1)
        if left >= right or top >= bottom:
            return
        columns = (np.arange(left, right) - centre[0]) / axes[0]
        rows = (np.arange(top, bottom) - centre[1]) / axes[1]
        depth = np.clip(1.0 - columns[None] ** 2 - rows[:, None] ** 2, 0.0, 1.0)
        patch = self.pixels[top:bottom, left:right]
        patch[:] = (patch * (1.0 - strength * depth[..., None])).astype(np.uint8)
