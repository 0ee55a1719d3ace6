"""Gradient-boosted trees."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch

from splavu.attackers.selection import BestPerAttribute, Labelled
from splavu.metrics import average_precision

LEAST_GROUP = 24
"""Coordinates of a group: narrower features have fewer groups, or one."""


class TreesAttacker:
    """Gradient-boosted trees (histogram boosting), one ensemble an attribute, cut where validation peaks.

    Trees don't care how a coordinate is scaled but do care which axes they are given: after a rotation they are weaker,
    which is why they never attack alone. Coordinates are dealt into `groups`, and the splits below a tree's root are of
    its root's group: a third less work than all coordinates everywhere, for slightly weaker trees on raw features
    (benchmarks/README.md says by how much, and how `bins` and `groups` were chosen).
    Deterministic: `seed` draws nothing below 200,000 rows (above, bins come from a sample).
    """

    def __init__(
        self,
        *,
        learning_rate: float = 0.1,
        max_trees: int = 60,
        stride: int = 5,
        leaves: int = 15,
        l2: float = 1.0,
        bins: int = 64,
        groups: int = 8,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.learning_rate, self.max_trees, self.stride = learning_rate, max_trees, stride
        self.leaves, self.l2, self.bins, self.groups = leaves, l2, bins, groups
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> TreesAttacker:
        self.best_ = BestPerAttribute(labels.shape[1])
        columns, held_out, width = by_column(features), by_column(validation[0]), features.shape[1]
        number = max(1, min(self.groups, width // LEAST_GROUP))
        groups = [part.tolist() for part in np.array_split(np.random.default_rng(0).permutation(width), number)]
        shared: dict[bytes, dict[str, Any]] = {}  # which rows are known -> their bins
        for attribute, target in enumerate(labels.T):
            known = ~np.isnan(target)
            if len(np.unique(target[known])) < 2:
                continue
            trees = _boosting()(
                learning_rate=self.learning_rate,
                max_iter=self.max_trees,
                max_leaf_nodes=self.leaves,
                l2_regularization=self.l2,
                max_bins=self.bins,
                interaction_cst=groups,
                early_stopping=False,  # pyright: ignore[reportArgumentType]  scikit-learn would hold out rows of the training subjects
                random_state=self.seed,
            )
            trees.shared = shared.setdefault(known.tobytes(), {})
            trees.fit(columns if known.all() else columns[known], target[known] > 0)
            for count, scores in enumerate(trees.staged_decision_function(held_out), start=1):
                if count % self.stride == 0:
                    precisions = np.full(labels.shape[1], np.nan)
                    precisions[attribute] = average_precision(validation[1][:, attribute], np.ravel(scores))
                    self.best_.offer(precisions, partial(_tree_scores, trees, count))
        return self

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(by_column(features))


@cache
def _boosting() -> type:
    """scikit-learn's boosting, which looks for the bins of the same rows once and not again for each attribute."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # other commands start without it

    class Boosting(HistGradientBoostingClassifier):
        shared: dict[str, Any]
        """The bins and what finds them, of ensembles on the same rows; empty for the first."""

        def _bin_data(self, X: np.ndarray, is_training_data: bool) -> np.ndarray:
            if not is_training_data:
                return super()._bin_data(X, is_training_data)
            if not self.shared:
                self.shared["rows"] = super()._bin_data(X, is_training_data)
                self.shared["mapper"] = self._bin_mapper
            self._bin_mapper = self.shared["mapper"]
            return self.shared["rows"]

    return Boosting


def by_column(features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, D]
    """In double precision, column after column, which scikit-learn's trees read several times faster."""
    return np.asfortranarray(features, dtype=np.float64)


def _tree_scores(trees: Any, count: int, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N]
    stages = trees.staged_decision_function(features)
    return next(np.ravel(scores) for number, scores in enumerate(stages, start=1) if number == count)
