"""Who is in the picture: stable identities, and what they wear in one video.

Identity (skin, presenting gender, body, hair, gait, habits) belongs to the subject; clothes, face covering and bareness
are chosen per video. Attribute values are classes with a continuum inside: no two subjects share a skin tone or a
haircut, so an attacker has to generalise to people it has not seen.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from splavu.synthetic.drawing.canvas import Colour, shade
from splavu.synthetic.people.motions import Gait
from splavu.synthetic.people.skeleton import Body

_LIGHT_TONES: tuple[Colour, ...] = ((255, 226, 205), (247, 208, 178), (233, 188, 150))
_DARK_TONES: tuple[Colour, ...] = ((140, 92, 62), (106, 68, 46), (72, 45, 32))
_HAIR: tuple[Colour, ...] = (
    (28, 22, 20), (58, 38, 26), (96, 62, 36), (150, 100, 52), (206, 168, 96), (148, 66, 34), (150, 146, 142),
)  # fmt: skip

COVERS = ("none", "sunglasses", "mask", "helmet")
"""Face coverings: nothing, the eyes, mouth and nose, all of it."""


@dataclass(frozen=True)
class Subject:
    """One person's stable identity."""

    name: str
    dark_skin: bool
    female: bool
    skin: Colour
    hair: Colour
    hair_length: float
    """0 shaved, 0.3 short, 0.7 to the shoulders, 1 to the middle of the back."""
    bun: bool
    beard: float
    """0 none, 1 full."""
    stature: float
    """Relative to the average of the scene, about 0.93 to 1.07."""
    body: Body
    gait: Gait
    favourite_hue: float
    """What the wardrobe leans to, 0..1."""
    wears_skirts: bool


@dataclass(frozen=True)
class Bag:
    """A flat bag at the hip, its strap over the shoulder, or in the hand."""

    colour: Colour
    in_hand: bool
    side: int
    """`motions.LEFT` or `motions.RIGHT`."""


@dataclass(frozen=True)
class Outfit:
    """What the subject wears in one video."""

    top: Colour
    bottom: Colour
    shoes: Colour
    sleeves: float
    """0 none, 0.5 to the elbow, 1 to the wrist."""
    bare: bool
    """Bare torso, or a swimming top for who presents as female."""
    skirt: bool
    shorts: bool
    """Bare legs; a skirt without it goes with tights."""
    stripes: bool
    cover: str = "none"
    cap: Colour | None = None
    coat: bool = False
    """The top is a coat that hangs to below the knees."""
    bag: Bag | None = None


def _mix(tones: tuple[Colour, ...], position: float) -> Colour:
    """Colour at a position 0..1 along a ramp."""
    scaled = position * (len(tones) - 1)
    index = min(int(scaled), len(tones) - 2)
    share = scaled - index
    return tuple(a + (b - a) * share for a, b in zip(tones[index], tones[index + 1], strict=True))


