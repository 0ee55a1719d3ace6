"""Drawing one person: limbs with volume, clothes, hair and a face that turns with the head.

Parts are painted from far to near. The head is a sphere: what lies on it (hairline, eyes, beard, mask) is given by
longitude and latitude and vanishes behind the silhouette by itself, so one code path serves every view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from splavu.synthetic.drawing.canvas import Canvas, Colour, Point, blend, shade
from splavu.synthetic.people.skeleton import HEAD_WIDTH, Joints, on_screen
from splavu.synthetic.people.subjects import Bag, Outfit, Subject

_LIMB_PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "toe")

_FACE = ((-1.25, -1.5), (-1.25, -0.5), (-1.15, 0.1), (-0.85, 0.5), (-0.3, 0.66), (0.3, 0.66), (0.85, 0.5), (1.15, 0.1),
         (1.25, -0.5), (1.25, -1.5))  # fmt: skip
_BEARD = ((-1.2, -1.5), (-1.2, -0.4), (-0.95, -0.25), (-0.7, -0.55), (-0.35, -0.42), (0.35, -0.42), (0.7, -0.55),
          (0.95, -0.25), (1.2, -0.4), (1.2, -1.5))  # fmt: skip
_MASK = ((-1.0, -1.4), (-1.1, -0.5), (-0.8, -0.12), (0.0, -0.02), (0.8, -0.12), (1.1, -0.5), (1.0, -1.4))
_VISOR = ((-0.9, -0.25), (-0.95, 0.05), (-0.8, 0.32), (0.0, 0.38), (0.8, 0.32), (0.95, 0.05), (0.9, -0.25), (0.0, -0.3))
"""Outlines on the head: longitude (0 = nose) and latitude (0 = eye level), radians."""


@dataclass(frozen=True)
class Track:
    """Everything about a person's movement that drawing needs, for T frames, as plain lists (fast to index)."""

    points: dict[str, list]
    """Joint name -> T x [column, row, pixels per body height], limbs T x 2 x [...]."""
    depth: dict[str, list]
    """Joint name -> T (x 2) distances towards the camera."""
    facing: list[float]
    gaze: list[float]
    pitch: list[float]
    ground: list
    """T x [column, row] of the ground point below the pelvis."""
    scale: float


def track(joints: Joints, *, ground: np.ndarray, scale: float) -> Track:
    """Project joints onto a canvas; `ground` is [T, 2], `scale` pixels per body height."""
    names = ("pelvis", "neck", "head", *_LIMB_PARTS)
    return Track(
        points={name: on_screen(getattr(joints, name), ground=ground, scale=scale).tolist() for name in names},
        depth={name: getattr(joints, name)[..., 2].tolist() for name in names},
        facing=joints.facing.tolist(),
        gaze=joints.gaze.tolist(),
        pitch=joints.pitch.tolist(),
        ground=ground.tolist(),
        scale=scale,
    )


def draw_person(canvas: Canvas, subject: Subject, outfit: Outfit, moves: Track, frame: int) -> None:
    """Paint the person as they stand in one frame."""
    ground, scale = moves.ground[frame], moves.scale
    canvas.shadow((ground[0], ground[1] - 0.005 * scale), (0.22 * scale, 0.045 * scale), 0.45)
    _Figure(canvas, subject, outfit, moves, frame).draw()


