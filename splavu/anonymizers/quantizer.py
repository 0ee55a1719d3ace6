"""A feature quantised to the nearest of few vectors: privacy by a budget of bits, which holds against every attacker.

Whatever an attacker learns about a clip comes through the number of a centroid, so it is at most log2 K bits, however
strong the attacker.

Note: the budget is per clip. K clips of a video, or all videos of a person, have as many budgets, and identity can be
pieced together from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.anonymizers.affine import LowRank, precise
from splavu.errors import UserError


@dataclass(frozen=True)
class CodeUsage:
    """What a quantizer made of some features."""

    budget: float
    """Bits a clip at most."""
    entropy: float
    """Bits a clip on average, from the shares of the codes seen; never more than `budget`."""
    distinct: int
    """Released vectors that differ."""
    used: tuple[int, ...]
    """Centroids of each codebook that some feature was nearest to."""


class Quantizer(LowRank):
    """Project to a subspace, take the nearest centroid, map it back to D. With several codebooks each quantizes what
    the ones before it left over, and bits add up.

    In training mode gradients pass straight through to the input, and reach the centroids that were chosen.

    Args:
        feature_dim: D.
        codes: Centroids K of each codebook; the budget is the sum of log2 K bits a clip.
        subspace_dim: d, in which distances are measured.
        support: Whom the centroids stand for, a record of `closed_form.support.Support`; None where nobody counted.

    Parameters: `codebooks`, each [K, d].

    Source: straight-through gradients as in van den Oord et al. 2017 ("Neural discrete representation learning"),
    residual codebooks as in Zeghidour et al. 2021 ("SoundStream").
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        codes: Sequence[int],
        subspace_dim: int,
        support: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not codes or min(codes) < 1:
            raise UserError("codes", f"{list(codes)} leave nothing to choose from", "give numbers of centroids")
        if not 1 <= subspace_dim <= feature_dim:
            raise UserError("subspace_dim", f"{subspace_dim} of {feature_dim} dimensions", f"give 1 to {feature_dim}")
        self.architecture = {
            "arch": "quantizer",
            "feature_dim": feature_dim,
            "codes": list(codes),
            "subspace_dim": subspace_dim,
        }
        if support is not None:
            self.architecture["support"] = dict(support)
        self.add_factors(feature_dim, subspace_dim)
        self.codebooks = nn.ParameterList(torch.zeros(count, subspace_dim) for count in codes)

    @classmethod
    def of(cls, mean: np.ndarray, encode: np.ndarray, decode: np.ndarray, codebooks: Sequence[np.ndarray]) -> Quantizer:
        """The quantizer with these matrices: [D], [d, D], [D, d], each [K, d]."""
        made = cls(len(mean), codes=[len(book) for book in codebooks], subspace_dim=len(encode))
        made.set_factors(mean, encode, decode)
        for book, value in zip(made.codebooks, codebooks, strict=True):
            book.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))
        return made

    @property
    def bits(self) -> float:
        """The budget: bits a clip at most."""
        return sum(math.log2(len(book)) for book in self.codebooks)

    def codes(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, number of codebooks] int64
        """The centroid of each codebook that a row is given."""
        rest = F.linear(precise(rows) - precise(self.mean), precise(self.encode))  # [B, d]
        chosen = []
        for book in self.codebooks:
            centroids = precise(book.detach())  # [K, d]
            # Squared distances less |rest|^2, which is the same for all centroids.
            chosen.append((centroids.square().sum(1) - 2 * rest @ centroids.T).argmin(1))
            rest = rest - centroids[chosen[-1]]
        return torch.stack(chosen, dim=1)

    def map_rows(self, rows: Tensor) -> Tensor:
        chosen = self.codes(rows.detach())
        # Tables of released vectors, always computed at one shape: equal codes give equal bits.
        tables = [F.linear(precise(book), precise(self.decode)) for book in self.codebooks]  # each [K, D]
        released = precise(self.mean)
        for table, column in zip(tables, chosen.unbind(1), strict=True):
            released = released + table[column]
        if self.training and torch.is_grad_enabled():
            through = F.linear(F.linear(precise(rows), precise(self.encode)), precise(self.decode))
            released = released + (through - through.detach())  # adds 0, and the gradient
        return released.to(rows.dtype)

    def usage(self, rows: Tensor) -> CodeUsage:  # [B, D]
        """How much of the budget these features use."""
        with torch.no_grad():
            chosen = self.codes(rows)
        _, counts = torch.unique(chosen, dim=0, return_counts=True)
        shares = counts.double() / len(rows)
        return CodeUsage(
            budget=self.bits,
            entropy=max(0.0, float(-(shares * shares.log2()).sum())),
            distinct=len(counts),
            used=tuple(len(column.unique()) for column in chosen.unbind(1)),
        )
