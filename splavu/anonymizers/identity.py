"""Raw features as an anonymizer like any other."""

from __future__ import annotations

from torch import Tensor

from splavu.anonymizers.base import Anonymizer


class IdentityAnonymizer(Anonymizer):
    """Raw features: what stands in place of `if anon` branches."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.architecture = {"arch": "identity", "feature_dim": feature_dim}

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        return features

    def map_rows(self, rows: Tensor) -> Tensor:
        return rows
