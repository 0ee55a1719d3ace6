"""A fixed affine map of rank D - r: what concept erasure, PCA and random projection give.

What a reader would get wrong: a D x D matrix that projects does so on paper only. Rounded to float32 it is invertible,
and the removed directions come through at the size of a rounding, which whoever may learn on the output can amplify.
Here the map goes through D - r numbers. Their products are summed in float64 and then rounded to float32, so what lies
along a removed direction doesn't move a bit of the released feature.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splavu.anonymizers.base import Anonymizer
from splavu.errors import UserError


class AffineAnonymizer(Anonymizer):
    """`x -> center + outward inward (x - center)`; buffers only, nothing is trained.

    Args:
        feature_dim: D.
        rank: r, the number of directions that are removed; 0 starts as the exact identity.
        method: Who made it: 'eraser', 'leace', 'pca', ...

    Buffers, float32: `center` [D], `inward` [D - r, D], `outward` [D, D - r]. On Apple's MPS, which has no float64,
    sums are in float32.
    """

    center: Tensor
    inward: Tensor
    outward: Tensor

    def __init__(self, feature_dim: int, *, rank: int = 0, method: str = "identity") -> None:
        super().__init__()
        if not 0 <= rank < feature_dim:
            raise UserError("rank", f"{rank} directions of {feature_dim} to be removed", "leave at least one")
        self.architecture = {"arch": "affine", "feature_dim": feature_dim, "rank": rank, "method": method}
        kept = torch.eye(feature_dim)[: feature_dim - rank]
        self.register_buffer("center", torch.zeros(feature_dim))
        self.register_buffer("inward", kept)
        self.register_buffer("outward", kept.T.contiguous())

    @classmethod
    def of(cls, center: np.ndarray, inward: np.ndarray, outward: np.ndarray, *, method: str) -> AffineAnonymizer:
        """The map with these matrices: [D], [D - r, D], [D, D - r]."""
        made = cls(len(center), rank=len(center) - len(inward), method=method)
        for name, value in (("center", center), ("inward", inward), ("outward", outward)):
            getattr(made, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
        return made

    @property
    def weight(self) -> Tensor:
        """The whole matrix, [D, D] float64: to look at; applied in float32 it would leak what was removed."""
        return self.outward.double() @ self.inward.double()

    @property
    def bias(self) -> Tensor:
        """[D] float64, so that the map is `weight x + bias`."""
        return self.center.double() - self.weight @ self.center.double()

    def map_rows(self, rows: Tensor) -> Tensor:
        numbers = F.linear(precise(rows) - precise(self.center), precise(self.inward)).float()  # [B, D - r]
        return (F.linear(precise(numbers), precise(self.outward)) + precise(self.center)).to(rows.dtype)


def precise(values: Tensor) -> Tensor:
    """`values` in float64, where the device has it."""
    return values if values.device.type == "mps" else values.double()
