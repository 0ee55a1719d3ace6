"""Deterministic Gaussian noise, a function of the feature and a key: releasing a feature again doesn't average it away.

Note: it does average out over what is released anyway. The noise of the K clips of a video is independent; what the
clips share, such as who is in them, is left with 1/sqrt(K) of the stated sd in their mean, and with less in the mean
over all videos of a subject. The key is a secret: with it, an attacker who has candidates for the raw feature can try
them. It is kept with the weights, and out of the attributes of a released store.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from splavu.anonymizers.affine import precise
from splavu.anonymizers.base import Anonymizer
from splavu.anonymizers.closed_form.covariance import Units
from splavu.errors import UserError


class GaussianNoise(Anonymizer):
    """`x + sd root g`, with g a standard normal vector that is a function of x's own bits and a key.

    In training mode g is drawn from torch's generator at each call.

    Args:
        feature_dim: D.
        sd: Standard deviation in `units`; 0 is the exact identity.
        units: 'dimension': of each dimension's own standard deviation; 'whitened': of the features' covariance, so that
            every direction gets the same ratio of signal to noise.

    Buffers: `root`, [D] (standard deviations) or [D, D] (a square root of the covariance); `key`, [4] int64.

    The sd is stated, not a guarantee: features have no bound, so this is no differential privacy.
    """

    root: Tensor
    key: Tensor

    def __init__(self, feature_dim: int, *, sd: float = 0.0, units: Units = "dimension") -> None:
        super().__init__()
        if not (np.isfinite(sd) and sd >= 0):
            raise UserError("sd", f"{sd} is no standard deviation", "give 0 or more")
        if units not in get_args(Units):
            raise UserError("units", f"'{units}' is unknown", f"use one of {', '.join(get_args(Units))}")
        self.architecture = {"arch": "noise", "feature_dim": feature_dim, "sd": float(sd), "units": units}
        self.sd = float(sd)
        self.register_buffer("root", torch.ones(feature_dim) if units == "dimension" else torch.eye(feature_dim))
        self.register_buffer("key", torch.zeros(4, dtype=torch.int64))

    @classmethod
    def of(cls, root: np.ndarray, *, sd: float, seed: int | None = None) -> GaussianNoise:
        """Noise of the features that `root` describes, [D] or [D, D]; without a `seed` the key is drawn at random."""
        made = cls(len(root), sd=sd, units="dimension" if root.ndim == 1 else "whitened")
        made.root.copy_(torch.from_numpy(np.ascontiguousarray(root)))
        key = secrets.token_bytes(32) if seed is None else hashlib.sha256(str(seed).encode()).digest()
        made.key.copy_(torch.from_numpy(np.frombuffer(key, dtype="<i8").astype(np.int64)))
        return made

    def map_rows(self, rows: Tensor) -> Tensor:
        if not self.sd:
            return rows
        normal = torch.randn_like(rows) if self.training else self._own(rows)
        root = precise(self.root)
        noise = precise(normal) * root if root.ndim == 1 else F.linear(precise(normal), root)
        return (precise(rows) + self.sd * noise).to(rows.dtype)

    def _own(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        """Each row's own standard normal vector."""
        key = self.key.cpu().numpy().astype("<i8").tobytes()
        # Adding 0 makes -0 and 0, which are equal, the same bits.
        values = rows.detach().cpu().numpy().astype("<f4") + np.float32(0)
        own = np.stack([standard_normal(key + row.tobytes(), rows.shape[1]) for row in values])
        return torch.from_numpy(own).to(rows.device, rows.dtype)


def standard_normal(content: bytes, count: int) -> NDArray[np.float64]:  # -> [count]
    """Standard normal numbers that are a function of `content`: SHAKE-256, then Box and Muller's transform.

    Written out, because NumPy doesn't promise that its generators give the same in its next version.
    """
    pairs = -(-count // 2)
    words = np.frombuffer(hashlib.shake_256(content).digest(16 * pairs), dtype="<u8").reshape(2, pairs)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53  # (0, 1]
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
