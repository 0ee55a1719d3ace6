"""What is judged: a clip, all clips of a video, or all clips of a person, pooled by features or by scores.

Note: a set of all videos of a person has a label only where all of them agree. An attribute that some of the videos
have and others don't is unknown (NaN) there; there is no majority vote.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from splavu import metrics
from splavu.attacks.campaign import Attack, Scored
from splavu.attacks.rows import AttackData, Rows

AuditUnit = Literal["clip", "video", "person"]
UNITS: tuple[AuditUnit, ...] = ("clip", "video", "person")
Pooling = Literal["mean", "max"]
_Labelled = TypeVar("_Labelled", Rows, Attack, Scored)


def set_rows(rows: Rows, unit: AuditUnit) -> Rows:
    """One row a set: the mean of its features, and the labels of the set."""
    if unit == "clip":
        return rows
    names = set_names(rows, unit)
    _, first = np.unique(names, return_index=True)
    features = pooled(rows.features, names).astype(np.float32)
    return Rows(features, set_labels(rows.labels, names), rows.clusters[first], rows.videos[first])


def set_data(data: AttackData, unit: AuditUnit) -> AttackData:
    """`set_rows` of the three groups of subjects."""
    return AttackData(**{name: set_rows(rows, unit) for name, rows in data.splits.items()})


def set_attack(attack: Attack, unit: AuditUnit, pooling: Pooling = "mean") -> Attack:
    """The same attackers judged on sets: the mean or the largest of their scores of a set's rows."""
    test = _pooled_scores(Scored(attack.labels, attack.clusters, attack.videos, attack.scores), unit, pooling)
    tuned = _pooled_scores(attack.tuned, unit, pooling)
    precision = [[metrics.average_precisions(tuned.labels, scores) for scores in of_seed] for of_seed in tuned.scores]
    return replace(
        attack,
        labels=test.labels,
        clusters=test.clusters,
        videos=test.videos,
        scores=test.scores,
        validation=np.array(precision),
        tuned=tuned,
        chosen=None,
    )


def set_labels(labels: np.ndarray, names: np.ndarray) -> np.ndarray:  # [N, A], [N] -> [sets, A]
    """What holds for all known rows of a set; NaN where they disagree or none is known."""
    mean = pooled(labels, names)
    return np.where((mean == 0) | (mean == 1), mean, np.nan).astype(np.float32)


def pooled(values: np.ndarray, names: np.ndarray, pooling: Pooling = "mean") -> np.ndarray:  # [N, ...] -> [sets, ...]
    """Mean or maximum of the rows of each name, in sort order of the names; NaN left out, NaN where nothing is left."""
    kept, index = np.unique(names, return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(kept)))
    known = ~np.isnan(values)
    if pooling == "max":
        largest = np.maximum.reduceat(np.where(known, values, -np.inf)[order], starts, axis=0)
        return np.where(np.isinf(largest), np.nan, largest)
    total = np.add.reduceat(np.where(known, values, 0.0)[order].astype(np.float64), starts, axis=0)
    count = np.add.reduceat(known[order].astype(np.float64), starts, axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def known_only(labelled: _Labelled, kept: np.ndarray) -> _Labelled:  # [A] of bool
    """The same with the labels of the other attributes unknown."""
    only = replace(labelled, labels=np.where(kept, labelled.labels, np.float32(np.nan)))
    if isinstance(only, Attack) and only.tuned is not None:
        return replace(only, tuned=known_only(only.tuned, kept))
    return only


def set_names(rows: Rows | Scored, unit: AuditUnit) -> np.ndarray:  # -> [N]
    """The set of each row; sets are in the sort order of these names."""
    return rows.clusters if unit == "person" else rows.videos


def _pooled_scores(scored: Scored, unit: AuditUnit, pooling: Pooling) -> Scored:
    names = set_names(scored, unit)
    _, first = np.unique(names, return_index=True)
    scores = np.moveaxis(pooled(np.moveaxis(scored.scores, 2, 0), names, pooling), 0, 2)
    return Scored(set_labels(scored.labels, names), scored.clusters[first], scored.videos[first], scores)