def _colour(hue: float, saturation: float, value: float) -> Colour:
    return tuple(255.0 * c for c in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _favourite_hue(rng: np.random.Generator, female: bool) -> float:
    """Three in four wardrobes lean to the shop's colours: purple to pink, or green to blue."""
    low, high = ((0.76, 0.97) if female else (0.30, 0.68)) if rng.random() < 0.75 else (0.18, 0.97)
    return float(rng.uniform(low, high))


def sample_subject(rng: np.random.Generator, name: str, *, dark_skin: bool, female: bool) -> Subject:
    """Draw an identity with these two attributes; everything else is free."""
    tones = _DARK_TONES if dark_skin else _LIGHT_TONES
    skin = tuple(
        float(np.clip(c + e, 0, 255)) for c, e in zip(_mix(tones, rng.random()), rng.normal(0, 4, 3), strict=True)
    )
    dark_hair = rng.random() < (0.85 if dark_skin else 0.45)
    hair = _HAIR[int(rng.integers(0, 3))] if dark_hair else _HAIR[int(rng.integers(2, len(_HAIR)))]
    hair = shade(hair, rng.uniform(0.8, 1.2))
    if female:
        long_hair = rng.random() < 0.95
        hair_length = rng.uniform(0.65, 1.0) if long_hair else rng.uniform(0.3, 0.5)
    else:
        hair_length = 0.0 if rng.random() < 0.12 else rng.uniform(0.15, 0.4)
        if rng.random() < 0.05:
            hair_length = rng.uniform(0.6, 0.7)
    width = rng.normal(1.0, 0.06)
    body = Body(
        trunk=rng.normal(0.30, 0.008),
        thigh=rng.normal(0.225, 0.007),
        shin=rng.normal(0.215, 0.007),
        upper_arm=rng.normal(0.165, 0.006),
        forearm=rng.normal(0.155, 0.006),
        head=rng.normal(0.118, 0.003),
        shoulders=(0.102 if female else 0.140) * width,
        waist=(0.060 if female else 0.098) * width * rng.normal(1.0, 0.05),
        hips=(0.110 if female else 0.088) * width,
        bust=rng.uniform(0.022, 0.034) if female else 0.0,
        limb=(0.031 if female else 0.038) * rng.normal(1.0, 0.06),
    )
    gait = Gait(
        cadence=rng.uniform(0.86, 1.18),
        amplitude=rng.uniform(0.86, 1.18),
        arm_swing=rng.uniform(0.6, 1.35),
        bounce=rng.uniform(0.5, 1.5),
        lean=rng.normal(0.0, 0.05),
        right_handed=bool(rng.random() < 0.8),
    )
    return Subject(
        name=name,
        dark_skin=dark_skin,
        female=female,
        skin=skin,
        hair=hair,
        hair_length=float(hair_length),
        bun=bool(female and rng.random() < 0.2),
        beard=float(rng.uniform(0.5, 1.0)) if not female and rng.random() < 0.5 else 0.0,
        stature=float((0.975 if female else 1.015) + rng.normal(0, 0.02)),
        body=body,
        gait=gait,
        favourite_hue=_favourite_hue(rng, female),
        wears_skirts=bool(female and rng.random() < 0.9),
    )


def bright_uniform(rng: np.random.Generator) -> Colour:
    """A signal colour, yellow to orange."""
    return _colour(rng.uniform(0.09, 0.16), rng.uniform(0.8, 1.0), rng.uniform(0.88, 1.0))


def sample_outfit(rng: np.random.Generator, subject: Subject, *, bare: bool, cover: str = "none") -> Outfit:
    """Clothes for one video; three times in four near the subject's favourite colour, never in a colour of skin."""
    hue = float(np.clip(subject.favourite_hue + rng.normal(0, 0.03), 0.18, 0.97))
    if rng.random() < 0.25:
        hue = rng.uniform(0.18, 0.97)
    top = _colour(hue, rng.uniform(0.35, 0.9), rng.uniform(0.4, 0.95))
    if rng.random() < 0.15:
        top = _colour(0.0, 0.0, rng.uniform(0.12, 0.95))
    jeans = rng.random() < 0.5
    bottom = _colour(rng.uniform(0.58, 0.66), 0.55, rng.uniform(0.25, 0.6)) if jeans else _colour(
        rng.uniform(0.18, 0.97), rng.uniform(0.0, 0.5), rng.uniform(0.15, 0.6)
    )  # fmt: skip
    skirt = subject.wears_skirts and rng.random() < 0.9
    if skirt and rng.random() < 0.5:
        bottom = top  # a dress
    return Outfit(
        top=top,
        bottom=bottom,
        shoes=_colour(rng.random(), 0.3, rng.uniform(0.1, 0.9)),
        sleeves=float(rng.choice([0.5, 1.0], p=[0.15, 0.85])),
        bare=bare,
        skirt=bool(skirt and not bare),
        shorts=bool(bare or rng.random() < 0.1),
        stripes=bool(rng.random() < 0.2),
        cover=cover,
        cap=_colour(rng.random(), 0.7, rng.uniform(0.3, 0.9)) if rng.random() < 0.08 else None,
    )
