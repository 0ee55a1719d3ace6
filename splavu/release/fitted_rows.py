"""What is about to be released beside what the anonymizer was fitted to: are clips of it in there, does it lie there?

Three rows of each key are read, before anything is written; of a Parquet file, all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from splavu.anonymizers import Anonymizer
from splavu.anonymizers.closed_form.support import COMMON_FLOOR, Support
from splavu.anonymizers.fitted_to import FEWEST_FAR, MOST_FAR, FittedTo, row_hashes
from splavu.anonymizers.guarantees import stages_of
from splavu.errors import UserError
from splavu.metrics.vector_owners import VectorOwners, vector_owners
from splavu.stores import FeatureReader
from splavu.stores.parquet import FeatureTable

BLOCK_KEYS = 1024
MOST_MEASURED = 50_000
"""Rows, the first ones, whose place in feature space is measured."""


@dataclass
class Comparison:
    """Of a release with what its anonymizer was fitted to."""

    fitted_to: FittedTo
    keys: int = 0
    """Videos; of a table, its rows."""
    fitted: int = 0
    """Of them, those that the anonymizer was fitted to."""
    distances: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: np.ndarray, counts: np.ndarray) -> None:  # [N, D], [keys]
        """Rows of some keys, one key's after the other's; `counts` says how many each has, at least one."""
        hits = np.add.reduceat(self.fitted_to.holds(rows).astype(np.int64), np.cumsum(counts) - counts)
        self.keys += len(counts)
        self.fitted += int((hits >= np.maximum(counts * self.fitted_to.share / 2, 1e-9)).sum())
        if self.fitted_to.map is not None and sum(map(len, self.distances)) < MOST_MEASURED:
            self.distances.append(self.fitted_to.map.distances(rows))

    @property
    def median(self) -> float:
        """Distance from the fitted rows; 1 is as far as those lie."""
        return float(np.median(np.concatenate(self.distances)))

    @property
    def far(self) -> np.ndarray:  # [rows]
        """Whether each row that was measured lies off the map."""
        assert self.fitted_to.map is not None, "without a map there are no distances"
        return np.concatenate(self.distances) > self.fitted_to.map.far

    @property
    def is_off_the_map(self) -> bool:
        """Whether another encoder or domain is likely."""
        return self.far.mean() > MOST_FAR and self.far.sum() >= FEWEST_FAR

    def __str__(self) -> str:
        """How far they lie; empty where nothing was recorded."""
        if not self.distances:
            return ""
        shares = f"{100 * self.far.mean():.0f} % of clips lie beyond 99 % of those"
        return f"distance from the features it was fitted to: {self.median:.2f} (they: 1.00); {shares}"


def compared(source: FeatureReader | FeatureTable, anonymizer: Anonymizer) -> Comparison | None:
    """What `source` has to do with the rows that the anonymizer was fitted to; None where those weren't recorded.

    Raises:
        UserError: Features can't be read, or are of another width.
    """
    if anonymizer.fitted_to is None:
        return None
    found = Comparison(anonymizer.fitted_to)
    for rows, counts in _blocks(source, anonymizer.architecture["feature_dim"]):
        found.add(rows, counts)
    return found


def floor_behind(anonymizer: Anonymizer) -> int | None:
    """The floor of the anonymizer's codes, 0 where none was recorded; None where it has no codes."""
    stages = [stage for stage in stages_of(anonymizer.architecture) if stage["arch"] == "quantizer"]
    floors = [Support.of(stage["support"]).at_least if "support" in stage else 0 for stage in stages]
    return max(floors, default=None)


def refuse_fitted(found: Comparison, anonymizer: Anonymizer, source: object) -> None:
    """Refuse to release what an anonymizer with fewer than `COMMON_FLOOR` subjects per code was fitted to."""
    floor = floor_behind(anonymizer)
    if found.fitted and floor is not None and floor < COMMON_FLOOR:
        problem = f"{found.fitted} of {found.keys} keys were fitted to, and the floor of the codes is {floor} subjects"
        remedy = "fit to other people, or with --min-subjects 5; --allow-fitted releases them all the same"
        raise UserError(source, problem, remedy)


def _blocks(
    source: FeatureReader | FeatureTable, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # each [N, D], [keys]
    if isinstance(source, FeatureTable):
        for part in source.parts():
            if part.features.shape[1] != width:
                return  # the release itself says what is wrong
            counts = np.ones(len(part.features), np.int64) if part.counts is None else part.counts
            yield part.features, counts.astype(np.int64)
        return
    for keys in _batched(source, BLOCK_KEYS):
        rows = [source.some_rows(key) for key in keys]
        yield np.concatenate(rows), np.array([len(one) for one in rows])


def _batched(items: Iterable[str], count: int) -> Iterator[list[str]]:
    """The items in lists of `count`, the last one shorter."""
    rest = iter(items)
    while block := list(itertools.islice(rest, count)):
        yield block


def owners_of_released(store: FeatureReader) -> VectorOwners:
    """How many released vectors are one video's alone."""
    hashes = [row_hashes(store[key].reshape(-1, store.feature_dim)) for key in store]
    return vector_owners(np.concatenate(hashes), np.repeat(np.arange(len(hashes)), [len(one) for one in hashes]))
