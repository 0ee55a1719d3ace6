"""What a privacy number rests on: the choices of a protocol, and three groups of people to learn, tune and judge on.

`released` (splavu.released) asks what a stranger could learn from the features that are stored and shared.
`published` (splavu.published) repeats the choices of Fioresi et al. 2026 so that numbers can be compared with theirs.

What a reader would get wrong: shuffling labels row by row does not show that there is nothing to learn, because rows of
one person are alike. Whole persons have to swap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.anonymizers.apply import Serving
from splavu.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """The choices that make a privacy number what it is."""

    name: str
    served: Serving
    """'batch': the anonymizer sees features in batches, and may mix them; 'alone': as a released feature is made."""
    attackers: str
    selection: str
    """What decides which model, epoch and setting is reported."""
    warning: str = ""
    """Printed with every result."""


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "published",
            served="batch",
            attackers="one two-layer head with L2-normalised outputs",
            selection="best epoch on the test set",
            warning="The published protocol is optimistic about privacy: its attacker's logits are bounded by 1, an "
            "anonymizer that attends over the batch is judged on mixtures that no released feature is, and the "
            "epoch is picked on the test set. Judge privacy by protocol = 'released'.",
        ),
        Protocol(
            "released",
            served="alone",
            attackers="fresh, strongest of several for each attribute",
            selection="validation subjects",
        ),
    )
}


@dataclass(frozen=True)
class Rows:
    """Served features of one split, a row each."""

    features: np.ndarray
    """[N, D] float32."""
    labels: np.ndarray
    """[N, A] of 0, 1, NaN for unknown."""
    clusters: np.ndarray
    """[N] the person (for images of strangers, the image) a row is of."""
    videos: np.ndarray
    """[N] the video or image a row is of; the features of a video may stand apart."""

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
    """What attackers learn from, are tuned on, and are judged on: three groups of different people.

    Raises:
        UserError: A cluster is in two of them: an attacker could recognise the person instead of the attribute.
    """

    train: Rows
    validation: Rows
    test: Rows

    def __post_init__(self) -> None:
        people = {name: set(np.unique(rows.clusters).tolist()) for name, rows in self.splits.items()}
        for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
            if shared := people[first] & people[second]:
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
    """Training and validation people swap labels whole, test people keep theirs; nothing is left to learn.

    Of `candidates` random swaps the one least associated with the true labels is taken, by the first row of each video.
    Among few people a swap keeps some association by luck, and an attacker who learns from that beats chance without
    any fault of the evaluation.
    """
    train, validation = data.train, data.validation
    labels = np.concatenate([train.labels, validation.labels])
    clusters = np.concatenate([train.clusters, validation.clusters]).astype(str)
    videos = np.concatenate([train.videos, validation.videos]).astype(str)
    lenders = metrics.random_lenders(clusters, num_permutations=candidates, seed=seed)

    first = np.unique(videos, return_index=True)[1]
    learnt = first < len(train)
    true = np.nan_to_num(labels[first] - np.nanmean(labels[first], axis=0))  # [V, A]
    true /= np.maximum(np.linalg.norm(true, axis=0), 1e-12)
    alike = true.T @ true  # [A, A] attributes go together, so a swap may tell of one by way of another
    swaps = metrics.lent_rows(clusters[first], videos[first], lenders)
    association = [
        np.square(np.einsum("ab,ba->a", true[swap][part].T @ true[part], alike)).sum()
        for swap in swaps
        for part in (learnt, ~learnt)
    ]
    best = np.argmin(np.reshape(association, (candidates, 2)).sum(axis=1))
    labels = labels[metrics.lent_rows(clusters, videos, lenders[best : best + 1])[0]]
    return dataclasses.replace(
        data,
        train=dataclasses.replace(train, labels=labels[: len(train)]),
        validation=dataclasses.replace(validation, labels=labels[len(train) :]),
    )


def json_values(value: Any) -> Any:
    """What JSON can hold: None for NaN and infinity, lists for tuples."""
    if isinstance(value, Mapping):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: float | None, factor: float, digits: int) -> str:
    """`factor * value` for a table, '-' where undefined."""
    return "-" if value is None else f"{factor * value:.{digits}f}"
