"""Cross-fitting: every row is attacked by attackers that were not trained on its subjects, for want of other data.

Clusters of rows (subjects, or the films that clips are from) are dealt into K folds. Each fold in turn is held out:
attackers are trained on K - 2 of the others, tuned on the remaining one, and the strongest of each attribute scores it.

Note: the scores of two folds come from two attackers and share no scale. They are turned into ranks within their fold
before they are pooled, which requires folds with similar shares of positives: where one fold has many and another has
few, even a perfect attacker's pooled ranks mix positives of the one with negatives of the other. So folds are
stratified by label.

An anonymizer that is evaluated here must not have been trained on the labels of these rows. What was erased from all of
them together is left with opposite signs in one part and in the other parts, so attackers trained on the other parts do
worse than chance: leakage clearly below 0 shows this fault, and no privacy.

Shapes: K folds, G clusters, N rows, n judged rows (features or videos), S seeds, A attributes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.attacks.campaign import Attack, Campaign, judged_units
from splavu.attacks.rows import AttackData, Rows
from splavu.errors import UserError


@dataclass(frozen=True)
class CrossFitted:
    """The attacks on all folds, brought together."""

    attack: Attack
    """Over all rows in their order, with one attacker, `POOLED`: ranks of the strongest of each fold, 0 to 1."""
    fold: np.ndarray
    """[n] in which each row was held out."""
    strongest: tuple[tuple[str, ...], ...]
    """[K][A] names of the attackers that scored each fold."""


POOLED = "strongest of each fold"


def crossfit(rows: Rows, campaign: Campaign, *, num_folds: int = 5, seed: int = 0) -> CrossFitted:
    """Attack all rows out of fold.

    Folds depend on labels and clusters only: raw and anonymized features of the same rows meet the same folds.

    Args:
        rows: Labels may be NaN for unknown.
        campaign: The attackers and how they are run; its progress moves by K * seeds * attackers.
        num_folds: At least 3.
        seed: Of the dealing.

    Raises:
        UserError: Fewer than 3 folds, or fewer clusters than folds.
    """
    fold_of_row = deal(rows, num_folds=num_folds, seed=seed)
    labels, clusters, videos = judged_units(rows, campaign.level)
    fold_of_cluster = dict(zip(rows.clusters.tolist(), fold_of_row.tolist(), strict=True))
    fold = np.array([fold_of_cluster[cluster] for cluster in clusters.tolist()])
    num_seeds = len(campaign.seeds)
    ranks = np.empty((num_seeds, *labels.shape))
    validation = np.empty((num_folds, num_seeds, labels.shape[1]))
    strongest = []
    for held_out in range(num_folds):
        attack = campaign.run([parts(rows, fold_of_row, held_out)] * num_seeds)
        ranks[:, fold == held_out] = _ranks(attack.chosen_scores)
        validation[held_out] = np.stack([attack.validation[:, m, a] for a, m in enumerate(attack.best)], axis=-1)
        strongest.append(tuple(attack.label(a) for a in range(labels.shape[1])))
    of_seed = metrics.mean_known(np.moveaxis(validation, 0, -1))  # [S, A]
    pooled = Attack((POOLED,), labels, clusters, videos, ranks[:, None], of_seed[:, None])
    return CrossFitted(pooled, fold, tuple(strongest))


def parts(rows: Rows, fold: np.ndarray, held_out: int) -> AttackData:  # [N]
    """The fold `held_out` as the test, the next one to tune on, the others to learn from."""
    num_folds = int(fold.max()) + 1
    tuned_on = (held_out + 1) % num_folds
    return AttackData(
        train=rows.take(np.flatnonzero((fold != held_out) & (fold != tuned_on))),
        validation=rows.take(np.flatnonzero(fold == tuned_on)),
        test=rows.take(np.flatnonzero(fold == held_out)),
    )


def deal(rows: Rows, *, num_folds: int, seed: int = 0) -> np.ndarray:  # -> [N] from 0 to K - 1
    """Deal clusters so that folds have alike shares of the rows and of each attribute's positives and negatives.

    One cluster after the other, those first that hold most of anything, each to the fold that has least of what it
    holds; equal clusters in an order drawn by `seed`. No fold stays empty.

    Raises:
        UserError: As `crossfit`.
    """
    names, cluster = np.unique(rows.clusters, return_inverse=True)
    if num_folds < 3:
        raise UserError("folds", f"is {num_folds}, but one is held out and one tuned on", "give at least 3")
    if len(names) < num_folds:
        raise UserError(
            "folds", f"is {num_folds}, but there are {len(names)} people or films", "give more, or lower folds"
        )
    counted = np.concatenate([np.ones((len(rows), 1)), rows.labels > 0, rows.labels <= 0], axis=1)  # NaN is neither
    holds = np.zeros((len(names), counted.shape[1]))
    np.add.at(holds, cluster, counted)
    holds /= np.maximum(holds.sum(axis=0), 1)  # [G, 1 + 2A] shares of everything there is
    shuffled = np.random.default_rng(seed).permutation(len(names))
    fold_of_cluster = np.empty(len(names), dtype=np.intp)
    load = np.zeros((num_folds, holds.shape[1]))
    for place in shuffled[np.argsort(-holds[shuffled].max(axis=1), kind="stable")]:
        fold = np.argmin(load @ holds[place])  # where the sum of squared loads grows least
        fold_of_cluster[place] = fold
        load[fold] += holds[place]
    return fold_of_cluster[cluster]


def _ranks(scores: np.ndarray) -> np.ndarray:  # [S, n, A] -> the same, 0 to 1
    """Ranks of each column, in units of n; ties share the mean of their ranks."""
    return np.stack([np.stack([_column_ranks(column) for column in of_seed.T], axis=1) for of_seed in scores])


def _column_ranks(column: np.ndarray) -> np.ndarray:  # [n] -> [n]
    _, group, size = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(size) - size / 2)[group] / len(column)
