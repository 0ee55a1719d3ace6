"""What a privacy number rests on: the choices of a protocol, and three groups of subjects to train, tune and test on.

The release protocol (`splavu.attacks.release_protocol`) asks what an attacker could predict from the features that are
stored and shared. The paper protocol (`splavu.attacks.paper_protocol`) repeats the choices of Fioresi et al. 2026, so
that numbers can be compared with theirs.

Note: shuffling labels row by row does not show that nothing can be learned, because rows of one subject are alike.
Labels are permuted between whole subjects.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.errors import UserError


@dataclass(frozen=True)
class Rows:
    """Features of one split as attackers get them, one per row."""

    features: np.ndarray
    """[N, D] float32."""
    labels: np.ndarray
    """[N, A] of 0, 1, NaN for unknown."""
    clusters: np.ndarray
    """[N] the subject of each row; for images of unknown subjects, the image."""
    videos: np.ndarray
    """[N] the video or image of each row, in any order."""

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"rows of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray) -> Rows:
        """The given rows, in that order."""
        return Rows(self.features[rows], self.labels[rows], self.clusters[rows], self.videos[rows])


@dataclass(frozen=True)
class AttackData:
    """What attackers are trained on, tuned on and tested on: three groups of different subjects.

    Raises:
        UserError: A cluster is in two of them: an attacker could recognise the subject instead of the attribute.
    """

    train: Rows
    validation: Rows
    test: Rows

    def __post_init__(self) -> None:
        subjects = {name: set(np.unique(rows.clusters).tolist()) for name, rows in self.splits.items()}
        for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
            if shared := subjects[first] & subjects[second]:
                example = min(map(str, shared))
                raise UserError(
                    f"{first} and {second}", f"share {len(shared)} subjects, such as '{example}'", "split by subject"
                )

    @property
    def splits(self) -> dict[str, Rows]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> AttackData:  # [N, D] -> [N, D]
        """The same rows with `function` of their features."""
        served = {n: dataclasses.replace(r, features=function(r.features)) for n, r in self.splits.items()}
        return AttackData(**served)


def hold_out(rows: Rows, *, share: float = 0.2, seed: int = 0) -> tuple[Rows, Rows]:
    """Split off `share` of the clusters, at least one, for data sets without a validation split: (rest, held out)."""
    names = np.unique(rows.clusters)
    count = min(max(1, round(share * len(names))), len(names) - 1)
    held = np.isin(rows.clusters, np.random.default_rng(seed).permutation(names)[:count])
    return rows.take(np.flatnonzero(~held)), rows.take(np.flatnonzero(held))


def shuffled_labels(data: AttackData, *, seed: int, candidates: int = 1000) -> AttackData:
    """Training and validation subjects with permuted labels, test subjects with their own: nothing is left to learn.

    Of `candidates` random permutations the one least associated with the true labels is taken, by the first row of each
    video. With few subjects a permutation keeps some association by chance, and an attacker trained on it beats chance
    although the evaluation has no fault.
    """
    train, validation = data.train, data.validation
    labels = np.concatenate([train.labels, validation.labels])
    clusters = np.concatenate([train.clusters, validation.clusters]).astype(str)
    videos = np.concatenate([train.videos, validation.videos]).astype(str)
    permutations = metrics.cluster_permutations(clusters, num_permutations=candidates, seed=seed)

    first = np.unique(videos, return_index=True)[1]
    is_train = first < len(train)
    true = np.nan_to_num(labels[first] - np.nanmean(labels[first], axis=0))  # [V, A]
    true /= np.maximum(np.linalg.norm(true, axis=0), 1e-12)
    alike = true.T @ true  # [A, A] attributes correlate, so a permutation may predict one from another
    swaps = metrics.permute_cluster_labels(clusters[first], videos[first], permutations)
    association = [
        np.square(np.einsum("ab,ba->a", true[swap][part].T @ true[part], alike)).sum()
        for swap in swaps
        for part in (is_train, ~is_train)
    ]
    best = np.argmin(np.reshape(association, (candidates, 2)).sum(axis=1))
    labels = labels[metrics.permute_cluster_labels(clusters, videos, permutations[best : best + 1])[0]]
    return dataclasses.replace(
        data,
        train=dataclasses.replace(train, labels=labels[: len(train)]),
        validation=dataclasses.replace(validation, labels=labels[len(train) :]),
    )


def json_values(value: Any) -> Any:
    """The value as JSON can hold it: None for NaN and infinity, lists for tuples."""
    if isinstance(value, Mapping):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rounded(value: float | None, factor: float, digits: int) -> str:
    """`factor * value` for a table, '-' where undefined."""
    return "-" if value is None else f"{factor * value:.{digits}f}"
