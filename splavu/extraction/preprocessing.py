"""Frames to what an encoder expects: resize, cut, flip, normalise, in plain torch.

Geometry works on uint8 and stays uint8: antialiased bilinear resizing with rounding to whole levels, as image
libraries do, some ten times faster on a CPU than in float32 and at most one level (of 255) away from it. Only
`normalise` makes floats, on the encoder's device. For a static clip, one frame is prepared and then tiled.

Letters: n frames, B clips, T frames of a clip, H and W pixels.
"""

from __future__ import annotations

import dataclasses
import json
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from splavu.data.encoders import Preprocessing

CROPS = (1, 5, 10)
"""How many views of a frame `crop_views` can give."""
PROTOCOLS = ("released", "published")
"""`released`: every input prepared alike. `published`: the paper's choices for HMDB51 and for still images."""


def protocol_preprocessing(preprocessing: Preprocessing, *, protocol: str, dataset: str | None) -> Preprocessing:
    """`preprocessing` with the exceptions that `protocol` makes for `dataset`.

    The published protocol resizes HMDB51 to the crop's own size (224 instead of 256), and scales the still images of
    VISPR to 0..1 without mean and standard deviation, although the encoders were trained with them.

    Raises:
        ValueError: The protocol is not one of `PROTOCOLS`.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol '{protocol}' is not one of {PROTOCOLS}")
    if protocol == "published" and dataset == "hmdb51":
        return dataclasses.replace(preprocessing, short_side=preprocessing.crop)
    if protocol == "published" and dataset == "vispr":
        return dataclasses.replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return preprocessing


def describe(preprocessing: Preprocessing) -> str:
    """`preprocessing` as JSON, for a store's provenance."""
    return json.dumps(dataclasses.asdict(preprocessing) | {"resize": "bilinear, antialiased, uint8"})


def centre_view(frames: Tensor, preprocessing: Preprocessing) -> Tensor:  # [n, H, W, 3] -> [n, crop, crop, 3] uint8
    """The evaluation view: short side to `short_side`, then the central square of side `crop`."""
    return _central_square(_shrunk(frames, preprocessing), preprocessing.crop)


def crop_views(
    frames: Tensor, preprocessing: Preprocessing, num_crops: int
) -> Tensor:  # [n, H, W, 3] -> [n, N, crop, crop, 3] uint8
    """Views for multi-crop features: 1 is the centre, 5 the four corners and the centre, 10 these and their mirrors.

    The corners come in reading order; crop i + 5 of ten is the mirror image of crop i, the usual ten-crop order.

    Raises:
        ValueError: `num_crops` is not 1, 5 or 10.
    """
    if num_crops not in CROPS:
        raise ValueError(f"{num_crops} crops: one of {CROPS} expected")
    small, crop = _shrunk(frames, preprocessing), preprocessing.crop
    views = [_central_square(small, crop)]
    if num_crops > 1:
        sides = (small[:, :crop], small[:, -crop:])
        views = [view for side in sides for view in (side[:, :, :crop], side[:, :, -crop:])] + views
    if num_crops == 10:
        views += [view.flip(2) for view in views]
    return torch.stack(views, dim=1) if num_crops > 1 else views[0][:, None]


def random_view(
    frame: Tensor, preprocessing: Preprocessing, generator: torch.Generator, *, least_area: float = 0.8
) -> Tensor:  # [H, W, 3] -> [crop, crop, 3] uint8
    """A training view: a random rectangle resized to `crop` x `crop`, mirrored half of the time.

    The rectangle covers `least_area` to all of the frame with an aspect ratio between 3/4 and 4/3; after ten draws
    that don't fit into the frame, the largest central one with an allowed ratio is taken (the usual random resized
    crop of Szegedy et al. 2015).
    """
    height, width = frame.shape[:2]
    top, left, rows, columns = _random_rectangle(height, width, generator, least_area=least_area)
    crop = preprocessing.crop
    view = _resize(frame[None, top : top + rows, left : left + columns], (crop, crop))[0]
    return view.flip(1) if torch.rand((), generator=generator) < 0.5 else view


def normalise(clips: Tensor, preprocessing: Preprocessing) -> Tensor:  # [B, T, H, W, 3] -> [B, T, 3, H, W] float32
    """uint8 levels to 0..1, minus mean, over standard deviation, per RGB channel."""
    mean = torch.tensor(preprocessing.mean, device=clips.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=clips.device).view(3, 1, 1)
    scaled = clips.movedim(-1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return scaled.div_(255).sub_(mean).div_(std)


def _shrunk(frames: Tensor, preprocessing: Preprocessing) -> Tensor:  # [n, H, W, 3] -> [n, h, w, 3] uint8
    """Short side to `short_side`; the other in proportion, rounded down."""
    height, width = frames.shape[1:3]
    short = preprocessing.short_side
    return _resize(frames, (short, width * short // height) if height <= width else (height * short // width, short))


def _central_square(frames: Tensor, side: int) -> Tensor:  # [n, h, w, 3] -> [n, side, side, 3]
    top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
    return frames[:, top : top + side, left : left + side]


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:  # [n, H, W, 3] -> [n, h, w, 3] uint8
    if tuple(frames.shape[1:3]) == size:
        return frames
    resized = F.interpolate(frames.movedim(-1, 1), size=size, mode="bilinear", antialias=True)
    return resized.movedim(1, -1)


def _random_rectangle(
    height: int, width: int, generator: torch.Generator, *, least_area: float
) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of a random rectangle."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    ratios = (3 / 4, 4 / 3)
    for _ in range(10):
        area = height * width * uniform(least_area, 1)
        ratio = math.exp(uniform(math.log(ratios[0]), math.log(ratios[1])))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            return below(height - rows + 1), below(width - columns + 1), rows, columns
    rows, columns = min(height, round(width / ratios[0])), min(width, round(height * ratios[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns
