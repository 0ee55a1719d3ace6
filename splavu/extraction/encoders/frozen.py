"""What every frozen encoder offers: clips in, one feature per clip out, and the identity of its weights."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from splavu.data.encoders import ENCODERS, EncoderSpec, Preprocessing
from splavu.errors import UserError
from splavu.extraction.preprocessing import normalise
from splavu.runtime.environment import autocast

Extractor = Callable[[Tensor], Tensor]
"""Prepared clips [B, T, H, W, 3] uint8, on the CPU, to features [B, D] float32 on the encoder's device."""


class FrozenEncoder(nn.Module, ABC):
    """A network that never trains: evaluation mode, no gradients, stays so after `train()`.

    The feature of a clip depends on that clip alone; a batch changes it by float rounding only.

    Attributes:
        spec: Width, frames and preprocessing as they are for the loaded weights.
        origin: Attributes for a store, where the weights came from a hub: `weights_hub` and `weights_revision`.
    """

    spec: EncoderSpec
    origin: Mapping[str, str] = MappingProxyType({})

    def freeze(self) -> None:
        """To be called at the end of a subclass's constructor."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> FrozenEncoder:
        return self

    @abstractmethod
    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] normalised -> [B, D]
        """One feature per clip."""

    def extractor(self, preprocessing: Preprocessing, *, device: torch.device, precision: str = "fp32") -> Extractor:
        """The encoder from levels to features, as it is fastest on `device`; moves it there.

        Args:
            preprocessing: Says how levels are normalised.
            device: Where it computes. On a CPU some encoders have other kernels for the same function
                (`cpu_transformer`), for clips of the size that they were trained with.
            precision: 'fp32', 'bf16' or 'fp16'.
        """
        self.to(device)
        fast = self.cpu_extractor(preprocessing, precision) if device.type == "cpu" else None
        side = self.spec.preprocessing.crop
        fitting = (self.spec.num_frames, side, side, 3)

        def features(clips: Tensor) -> Tensor:
            if fast is not None and clips.shape[1:] == fitting:
                return fast(clips)
            with autocast(device, precision):
                return self(normalise(clips.to(device), preprocessing)).float()

        return features

    def cpu_extractor(self, preprocessing: Preprocessing, precision: str) -> Extractor | None:
        """What computes the same on a CPU in less time, if there is such a thing."""
        return None

    @functools.cached_property
    def weights_hash(self) -> str:
        """SHA-256 over the names, shapes and float32 values of all weights: the same whatever file they came from."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.state_dict().items()):
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(weight.detach().to("cpu", torch.float32).contiguous().numpy().data)
        return digest.hexdigest()


def fitted_spec(spec: EncoderSpec, *, width: int, num_frames: int, crop: int, source: str) -> EncoderSpec:
    """`spec` with what the loaded weights give and take; the margin around the crop keeps its proportion.

    Args:
        crop: Side of the frames, in pixels.

    Raises:
        UserError: The row is of another width; the remedy names the row of this family that fits, if there is one.
    """
    if spec.feature_dim not in (None, width):
        family = spec.name.partition("-")[0]
        fitting = [
            row.name for row in ENCODERS.values() if row.feature_dim == width and row.name.partition("-")[0] == family
        ]
        raise UserError(
            source,
            f"these weights give features {width} wide, {spec.name} is {spec.feature_dim}",
            f"use --encoder {fitting[0]}" if fitting else "use the weights of that encoder",
        )
    table = spec.preprocessing
    short_side = crop * table.short_side // table.crop
    preprocessing = dataclasses.replace(table, short_side=short_side, crop=crop)
    return dataclasses.replace(spec, feature_dim=width, num_frames=num_frames, preprocessing=preprocessing)