class _Figure:
    def __init__(self, canvas: Canvas, subject: Subject, outfit: Outfit, moves: Track, frame: int) -> None:
        self.canvas, self.subject, self.outfit = canvas, subject, outfit
        self.at = {name: points[frame] for name, points in moves.points.items()}
        self.depth = {name: depths[frame] for name, depths in moves.depth.items()}
        self.facing, self.gaze, self.pitch = moves.facing[frame], moves.gaze[frame], moves.pitch[frame]

    def draw(self) -> None:
        trunk = 0.5 * (self.depth["pelvis"] + self.depth["neck"])
        parts: list[tuple[float, Callable[[], None]]] = [(trunk, self._trunk)]
        for side in (0, 1):
            legs = 0.5 * (self.depth["knee"][side] + self.depth["ankle"][side])
            arms = 0.5 * (self.depth["elbow"][side] + self.depth["wrist"][side])
            under = min(legs - 0.16, trunk - 0.001) if self.outfit.coat else legs - 0.16
            parts.append((under, lambda side=side: self._leg(side)))
            parts.append((arms + 0.015, lambda side=side: self._arm(side)))
        head = max(self.depth["head"], trunk + 0.001) if self.pitch < 0.6 else self.depth["head"]
        parts.append((head, self._head))
        if self.subject.hair_length > 0.5 and self.outfit.cover != "helmet":
            behind = head - 0.12 * math.cos(self.gaze) - (0.02 if math.cos(self.gaze) > -0.3 else -0.02)
            parts.append((behind, self._long_hair))
        if (bag := self.outfit.bag) is not None:
            held = self.depth["wrist"][bag.side] if bag.in_hand else trunk + self._beside(self.depth["hip"], bag.side)
            parts.append((held + 0.005, lambda: self._bag(bag)))
        for _, paint in sorted(parts, key=lambda part: part[0]):
            paint()

    def _bone(
        self, start: Sequence[float], end: Sequence[float], half_widths: tuple[float, float], colour: Colour, far: bool
    ) -> None:
        """A limb segment with a lit side; half-widths in body heights."""
        tone = shade(colour, 0.80 if far else 0.9)
        radii = (half_widths[0] * start[2], half_widths[1] * end[2])
        self.canvas.taper((start[0], start[1]), (end[0], end[1]), radii, tone)
        offset = 0.28 * radii[0]
        lit = shade(colour, 0.9 if far else 1.04)
        self.canvas.taper(
            (start[0] - offset, start[1] - 0.5 * offset),
            (end[0] - offset, end[1] - 0.5 * offset),
            (0.6 * radii[0], 0.6 * radii[1]),
            lit,
        )

    def _leg(self, side: int) -> None:
        outfit, limb, far = self.outfit, self.subject.body.limb, self.depth["hip"][side] < -0.02
        hip, knee, ankle, toe = (self.at[name][side] for name in ("hip", "knee", "ankle", "toe"))
        skin = self.subject.skin
        tights = shade(outfit.bottom, 0.55) if outfit.skirt else outfit.bottom
        colour = skin if outfit.shorts else tights
        self._bone(knee, ankle, (1.0 * limb, 0.72 * limb), colour, far)
        self.canvas.taper((ankle[0], ankle[1]), (toe[0], toe[1]), (0.78 * limb * ankle[2], 0.55 * limb * toe[2]),
                          shade(outfit.shoes, 0.8 if far else 1.0))  # fmt: skip
        self._bone(hip, knee, (1.5 * limb, 1.08 * limb), colour, far)
        if outfit.shorts and not outfit.skirt:
            hem = [h + (k - h) * (0.3 if outfit.bare else 0.65) for h, k in zip(hip, knee, strict=True)]
            self._bone(hip, hem, (1.6 * limb, 1.5 * limb), outfit.bottom, far)

    def _arm(self, side: int) -> None:
        outfit, limb, far = self.outfit, self.subject.body.limb, self.depth["shoulder"][side] < -0.04
        shoulder, elbow, wrist = (self.at[name][side] for name in ("shoulder", "elbow", "wrist"))
        skin = self.subject.skin
        upper = skin if outfit.bare else outfit.top
        lower = outfit.top if outfit.sleeves > 0.75 and not outfit.bare else skin
        hand = (wrist[0] + 0.1 * (wrist[0] - elbow[0]), wrist[1] + 0.1 * (wrist[1] - elbow[1]))
        self.canvas.disc(hand, 0.92 * limb * wrist[2], shade(skin, 0.85 if far else 0.97))
        self._bone(elbow, wrist, (0.85 * limb, 0.66 * limb), lower, far)
        self._bone(shoulder, elbow, (1.12 * limb, 0.92 * limb), upper, far)

    def _trunk(self) -> None:
        body, outfit, skin = self.subject.body, self.outfit, self.subject.skin
        pelvis, neck = self.at["pelvis"], self.at["neck"]
        front, profile = math.cos(self.facing), math.sin(self.facing)
        dx, dy = neck[0] - pelvis[0], neck[1] - pelvis[1]
        ux, uy = dx, min(dy, -0.02 * pelvis[2])
        length = math.hypot(ux, uy)
        nx, ny = -uy / length, ux / length  # to the right of the upright trunk

        def outline(stations: Sequence[tuple[float, float, float, float]]) -> list[Point]:
            """Stations: height along the trunk (0 pelvis, 1 neck), half-width, half-depth, forward shift."""
            right, left = [], []
            for height, width, thickness, forward in stations:
                local = pelvis[2] + (neck[2] - pelvis[2]) * height
                half = local * math.hypot(width * front, thickness * profile)
                shift = local * forward * profile
                cx, cy = pelvis[0] + dx * height + nx * shift, pelvis[1] + dy * height + ny * shift
                right.append((cx + nx * half, cy + ny * half))
                left.append((cx - nx * half, cy - ny * half))
            return right + left[::-1]

        waist, hips, shoulders, bust = body.waist, body.hips, body.shoulders, body.bust
        trunk = (
            (-0.16, 0.92 * hips, 0.062, -0.004), (0.04, hips, 0.066, -0.006), (0.38, waist, 0.052, 0.0),
            (0.55, waist + 0.35 * (shoulders - waist), 0.056, 0.3 * bust),
            (0.72, 0.9 * shoulders, 0.06 + 0.4 * bust, bust),
            (0.84, 0.98 * shoulders, 0.056, 0.4 * bust), (0.93, shoulders, 0.05, 0.0),
            (1.0, 0.8 * shoulders, 0.036, 0.0), (1.05, 0.4 * shoulders, 0.03, 0.0),
        )  # fmt: skip
        top = skin if outfit.bare else outfit.top
        self.canvas.polygon(outline(trunk), shade(top, 0.9))
        lit = [(h, 0.72 * w, 0.72 * d, f) for h, w, d, f in trunk[1:]]
        self.canvas.polygon([(x - 0.012 * pelvis[2], y) for x, y in outline(lit)], shade(top, 1.03))
        if outfit.stripes and not outfit.bare:
            for low in (0.3, 0.5, 0.7):
                band = [(h, self._width_at(trunk, h), 0.055, 0.0) for h in (low, low + 0.09)]
                self.canvas.polygon(outline(band), shade(top, 0.62))
        if outfit.bare:
            self._bare_details(outline, trunk, front)
        elif bust and front > 0.3:
            self._bust(shade(top, 0.78), front)
        if not outfit.bare and front > 0.2:
            collar = outline(((0.93, 0.035, 0.03, 0.03), (1.06, 0.05, 0.03, 0.02)))
            self.canvas.polygon(collar, shade(skin, 0.93))
            shirt = outline(((0.12, 0.028, 0.03, 0.045), (0.95, 0.036, 0.03, 0.045)))
            self.canvas.polygon(shirt, (236, 236, 230))
        belt = outline(
            (
                (-0.18, 0.95 * hips, 0.066, -0.004),
                (0.03, 1.02 * hips, 0.068, -0.006),
                (0.2, 1.02 * (hips + waist) / 2, 0.06, 0),
            )
        )
        self.canvas.polygon(belt, top if outfit.coat else outfit.bottom)
        if outfit.coat:
            self._skirt(outline, top, reach=1.5)
            if front > 0.2:
                (x, y), (other_x, other_y) = (self._hem(side, 1.5) for side in (0, 1))
                hem = (0.5 * (x + other_x), 0.5 * (y + other_y))
                self.canvas.stroke(self._along(0.9), hem, 0.014 * pelvis[2], shade(top, 0.6))
        elif outfit.skirt:
            self._skirt(outline, outfit.bottom, reach=0.88)

    @staticmethod
    def _width_at(stations: Sequence[tuple[float, float, float, float]], height: float) -> float:
        return float(np.interp(height, [s[0] for s in stations], [s[1] for s in stations]))

    def _bare_details(self, outline: Callable, trunk: Sequence, front: float) -> None:
        subject, skin = self.subject, self.subject.skin
        if subject.female:
            band = [(h, 1.03 * self._width_at(trunk, h), 0.066 + 0.5 * subject.body.bust, 0.9 * subject.body.bust)
                    for h in (0.58, 0.68, 0.8)]  # fmt: skip
            self.canvas.polygon(outline(band), self.outfit.top)
            if front > 0.3:
                self._bust(shade(self.outfit.top, 0.7), front)
            return
        if front > 0.3:
            scale, dark = self.at["pelvis"][2], shade(skin, 0.72)
            right, left = self._across(0.74, 0.48 * subject.body.shoulders * front)
            for x, y in (right, left):
                self.canvas.ellipse((x, y + 0.008 * scale), (0.045 * scale * front, 0.02 * scale), dark, arc=(10, 170))
                self.canvas.ellipse((x, y), (0.042 * scale * front, 0.02 * scale), shade(skin, 1.03), arc=(0, 180))
            top, bottom = self._along(0.62), self._along(0.25)
            self.canvas.stroke(top, bottom, 0.008 * scale, dark)
            self.canvas.disc(self._along(0.24), 0.007 * scale, shade(skin, 0.55))

    def _bust(self, dark: Colour, front: float) -> None:
        scale = self.at["pelvis"][2]
        for x, y in self._across(0.68, 0.5 * self.subject.body.shoulders * front):
            self.canvas.ellipse((x, y), (0.04 * scale * front, 0.034 * scale), dark, arc=(15, 165))

    def _along(self, height: float) -> Point:
        pelvis, neck = self.at["pelvis"], self.at["neck"]
        return pelvis[0] + (neck[0] - pelvis[0]) * height, pelvis[1] + (neck[1] - pelvis[1]) * height

    def _across(self, height: float, half: float) -> tuple[Point, Point]:
        x, y = self._along(height)
        reach = half * self.at["pelvis"][2]
        shift = 0.03 * math.sin(self.facing) * self.at["pelvis"][2]
        return (x + shift + reach, y), (x + shift - reach, y)

    def _hem(self, side: int, reach: float) -> Point:
        """A point on the line of the thigh, `reach` of its length below the hip."""
        hip, knee = self.at["hip"][side], self.at["knee"][side]
        return hip[0] + reach * (knee[0] - hip[0]), hip[1] + reach * (knee[1] - hip[1])

    def _skirt(self, outline: Callable, colour: Colour, *, reach: float) -> None:
        body = self.subject.body
        waist = outline(((0.24, 1.04 * body.waist, 0.06, 0.0), (0.3, 1.0 * body.waist, 0.056, 0.0)))
        scale = self.at["pelvis"][2]
        flare = 0.045 * scale
        hems = sorted(self._hem(side, reach) for side in (0, 1))
        left, right = (hems[0][0] - flare, hems[0][1]), (hems[1][0] + flare, hems[1][1])
        hips = outline(((0.0, 1.1 * body.hips, 0.075, 0.0),))
        self.canvas.polygon([waist[0], hips[0], right, left, hips[1], waist[3]], shade(colour, 0.93))
        middle = (0.5 * (left[0] + right[0]), 0.5 * (left[1] + right[1]))
        for share in (0.3, 0.7):
            hem = (left[0] + share * (right[0] - left[0]), left[1] + share * (right[1] - left[1]))
            crease = (0.5 * (hips[0][0] + hips[1][0]) + 0.3 * (hem[0] - middle[0]), hips[0][1])
            self.canvas.stroke(crease, hem, 0.01 * scale, shade(colour, 0.75))

    def _beside(self, of_hips: Sequence[float], side: int) -> float:
        """How far a point beside the hips lies from between them, given one coordinate of both hip joints."""
        return (of_hips[side] - of_hips[1 - side]) * (0.9 + 0.018 / self.subject.body.hips)

    def _bag(self, bag: Bag) -> None:
        """A flat box with its length along the heading: beside the hip on a strap, or hanging from the hand."""
        pelvis, wrist, elbow = self.at["pelvis"], self.at["wrist"][bag.side], self.at["elbow"][bag.side]
        scale = pelvis[2]
        length, height = (0.11, 0.16) if bag.in_hand else (0.12, 0.19)
        half = scale * math.hypot(0.045 * math.cos(self.facing), length * math.sin(self.facing))
        if bag.in_hand:
            grip = (wrist[0] + 0.15 * (wrist[0] - elbow[0]), wrist[1] + 0.15 * (wrist[1] - elbow[1]))
            x, top, width = grip[0], grip[1] + 0.045 * scale, 0.014
        else:
            columns = [hip[0] for hip in self.at["hip"]]
            shoulder, neck = self.at["shoulder"][bag.side], self.at["neck"]
            grip = (0.7 * shoulder[0] + 0.3 * neck[0], 0.7 * shoulder[1] + 0.3 * neck[1])
            x, top, width = pelvis[0] + self._beside(columns, bag.side), pelvis[1] - 0.05 * scale, 0.02
        bottom = top + height * scale
        for corner in (-0.7 * half, 0.7 * half):
            self.canvas.stroke(grip, (x + corner, top), width * scale, shade(bag.colour, 0.7))
        corners = [(x - 0.88 * half, top), (x + 0.88 * half, top), (x + half, bottom), (x - half, bottom)]
        self.canvas.polygon(corners, bag.colour)
        flap = top + 0.4 * (bottom - top)
        self.canvas.polygon(
            [corners[0], corners[1], (x + 0.93 * half, flap), (x - 0.93 * half, flap)], shade(bag.colour, 0.75)
        )

    def _long_hair(self) -> None:
        x, y, scale = self.at["head"]
        radius = self.subject.body.head * scale
        away = -math.sin(self.gaze)
        fullness = 1.05 + 0.12 * abs(math.cos(self.gaze)) - 0.25 * abs(math.sin(self.gaze))
        drop = (0.5 + 1.75 * self.subject.hair_length) * radius
        cx = x + 0.42 * away * radius
        swing = 0.6 * (self.at["head"][0] - self.at["neck"][0])
        half = 0.84 * fullness * radius
        colour = self.subject.hair
        top, hem, ends = y - 0.3 * radius, y + drop, 1.08 * half
        outline = (
            (cx - 0.9 * half, top), (cx - half, y + 0.2 * radius), (cx - ends - swing, hem),
            (cx - swing, y + 1.12 * drop), (cx + ends - swing, hem), (cx + half, y + 0.2 * radius),
            (cx + 0.9 * half, top),
        )  # fmt: skip
        self.canvas.polygon(outline, shade(colour, 0.88))
        self.canvas.ellipse((cx, y - 0.15 * radius), (half * 0.97, 0.9 * radius), colour)
        for share in (-0.45, 0.35):
            self.canvas.stroke(
                (cx + share * half, y), (cx + share * half - swing, y + 0.95 * drop), 0.07 * radius, shade(colour, 1.25)
            )

    def _head(self) -> None:
        subject, outfit, canvas = self.subject, self.outfit, self.canvas
        head, neck = self.at["head"], self.at["neck"]
        skin = subject.skin
        radius = subject.body.head * head[2]
        centre = (head[0], head[1])
        throat = (neck[0] + 0.25 * (neck[0] - head[0]), neck[1] + 0.25 * (neck[1] - head[1]))
        canvas.taper(throat, centre, (0.036 * neck[2], 0.034 * neck[2]), shade(skin, 0.85))
        ball = _Ball(centre, HEAD_WIDTH * radius, radius, self.gaze, self.pitch)
        if outfit.cover == "helmet":
            canvas.ellipse(centre, (0.98 * radius, 1.12 * radius), shade(outfit.top, 0.75))
            canvas.ellipse(
                (centre[0] - 0.2 * radius, centre[1] - 0.25 * radius), (0.6 * radius, 0.7 * radius), outfit.top
            )
            self._patch(ball, _VISOR, (35, 38, 48), 1.1)
            return
        shaved = subject.hair_length < 0.1
        hair = blend(skin, subject.hair, 0.22) if shaved else subject.hair
        if subject.bun:
            bun = ball.at(math.pi, 0.75, 1.2)
            canvas.disc(bun[:2], 0.42 * radius, shade(hair, 0.9))
        canvas.ellipse(centre, (0.80 * radius, radius), shade(skin, 0.95))
        crown = 1.0 if shaved else 1.09
        back = (centre[0] - 0.08 * math.sin(self.gaze) * radius, centre[1] - 0.1 * radius)
        canvas.ellipse(back, (0.83 * crown * radius, 0.92 * crown * radius), hair)
        canvas.ellipse(
            (back[0] - 0.2 * radius, back[1] - 0.4 * radius), (0.35 * radius, 0.3 * radius), shade(hair, 1.18)
        )
        self._patch(ball, _FACE, skin, 1.0)
        for side in (-1, 1):
            ear = ball.at(side * 1.5, -0.1, 1.02)
            if ear[2] > -0.25 and subject.hair_length < 0.5:
                canvas.disc(ear[:2], 0.16 * radius, shade(skin, 0.88))
        if subject.beard:
            self._patch(ball, _BEARD, blend(skin, subject.hair, 0.55 + 0.4 * subject.beard), 1.02)
        self._features(ball, radius)
        if outfit.cap is not None:
            self._cap(ball, radius)

    def _patch(self, ball: _Ball, outline: Sequence[Point], colour: Colour, reach: float) -> None:
        corners = ball.outline(outline, reach)
        if corners is not None:
            self.canvas.polygon(corners, colour)

    def _features(self, ball: _Ball, radius: float) -> None:
        canvas, skin, cover = self.canvas, self.subject.skin, self.outfit.cover
        for side in (-1, 1):
            x, y, near = ball.at(side * 0.42, 0.02, 1.0)
            if near < 0.12 or cover == "sunglasses":
                continue
            canvas.ellipse((x, y), (0.21 * radius * max(near, 0.35), 0.155 * radius), (246, 246, 244))
            px, py, _ = ball.at(side * 0.42, 0.02, 1.02)
            canvas.disc((px, py), 0.125 * radius, (32, 26, 24))
            left, right = ball.at(side * 0.2, 0.33, 1.0), ball.at(side * 0.64, 0.3, 1.0)
            canvas.stroke(left[:2], right[:2], 0.1 * radius, shade(self.subject.hair, 0.7))
        if cover == "sunglasses":
            lenses = [ball.at(side * 0.42, 0.02, 1.05) for side in (-1, 1)]
            seen = [lens for lens in lenses if lens[2] > -0.05]
            for x, y, near in seen:
                canvas.ellipse((x, y), (0.36 * radius * max(near, 0.4), 0.29 * radius), (18, 18, 24))
            if len(seen) == 2:
                canvas.stroke(seen[0][:2], seen[1][:2], 0.1 * radius, (18, 18, 24))
            for x, y, _ in seen:
                canvas.disc((x - 0.08 * radius, y - 0.08 * radius), 0.06 * radius, (110, 120, 140))
        if cover == "mask":
            self._patch(ball, _MASK, (196, 222, 232), 1.04)
            return
        x, y, near = ball.at(0.0, -0.22, 1.1)
        if near > -0.2:
            canvas.ellipse((x, y), (0.12 * radius, 0.17 * radius), shade(skin, 0.84))
        left, middle, right = (ball.at(longitude, -0.68, 1.0) for longitude in (-0.3, 0.0, 0.3))
        if middle[2] > 0.1:
            lips = blend(shade(skin, 0.7), (176, 48, 62), 0.75) if self.subject.female else shade(skin, 0.55)
            ends = [point[:2] for point in (left, middle, right) if point[2] > 0.0]
            for start, end in pairwise(ends):
                canvas.stroke(start, end, 0.12 * radius, lips)

    def _cap(self, ball: _Ball, radius: float) -> None:
        colour = self.outfit.cap
        rim = [(longitude, 0.42) for longitude in np.linspace(-math.pi, math.pi, 16).tolist()]
        points = [ball.at(*corner, 1.08) for corner in rim]
        left, right = min(points), max(points)
        middle = (0.5 * (left[0] + right[0]), 0.5 * (left[1] + right[1]))
        half = max(0.5 * (right[0] - left[0]), 0.85 * radius)
        self.canvas.ellipse(middle, (half, 0.85 * radius), colour, arc=(180, 360))
        tip = ball.at(0.0, 0.32, 1.55)
        inner = [ball.at(longitude, 0.42, 1.06) for longitude in (-0.8, 0.8)]
        if tip[2] > -0.6:
            self.canvas.polygon([inner[0][:2], tip[:2], inner[1][:2]], shade(colour, 0.75))


