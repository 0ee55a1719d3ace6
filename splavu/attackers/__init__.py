"""Attackers: classifiers trained after the fact, on exactly what is released, to read private attributes back.

An attacker is built with options only, learns once with `fit` and is then fixed; `scores` are unbounded logits or
probabilities, of use only for ranking. All attributes are attacked at once, labels are 0, 1 or NaN for unknown. Every
choice (regularisation, neighbours, epochs, trees, how inputs are scaled) is made for each attribute apart on validation
subjects: an attacker that is tuned badly makes any anonymizer look good. A family a module, the table is here.

What a reader would get wrong: `ATTACKERS` is all there is; `RELEASED` are those that the protocol of that name trains,
and its figures are comparable only as long as nobody joins them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from splavu.attackers.kernel import KernelAttacker
from splavu.attackers.linear import LinearAttacker, LogisticAttacker
from splavu.attackers.mlp import MLPAttacker
from splavu.attackers.neighbours import NeighboursAttacker
from splavu.attackers.scaling import SCALINGS, Scaling, standardise, whiten
from splavu.attackers.selection import BestPerAttribute, Labelled
from splavu.attackers.svm import SVMAttacker
from splavu.attackers.trees import TreesAttacker

__all__ = [
    "ATTACKERS",
    "RELEASED",
    "SCALINGS",
    "Attacker",
    "AttackerRow",
    "BestPerAttribute",
    "KernelAttacker",
    "Labelled",
    "LinearAttacker",
    "LogisticAttacker",
    "MLPAttacker",
    "NeighboursAttacker",
    "SVMAttacker",
    "Scaling",
    "TreesAttacker",
    "standardise",
    "whiten",
]


class Attacker(Protocol):
    """What the protocols ask of an attacker."""

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> Attacker:  # [N, D], [N, A]
        """Learn from training subjects, tune on validation subjects, return self."""

    def scores(self, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
        """Higher means more likely; comparable within an attribute only."""


@dataclass(frozen=True)
class AttackerRow:
    """How an attacker is made, and whether another seed gives another attacker."""

    build: Callable[..., Attacker]
    """Takes `seed` and `device`."""
    stochastic: bool


ATTACKERS: dict[str, AttackerRow] = {
    "logistic": AttackerRow(LogisticAttacker, stochastic=False),
    "mlp": AttackerRow(MLPAttacker, stochastic=True),
    "mlp_large": AttackerRow(partial(MLPAttacker, hidden=(512, 256)), stochastic=True),
    "trees": AttackerRow(TreesAttacker, stochastic=False),
    "neighbours": AttackerRow(NeighboursAttacker, stochastic=False),
    "svm": AttackerRow(SVMAttacker, stochastic=False),
    "kernel": AttackerRow(KernelAttacker, stochastic=True),
}

RELEASED = ("logistic", "mlp", "mlp_large", "trees", "neighbours")
"""The attackers of the protocol `released` (splavu.released), in the order in which a tie is decided."""
