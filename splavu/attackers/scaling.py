"""How an attacker scales its inputs: each coordinate apart, or whitened.

Note: scaling each coordinate is not enough. A map that shrinks the private direction to a thousandth of the others
hides it from every penalised classifier, but not from one trained on whitened features. So whitening keeps every
direction that float32 can represent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """An invertible affine map of the inputs, from training statistics."""

    mean: Tensor
    """[D]"""
    matrix: Tensor
    """[D] to scale each coordinate, [D, d] to whiten; d < D only where training features span d dimensions."""

    def __call__(self, features: np.ndarray) -> Tensor:  # [N, D] -> [N, d]
        centred = torch.as_tensor(features, dtype=torch.float32, device=self.mean.device) - self.mean
        return centred * self.matrix if self.matrix.ndim == 1 else centred @ self.matrix


def standardise(features: np.ndarray, device: torch.device | str = "cpu") -> Scaling:  # [N, D]
    """Zero mean, unit variance for each coordinate; a constant coordinate becomes 0."""
    mean, inverse, _ = _spread(features, device)
    return Scaling(mean.float().to(device), inverse.float().to(device))


def whiten(features: np.ndarray, device: torch.device | str = "cpu") -> Scaling:  # [N, D]
    """Unit covariance. Drops only directions narrower than float32 resolves beside the widest.

    Where all rows are the same there is none; one coordinate of 0 is kept, so that nothing learns from no input at all.
    """
    rows = _double(features, device)
    mean = rows.mean(dim=0)
    triangle = torch.linalg.qr(rows - mean, mode="r").R  # singular values of the data, without squaring them
    _, singular, axes = torch.linalg.svd(triangle, full_matrices=False)
    kept = singular > singular.max() * torch.finfo(torch.float32).eps
    if not kept.any():
        return Scaling(mean.float().to(device), torch.zeros(rows.shape[1], 1, device=device))
    matrix = axes[kept].T * (len(rows) ** 0.5 / singular[kept])
    return Scaling(mean.float().to(device), matrix.float().to(device))


def whiten_standardised(features: np.ndarray, device: torch.device | str = "cpu") -> tuple[Scaling, Tensor]:  # [N, D]
    """Whitening along the principal axes of the standardised features, and what a weight costs there: [d].

    A linear function of the whitened features with weights v is, on the standardised ones, the function whose least
    weights w have |w|^2 = sum of cost * v^2. So classifiers with penalised weights on either can be fitted to the same
    inputs, of unit covariance, which few iterations suffice for.
    """
    mean, inverse, scaled = _spread(features, device)
    triangle = torch.linalg.qr(scaled, mode="r").R
    _, singular, axes = torch.linalg.svd(triangle, full_matrices=False)
    kept = singular > singular.max() * torch.finfo(torch.float32).eps
    if not kept.any():
        return Scaling(mean.float().to(device), torch.zeros(len(inverse), 1, device=device)), torch.ones(
            1, device=device
        )
    stretch = len(scaled) ** 0.5 / singular[kept]
    matrix = inverse[:, None] * axes[kept].T * stretch
    return Scaling(mean.float().to(device), matrix.float().to(device)), stretch.square().float().to(device)


SCALINGS: dict[str, Callable[..., Scaling]] = {"standardise": standardise, "whiten": whiten}


def _spread(features: np.ndarray, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """[N, D] -> mean [D], 1 / standard deviation [D] (0 for a constant coordinate) and standardised rows, float64."""
    rows = _double(features, device)
    mean, spread = rows.mean(dim=0), rows.std(dim=0, correction=0)
    floor = spread.max() * torch.finfo(torch.float32).eps
    inverse = torch.where(spread > floor, 1 / spread.clamp_min(1e-300), 0.0)
    return mean, inverse, (rows - mean) * inverse


def _double(features: np.ndarray, device: torch.device | str) -> Tensor:  # [N, D] -> [N, D] float64
    """On `device`, or on the CPU where the device has no double precision."""
    return torch.as_tensor(
        features, dtype=torch.float64, device="cpu" if torch.device(device).type == "mps" else device
    )
