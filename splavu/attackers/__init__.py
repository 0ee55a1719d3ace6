"""Attackers: classifiers trained after the fact, on exactly what is released, to predict private attributes.

An attacker is built with options only, trained once with `fit` and then fixed; `scores` are unbounded logits or
probabilities, of use only for ranking. All attributes are attacked at once, labels are 0, 1 or NaN for unknown. Every
choice (regularisation, neighbours, epochs, trees, how inputs are scaled) is made separately for each attribute on
validation subjects: a badly tuned attacker makes any anonymizer look good.

To add an attacker, write a module here and its row in `ATTACKERS`; another installed package adds a row by an entry
point of the group `splavu.attackers` (`splavu.runtime.registry`). A new row is used where it is named. It joins neither
`DEFAULT_ATTACKERS` nor `AUDIT_FAMILIES`, so that figures of today and of later versions stay comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from splavu.attackers.kernel import KernelAttacker
from splavu.attackers.knn import KNNAttacker
from splavu.attackers.linear import LinearAttacker, LogisticAttacker
from splavu.attackers.mlp import MLPAttacker
from splavu.attackers.scaling import SCALINGS, Scaling, standardise, whiten
from splavu.attackers.selection import BestPerAttribute, Labelled
from splavu.attackers.svm import SVMAttacker
from splavu.attackers.trees import TreesAttacker
from splavu.errors import UserError, nearest
from splavu.runtime.registry import Registry

__all__ = [
    "ATTACKERS",
    "AUDIT_FAMILIES",
    "DEFAULT_ATTACKERS",
    "SCALINGS",
    "Attacker",
    "AttackerSpec",
    "BestPerAttribute",
    "KNNAttacker",
    "KernelAttacker",
    "Labelled",
    "LinearAttacker",
    "LogisticAttacker",
    "MLPAttacker",
    "SVMAttacker",
    "Scaling",
    "TreesAttacker",
    "attacker_names",
    "standardise",
    "whiten",
]


class Attacker(Protocol):
    """What the protocols ask of an attacker."""

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> Attacker:  # [N, D], [N, A]
        """Train on training subjects, tune on validation subjects, return self."""
        ...

    def scores(self, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
        """Higher means more likely; comparable within an attribute only."""
        ...


@dataclass(frozen=True)
class AttackerSpec:
    """How an attacker is built, and whether another seed gives another attacker."""

    build: Callable[..., Attacker]
    """Takes `seed` and `device`."""
    stochastic: bool


ATTACKERS = Registry(
    {
        "logistic": AttackerSpec(LogisticAttacker, stochastic=False),
        "mlp": AttackerSpec(MLPAttacker, stochastic=True),
        "mlp_large": AttackerSpec(partial(MLPAttacker, hidden=(512, 256)), stochastic=True),
        "trees": AttackerSpec(TreesAttacker, stochastic=False),
        "knn": AttackerSpec(KNNAttacker, stochastic=False),
        "svm": AttackerSpec(SVMAttacker, stochastic=False),
        "kernel": AttackerSpec(KernelAttacker, stochastic=True),
        "kernel_small": AttackerSpec(partial(KernelAttacker, num_features=256, bandwidths=(1.0, 4.0)), stochastic=True),
    },
    group="splavu.attackers",
    kind=AttackerSpec,
    aliases={"neighbours": "knn"},
)

DEFAULT_ATTACKERS = ("logistic", "mlp", "mlp_large", "trees", "knn")
"""The attackers of the release protocol (`splavu.attacks.release_protocol`); a tie goes to the first."""

AUDIT_FAMILIES = ("logistic", "mlp", "mlp_large", "trees", "knn", "svm", "kernel")
"""The families of an audit that names none; its evidence lists the families it used, with their options."""


def attacker_names(names: Iterable[str], *, culprit: str = "attackers") -> tuple[str, ...]:
    """The names as `ATTACKERS` has them, each once; 'neighbours' is the former name of 'knn'.

    Raises:
        UserError: A name is unknown.
    """
    names = tuple(names)
    for name in names:
        if name not in ATTACKERS:
            raise UserError(culprit, f"'{name}' is unknown", nearest(name, ATTACKERS))
    return tuple(dict.fromkeys(ATTACKERS.canonical(name) for name in names))