class _Ball:
    """The head as a sphere seen from the camera, stretched to half-axes (width, height) in pixels."""

    def __init__(self, centre: Point, width: float, height: float, gaze: float, pitch: float) -> None:
        self.centre, self.width, self.height = centre, width, height
        sg, cg, sp, cp = math.sin(gaze), math.cos(gaze), math.sin(pitch), math.cos(pitch)
        self.forward = (sg * cp, -sp, cg * cp)
        self.up = (sg * sp, cp, cg * sp)
        self.left = (cg, 0.0, -sg)

    def _direction(self, longitude: float, latitude: float) -> tuple[float, float, float]:
        ahead, across = math.cos(latitude) * math.cos(longitude), math.cos(latitude) * math.sin(longitude)
        rise = math.sin(latitude)
        return tuple(
            ahead * f + across * s + rise * u for f, s, u in zip(self.forward, self.left, self.up, strict=True)
        )

    def at(self, longitude: float, latitude: float, reach: float) -> tuple[float, float, float]:
        """Pixel of a point on the sphere grown by `reach`, and its nearness (1 towards the camera, -1 behind)."""
        x, y, z = self._direction(longitude, latitude)
        return self.centre[0] + reach * x * self.width, self.centre[1] - reach * y * self.height, z

    def outline(self, corners: Sequence[Point], reach: float) -> list[Point] | None:
        """Pixels of a patch's corners; those behind are moved to the silhouette, and None if the patch is hidden."""
        points, visible = [], False
        for corner in corners:
            x, y, z = self._direction(*corner)
            visible |= z > 0.08
            if z < 0.0:
                norm = math.hypot(x, y) or 1.0
                x, y = x / norm, y / norm
            points.append((self.centre[0] + reach * x * self.width, self.centre[1] - reach * y * self.height))
        return points if visible else None
