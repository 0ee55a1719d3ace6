"""Where it happens: a painted backdrop, its light, and a camera that trembles.

Each kind is a row of colours and props, so that the backdrop can be made to predict the action (scene bias) without a
line of code per action.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from splavu.synthetic.drawing.canvas import Canvas, Colour, shade

MARGIN = 20
"""Backdrop beyond the canvas on each side, canvas pixels, for the camera to move in."""


@dataclass(frozen=True)
class Light:
    gain: Colour = (1.0, 1.0, 1.0)
    """Per channel."""
    gamma: float = 1.0
    noise: float = 3.0
    """Standard deviation of the sensor noise, grey levels."""


@dataclass(frozen=True)
class Scene:
    """One backdrop in one light, and how far the camera trembles (frame pixels)."""

    kind: int
    """Index into `KINDS`."""
    seed: int
    light: Light = Light()
    shake: float = 1.0


@dataclass(frozen=True)
class Kind:
    name: str
    wall: tuple[float, float, float]
    """Hue, saturation, value of what stands or lies behind."""
    floor: tuple[float, float, float]
    props: tuple[str, ...]
    spread: float = 0.05
    """Variation of the hue between scenes of this kind."""


KINDS: tuple[Kind, ...] = (
    Kind("room", (0.12, 0.25, 0.85), (0.08, 0.45, 0.50), ("window", "picture", "skirting"), 0.3),
    Kind("gym", (0.58, 0.25, 0.72), (0.09, 0.55, 0.70), ("bars", "planks"), 0.06),
    Kind("street", (0.60, 0.25, 0.88), (0.0, 0.02, 0.42), ("buildings", "kerb")),
    Kind("park", (0.56, 0.40, 0.95), (0.29, 0.60, 0.55), ("clouds", "trees")),
    Kind("beach", (0.55, 0.35, 0.98), (0.12, 0.35, 0.88), ("sea", "clouds")),
    Kind("stage", (0.98, 0.70, 0.40), (0.08, 0.40, 0.28), ("curtain", "planks"), 0.15),
    Kind("office", (0.55, 0.06, 0.80), (0.60, 0.15, 0.40), ("shelf", "window", "tiles"), 0.1),
    Kind("brick", (0.03, 0.50, 0.55), (0.08, 0.06, 0.50), ("bricks",), 0.02),
    Kind("night", (0.66, 0.60, 0.22), (0.65, 0.20, 0.18), ("buildings", "lamp")),
    Kind("snow", (0.58, 0.12, 0.90), (0.58, 0.05, 0.96), ("mountains", "trees")),
    Kind("desert", (0.09, 0.30, 0.95), (0.09, 0.50, 0.80), ("mountains", "sun")),
    Kind("court", (0.40, 0.30, 0.60), (0.02, 0.55, 0.60), ("fence", "lines"), 0.2),
)


def sample_scene(rng: np.random.Generator, kind: int) -> Scene:
    """A scene of this kind in an everyday light."""
    warm = rng.normal(0.0, 0.04)
    level = rng.uniform(0.86, 1.12)
    return Scene(
        kind=kind,
        seed=int(rng.integers(2**31)),
        light=Light(
            gain=(level * (1 + warm), level, level * (1 - warm)),
            gamma=float(rng.uniform(0.9, 1.12)),
            noise=float(rng.uniform(1.5, 4.5)),
        ),
        shake=float(rng.choice([0.0, rng.uniform(0.5, 2.5)], p=[0.3, 0.7])),
    )


def backdrop(scene: Scene, width: int, height: int) -> np.ndarray:  # [height + 2 MARGIN, width + 2 MARGIN, 3] uint8
    """Paint the backdrop for a canvas of this size; the same scene always gives the same pixels."""
    import cv2

    rng = np.random.default_rng(scene.seed)
    kind = KINDS[scene.kind]
    full_width, full_height = width + 2 * MARGIN, height + 2 * MARGIN
    horizon = int(full_height * rng.uniform(0.58, 0.68))
    hue = rng.normal(0.0, kind.spread)
    painter = _Painter(Canvas(np.zeros((full_height, full_width, 3), np.uint8)), rng, horizon)
    painter.wall = _vary(rng, kind.wall, hue)
    painter.floor = _vary(rng, kind.floor, 0.3 * hue)
    painter.gradients()
    for prop in kind.props:
        _PROPS[prop](painter)
    pixels = painter.canvas.pixels.astype(np.float32)
    for cells, strength in ((5, 6.0), (28, 3.0), (110, 3.0)):
        grid = rng.normal(0.0, strength, (max(2, cells * full_height // full_width), cells)).astype(np.float32)
        pixels += cv2.resize(grid, (full_width, full_height), interpolation=cv2.INTER_CUBIC)[..., None]
    columns = np.linspace(-1, 1, full_width, dtype=np.float32)
    rows = np.linspace(-1, 1, full_height, dtype=np.float32)[:, None]
    pixels *= (1.0 - 0.16 * (columns**2 + rows**2) * rng.uniform(0.3, 1.3))[..., None]
    blurred = cv2.GaussianBlur(np.clip(pixels, 0, 255).astype(np.uint8), (0, 0), 1.2)
    return np.ascontiguousarray(blurred)


def camera_path(scene: Scene, seconds: np.ndarray) -> np.ndarray:  # [T] -> [T, 2]
    """Camera offsets (column, row) in frame pixels: two slow swings per axis."""
    rng = np.random.default_rng(scene.seed + 1)
    path = np.zeros((len(seconds), 2))
    for axis in range(2):
        for rate in rng.uniform(0.2, 1.4, 2):
            path[:, axis] += np.sin(2 * np.pi * (rate * seconds + rng.random()))
    return 0.5 * scene.shake * path


def _vary(rng: np.random.Generator, hsv: tuple[float, float, float], hue: float) -> Colour:
    saturation = float(np.clip(hsv[1] * rng.uniform(0.7, 1.3), 0, 1))
    value = float(np.clip(hsv[2] * rng.uniform(0.85, 1.1), 0, 1))
    return tuple(255.0 * c for c in colorsys.hsv_to_rgb((hsv[0] + hue) % 1.0, saturation, value))


class _Painter:
    """A canvas with the scene's two base colours; each prop is a method."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator, horizon: int) -> None:
        self.canvas, self.rng, self.horizon = canvas, rng, horizon
        self.height, self.width = canvas.pixels.shape[:2]
        self.wall: Colour = (0, 0, 0)
        self.floor: Colour = (0, 0, 0)

    def gradients(self) -> None:
        top = np.linspace(0.88, 1.06, self.horizon)[:, None, None] * np.array(self.wall)
        low = np.linspace(0.8, 1.1, self.height - self.horizon)[:, None, None] * np.array(self.floor)
        self.canvas.pixels[: self.horizon] = np.clip(top, 0, 255).astype(np.uint8)
        self.canvas.pixels[self.horizon :] = np.clip(low, 0, 255).astype(np.uint8)

    def _between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def window(self) -> None:
        left, top = self._between(0.05, 0.7) * self.width, self._between(0.08, 0.2) * self.height
        right, bottom = left + self._between(60, 100), top + self._between(60, 90)
        self.canvas.rectangle(left - 5, top - 5, right + 5, bottom + 5, shade(self.wall, 0.6))
        self.canvas.rectangle(left, top, right, bottom, (188, 214, 236))
        self.canvas.stroke(((left + right) / 2, top), ((left + right) / 2, bottom), 4, shade(self.wall, 0.6))
        self.canvas.stroke((left, (top + bottom) / 2), (right, (top + bottom) / 2), 4, shade(self.wall, 0.6))

    def picture(self) -> None:
        for _ in range(int(self.rng.integers(1, 3))):
            left, top = self._between(0.05, 0.85) * self.width, self._between(0.1, 0.3) * self.height
            self.canvas.rectangle(left, top, left + 44, top + 34, (70, 52, 40))
            self.canvas.rectangle(left + 4, top + 4, left + 40, top + 30, tuple(self.rng.uniform(60, 220, 3)))

    def skirting(self) -> None:
        self.canvas.rectangle(0, self.horizon - 8, self.width, self.horizon, shade(self.wall, 0.75))

    def bars(self) -> None:
        start = self._between(0, 0.5) * self.width
        for k in range(7):
            row = self.horizon - 20 - 22 * k
            self.canvas.stroke((start, row), (start + 110, row), 5, (170, 120, 66))
        for column in (start, start + 55, start + 110):
            self.canvas.stroke((column, self.horizon), (column, self.horizon - 160), 6, (120, 82, 46))

    def planks(self) -> None:
        vanishing = self.width / 2
        for column in np.linspace(-self.width, 2 * self.width, 26):
            far = vanishing + 0.45 * (column - vanishing)
            self.canvas.stroke((far, self.horizon), (column, self.height), 1, shade(self.floor, 0.8))

    def buildings(self) -> None:
        column = -20.0
        while column < self.width:
            width, top = self._between(36, 80), self._between(0.05, 0.35) * self.height
            colour = shade(self.wall, self._between(0.45, 0.8))
            self.canvas.rectangle(column, top, column + width, self.horizon, colour)
            lit = (236, 214, 130) if self.wall[2] < 90 else shade(colour, 0.7)
            for x in np.arange(column + 8, column + width - 10, 16):
                for y in np.arange(top + 8, self.horizon - 14, 20):
                    if self.rng.random() < 0.7:
                        self.canvas.rectangle(x, y, x + 7, y + 10, lit)
            column += width + self._between(0, 14)

    def kerb(self) -> None:
        self.canvas.rectangle(0, self.horizon, self.width, self.horizon + 12, shade(self.floor, 1.45))
        for column in np.arange(self._between(0, 60), self.width, 90):
            row = self.height - 30
            self.canvas.rectangle(column, row, column + 46, row + 7, (214, 208, 190))

    def clouds(self) -> None:
        for _ in range(4):
            x, y = self._between(0, 1) * self.width, self._between(0.03, 0.3) * self.height
            for _ in range(4):
                self.canvas.ellipse((x + self._between(-24, 24), y + self._between(-6, 6)), (22, 10), (246, 248, 250))

    def trees(self) -> None:
        for column in self.rng.uniform(0, self.width, 5):
            tall = self._between(50, 110)
            self.canvas.rectangle(column - 4, self.horizon - tall, column + 4, self.horizon + 4, (92, 66, 44))
            green = (40 + self._between(0, 50), 90 + self._between(0, 50), 44)
            for _ in range(5):
                at = (column + self._between(-18, 18), self.horizon - tall + self._between(-18, 18))
                self.canvas.disc(at, self._between(14, 24), shade(green, self._between(0.8, 1.2)))

    def sea(self) -> None:
        top = int(self.horizon - 0.14 * self.height)
        self.canvas.rectangle(0, top, self.width, self.horizon, (46, 124, 172))
        for _ in range(24):
            x, y = self._between(0, self.width), self._between(top, self.horizon)
            self.canvas.stroke((x, y), (x + self._between(10, 30), y), 1, (170, 206, 224))

    def curtain(self) -> None:
        for column in np.arange(0, self.width, 14):
            fold = self._between(0.7, 1.15)
            self.canvas.rectangle(column, 0, column + 7, self.horizon, shade(self.wall, fold))

    def shelf(self) -> None:
        left, top = self._between(0, 0.55) * self.width, 0.16 * self.height
        self.canvas.rectangle(left, top, left + 120, self.horizon, (112, 84, 58))
        for row in np.arange(top + 6, self.horizon - 30, 34):
            self.canvas.rectangle(left + 5, row, left + 115, row + 28, (64, 48, 34))
            column = left + 7
            while column < left + 105:
                width = self._between(5, 11)
                self.canvas.rectangle(
                    column, row + self._between(2, 10), column + width, row + 28, tuple(self.rng.uniform(40, 210, 3))
                )
                column += width + 1

    def tiles(self) -> None:
        self.planks()
        for row in self.horizon + (self.height - self.horizon) * np.linspace(0.1, 1, 5) ** 1.6:
            self.canvas.stroke((0, row), (self.width, row), 1, shade(self.floor, 0.8))

    def bricks(self) -> None:
        mortar = shade(self.wall, 0.7)
        for index, row in enumerate(np.arange(0, self.horizon, 14)):
            self.canvas.stroke((0, row), (self.width, row), 2, mortar)
            for column in np.arange(-14 * (index % 2), self.width, 28):
                self.canvas.stroke((column, row), (column, row + 14), 2, mortar)

    def lamp(self) -> None:
        column = self._between(0.1, 0.9) * self.width
        self.canvas.stroke((column, self.horizon), (column, 30), 5, (60, 60, 66))
        self.canvas.disc((column, 30), 26, shade(self.wall, 1.7))
        self.canvas.disc((column, 30), 11, (255, 236, 170))

    def mountains(self) -> None:
        for _ in range(4):
            peak = (self._between(0, self.width), self._between(0.15, 0.42) * self.height)
            half = self._between(70, 140)
            tone = shade(self.wall, self._between(0.6, 0.85))
            self.canvas.polygon([(peak[0] - half, self.horizon), peak, (peak[0] + half, self.horizon)], tone)

    def sun(self) -> None:
        self.canvas.disc((self._between(0.1, 0.9) * self.width, 0.14 * self.height), 18, (255, 240, 190))

    def fence(self) -> None:
        for column in np.arange(-self.height, self.width, 16):
            wire = shade(self.wall, 0.75)
            self.canvas.stroke((column, 0), (column + self.horizon, self.horizon), 1, wire)
            self.canvas.stroke((column + self.horizon, 0), (column, self.horizon), 1, wire)
        for column in np.arange(self._between(0, 90), self.width, 110):
            self.canvas.stroke((column, 0), (column, self.horizon), 5, shade(self.wall, 0.55))

    def lines(self) -> None:
        row = self.horizon + 0.3 * (self.height - self.horizon)
        self.canvas.stroke((0, row), (self.width, row), 4, (236, 236, 228))
        start = self._between(0.1, 0.9) * self.width
        self.canvas.stroke((start, row), (start + self._between(-120, 120), self.height), 5, (236, 236, 228))


_PROPS: dict[str, Callable[[_Painter], None]] = {name: getattr(_Painter, name) for kind in KINDS for name in kind.props}
