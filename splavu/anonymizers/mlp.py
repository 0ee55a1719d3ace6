"""The reference's two-layer network, with a residual unless its weights are the reference's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from splavu.anonymizers.base import Anonymizer


class MLPAnonymizer(Anonymizer):
    """Two layers: `fc2(relu(fc1(x)))`, the second without bias (the reference's `mlp`).

    Args:
        feature_dim: D, also the hidden width.
        residual: Add the input, which makes the exact identity possible as a start. The reference has none, and
            checkpoints without a recorded architecture are read without.
        identity: Start as the exact identity (only with `residual`).
    """

    def __init__(self, feature_dim: int, *, residual: bool = True, identity: bool = True) -> None:
        super().__init__()
        self.architecture = {"arch": "mlp", "feature_dim": feature_dim, "residual": residual}
        self.residual = residual
        self.fc1 = nn.Linear(feature_dim, feature_dim)
        self.fc2 = nn.Linear(feature_dim, feature_dim, bias=False)
        if identity and residual:
            nn.init.zeros_(self.fc2.weight)

    def map_rows(self, rows: Tensor) -> Tensor:
        mapped = self.fc2(F.relu(self.fc1(rows)))
        return rows + mapped if self.residual else mapped
