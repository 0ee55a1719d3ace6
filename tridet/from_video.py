"""A raw video's way to TriDet: its features and a few frames. Needs this repository's `feature_extraction`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from splavu.errors import UserError
from splavu.extraction.encoders import load_encoder
from splavu.extraction.video_features import VideoFeatures, video_features
from splavu.extraction.videos import open_video
from tridet.errors import InputError


@contextmanager
def _as_input_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error


def features_of(
    path: str | Path, *, encoder: str, weights: str | None, feature_dim: int, stride: int, device: torch.device
) -> VideoFeatures:
    """A video's features `[T, D]` float32, and when its frames are shown.

    Raises:
        InputError: The video can't be read, or the encoder is unknown, can't be loaded or has another width than
            `feature_dim`.
    """
    with _as_input_errors():
        network = load_encoder(encoder, weights).to(device)
        if (width := network.spec.feature_dim) != feature_dim:
            raise InputError(
                "--encoder", f"{encoder} gives width {width}, the model takes {feature_dim}", "use the model's encoder"
            )
        return video_features(path, network, stride=stride)


def thumbnails(path: str | Path, *, count: int = 9) -> list[tuple[float, NDArray]]:
    """`count` frames spread evenly over a video, uint8 [H, W, 3], with their times in seconds.

    Raises:
        InputError: The video can't be read.
    """
    with _as_input_errors(), open_video(path) as reader:
        places = np.linspace(0, len(reader) - 1, 2 * count + 1).astype(int)[1::2].tolist()  # middles of equal parts
        return list(zip(reader.times[places].tolist(), reader.get(places), strict=True))
