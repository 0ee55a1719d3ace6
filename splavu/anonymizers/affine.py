"""Fixed maps through fewer numbers than a feature has: what concept erasure, PCA and random projection give.

Note: a D x D matrix that projects does so on paper only. Rounded to float32 it is invertible, and the removed
directions come through at the size of a rounding, which an attacker who trains on the output can amplify. Here the map
goes through D - r numbers. Their products are summed in float64 and then rounded to float32, so what lies along a
removed direction doesn't move a bit of the released feature.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splavu.anonymizers.base import Anonymizer
from splavu.errors import UserError


class LowRank(Anonymizer):
    """What passes through d numbers: `encode` [d, D] of a feature less `mean` [D], and `decode` [D, d] back.

    Buffers, float32; checkpoints know them as `inward`, `center` and `outward`.
    """

    inward: Tensor
    outward: Tensor
    center: Tensor

    def add_factors(self, feature_dim: int, dims: int) -> None:
        """Register the buffers: the first `dims` dimensions, as they are."""
        kept = torch.eye(feature_dim)[:dims]
        self.register_buffer("center", torch.zeros(feature_dim))
        self.register_buffer("inward", kept)
        self.register_buffer("outward", kept.T.contiguous())

    def set_factors(self, mean: np.ndarray, encode: np.ndarray, decode: np.ndarray) -> None:  # [D], [d, D], [D, d]
        """Take these matrices."""
        for buffer, value in ((self.center, mean), (self.inward, encode), (self.outward, decode)):
            buffer.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    @property
    def mean(self) -> Tensor:  # [D]
        return self.center

    @property
    def encode(self) -> Tensor:  # [d, D]
        return self.inward

    @property
    def decode(self) -> Tensor:  # [D, d]
        return self.outward


class AffineAnonymizer(LowRank):
    """`x -> mean + decode encode (x - mean)`; buffers only, nothing is trained.

    Args:
        feature_dim: D.
        rank: r, the number of directions that are removed, D - d; 0 starts as the exact identity.
        method: Who made it: 'eraser', 'leace', 'pca', ...

    On Apple's MPS, which has no float64, sums are in float32.
    """

    def __init__(self, feature_dim: int, *, rank: int = 0, method: str = "identity") -> None:
        super().__init__()
        if not 0 <= rank < feature_dim:
            raise UserError("rank", f"{rank} directions of {feature_dim} to be removed", "leave at least one")
        self.architecture = {"arch": "affine", "feature_dim": feature_dim, "rank": rank, "method": method}
        self.add_factors(feature_dim, feature_dim - rank)

    @classmethod
    def of(cls, mean: np.ndarray, encode: np.ndarray, decode: np.ndarray, *, method: str) -> AffineAnonymizer:
        """The map with these matrices: [D], [D - r, D], [D, D - r]."""
        made = cls(len(mean), rank=len(mean) - len(encode), method=method)
        made.set_factors(mean, encode, decode)
        return made

    @property
    def weight(self) -> Tensor:
        """The whole matrix, [D, D] float64: to look at; applied in float32 it would leak what was removed."""
        return self.decode.double() @ self.encode.double()

    @property
    def bias(self) -> Tensor:
        """[D] float64, so that the map is `weight x + bias`."""
        return self.mean.double() - self.weight @ self.mean.double()

    def map_rows(self, rows: Tensor) -> Tensor:
        numbers = F.linear(precise(rows) - precise(self.mean), precise(self.encode)).float()  # [B, D - r]
        return (F.linear(precise(numbers), precise(self.decode)) + precise(self.mean)).to(rows.dtype)


def precise(values: Tensor) -> Tensor:
    """`values` in float64, where the device has it."""
    return values if values.device.type == "mps" else values.double()
