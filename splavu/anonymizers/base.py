"""The contract of an anonymizer, and how features are served: each as if it had come alone.

A matrix product's last bits depend on how many rows it has; serving goes through tiles of a fixed number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from splavu.anonymizers.fitted_to import FittedTo

AttendsOver = Literal["time", "batch"]

SERVING_TILE = 64
"""Rows a matrix product sees at once in evaluation. BLAS picks its kernel, and with it the order of summation, by the
number of rows; with always this many, a feature by itself and the same feature in a batch agree bit for bit."""


class Anonymizer(nn.Module):
    """The contract: `forward` keeps the shape of `[B, D]` (independent rows) or `[..., T, D]` (sequences).

    Subclasses give `map_rows` for independent features and may give `map_sequences`; constructor arguments are kept in
    `architecture`, which goes into checkpoints.
    """

    architecture: dict[str, Any]
    fitted_to: FittedTo | None = None
    """What its checkpoint recorded of the clips that it was fitted to, if it did."""
    attends_over: AttendsOver = "time"

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:  # [..., D], [..., T] -> [..., D]
        """Anonymize.

        Args:
            features: `[D]`, `[B, D]`, or `[..., T, D]`; floating point.
            mask: `[..., T]`, true where a step is real. Padding comes back as it went in, and nothing attends to it.

        Raises:
            ValueError: The width isn't D, or a mask comes with independent features.
        """
        width = self.architecture["feature_dim"]
        if features.shape[-1] != width:
            raise ValueError(f"features are {features.shape[-1]} wide, this anonymizer takes {width}")
        if features.ndim <= 2:
            if mask is not None:
                raise ValueError("a mask belongs to sequences [B, T, D], not to independent features [B, D]")
            return self._forward_rows(features.reshape(-1, width)).reshape(features.shape)
        sequences = features.reshape(-1, *features.shape[-2:])  # [B, T, D]
        valid = None if mask is None else mask.reshape(sequences.shape[:2])  # [B, T]
        return self._forward_sequences(sequences, valid).reshape(features.shape)

    def map_rows(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        """Each row on its own."""
        raise NotImplementedError

    def map_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:  # [B, T, D], [B, T] -> [B, T, D]
        """Each sequence on its own; by default each of its steps, with the bits it has alone."""
        rows = sequences.flatten(0, 1)
        return (self.map_rows(rows) if self.training else in_tiles(self.map_rows, rows)).view_as(sequences)

    def _forward_rows(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        if self.training:
            return self.map_rows(rows)
        return in_tiles(self.map_rows, rows)

    def _forward_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:
        if self.training:
            mapped = self.map_sequences(sequences, valid)
            return mapped if valid is None else torch.where(valid[..., None], mapped, sequences)
        # One by one, and without its padding, a sequence can't depend on what it was batched with.
        served = sequences.clone()
        for i, sequence in enumerate(sequences):
            real = slice(None) if valid is None else valid[i]
            if len(sequence[real]):
                served[i, real] = self.map_sequences(sequence[real][None], None)[0].to(served.dtype)
        return served


def in_tiles(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
    """Apply `function` to tiles of exactly SERVING_TILE rows, the last one filled up with zeros."""
    missing = -len(rows) % SERVING_TILE
    padded = F.pad(rows, (0, 0, 0, missing)) if missing else rows
    tiles = [function(tile) for tile in padded.split(SERVING_TILE)]
    return torch.cat(tiles)[: len(rows)] if tiles else rows
