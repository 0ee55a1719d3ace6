"""Is a model as good for one group of subjects as for another? Accuracy by group, gap, worst group, equalised odds.

Note: the largest of several differences is above 0 for a fair model too, by chance alone. So the gap is resampled with
its sign, from the group that is worst in the whole sample to the one that is best, and its interval may contain 0; read
equalised odds, a mean of absolute differences, beside its permuted values.

Shapes: `N` rows, `G` groups in sort order, `C` classes, `R` resamples. Intervals: `metrics.percentile_interval`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu.errors import UserError
from splavu.metrics import ranking, resampling
from splavu.metrics.row_labels import RowLabels


@dataclass(frozen=True)
class GroupAccuracy:
    """Top-1 accuracy of each group, 0 to 1."""

    names: tuple[str, ...]
    counts: np.ndarray
    """[G] rows."""
    accuracy: np.ndarray
    """[G]"""
    overall: float
    """Over all rows: a large group weighs more."""
    gap: float
    """Best group less worst group."""

    @property
    def best(self) -> str:
        return self.names[int(np.argmax(self.accuracy))]

    @property
    def worst(self) -> str:
        return self.names[int(np.argmin(self.accuracy))]

    def gap_of(self, accuracies: np.ndarray) -> np.ndarray:  # [..., G] -> [...]
        """This sample's best group less its worst, in resampled accuracies or another model's; may be negative."""
        return accuracies[..., np.argmax(self.accuracy)] - accuracies[..., np.argmin(self.accuracy)]


def group_accuracy(targets: np.ndarray, predictions: np.ndarray, groups: RowLabels) -> GroupAccuracy:  # [N], [N], [N]
    """Accuracy by group, over the groups' rows.

    Raises:
        UserError: Fewer than two groups.
    """
    names, group = np.unique(_two_or_more(groups), return_inverse=True)
    is_hit = np.asarray(targets) == np.asarray(predictions)
    accuracy = np.array([is_hit[group == place].mean() for place in range(len(names))])
    return GroupAccuracy(
        names=tuple(map(str, names.tolist())),
        counts=np.bincount(group),
        accuracy=accuracy,
        overall=float(is_hit.mean()),
        gap=float(accuracy.max() - accuracy.min()),
    )


def group_means(values: np.ndarray, groups: RowLabels) -> dict:  # [N], [N] -> {group: mean}
    """Mean of each group's values, those that are NaN left out: rank-1 by view and walk, say."""
    names = np.unique(np.asarray(groups))
    return dict(zip(names.tolist(), ranking.prevalences(_by_group(values, groups)).tolist(), strict=True))


def resampled_group_means(
    values: np.ndarray, groups: RowLabels, resamples: resampling.Resamples
) -> np.ndarray:  # [N], [N] -> [R, G]
    """The same on each resample of the clusters; with hits as values, the groups' accuracies."""
    return resampling.resampled_prevalences(_by_group(values, groups), resamples)


@dataclass(frozen=True)
class EqualisedOdds:
    """How far apart the groups' rates of right and of false alarms are, class against the rest; 0 is parity."""

    mean: float
    """Over the classes that could be compared, 0 to 1."""
    per_class: np.ndarray
    """[C], NaN for the classes left out."""
    left_out: tuple[int, ...]
    """Classes that some group has no row of, or nothing else."""

    @property
    def worst_class(self) -> int | None:
        return None if np.isnan(self.mean) else int(np.nanargmax(self.per_class))


def equalised_odds(
    targets: np.ndarray, predictions: np.ndarray, groups: RowLabels, *, num_classes: int
) -> EqualisedOdds:  # [N], [N], [N]
    """The equalised-odds difference of each class: the larger of the groups' spans of true and false positive rate.

    For one class this is `equalized_odds_difference` of the package fairlearn, but for a class that a group has no row
    of: there fairlearn counts a true positive rate of 0.

    Raises:
        UserError: Fewer than two groups.

    Source: Hardt, Price and Srebro 2016, one class against the rest.
    """
    tallies = _Tallies.of(targets, predictions, _two_or_more(groups), np.zeros(len(targets)), num_classes)
    per_class = tallies.weighted(np.ones((1, 1))).differences()[0]
    return EqualisedOdds(
        float(ranking.mean_known(per_class)), per_class, tuple(np.flatnonzero(np.isnan(per_class)).tolist())
    )


def resampled_equalised_odds(
    targets: np.ndarray,
    predictions: np.ndarray,
    groups: RowLabels,
    resamples: resampling.Resamples,
    *,
    num_classes: int,
) -> np.ndarray:  # [N], [N], [N] -> [R]
    """The mean over classes on each resample of the clusters."""
    tallies = _Tallies.of(targets, predictions, _two_or_more(groups), resamples.cluster_of_row, num_classes)
    return ranking.mean_known(tallies.weighted(resamples.counts).differences())


def permuted_equalised_odds(
    targets: np.ndarray,
    predictions: np.ndarray,
    groups: RowLabels,
    clusters: RowLabels,
    *,
    num_classes: int,
    num_permutations: int = 1000,
    seed: int = 0,
) -> np.ndarray:  # [N], [N], [N], [N] -> [R]
    """The mean over classes when people swap their groups: what a model without regard to the groups would show.

    Args:
        clusters: The person of each row.

    Raises:
        UserError: A person of two groups.
    """
    people, person = np.unique(np.asarray(clusters), return_inverse=True)
    names, group = np.unique(_two_or_more(groups), return_inverse=True)
    group_of_person = np.zeros(len(people), dtype=np.intp)
    group_of_person[person] = group
    if len(mixed := people[np.unique(person[group_of_person[person] != group])]):
        raise UserError(mixed[0], "is in two groups", "give each person one")
    lenders = resampling.cluster_permutations(clusters, num_permutations=num_permutations, seed=seed)
    member = group_of_person[lenders][:, None] == np.arange(len(names))[:, None]  # [R, G, people]
    alone = _Tallies.of(targets, predictions, np.zeros(len(group)), clusters, num_classes)
    return ranking.mean_known(alone.shared_out(member.astype(np.float64)).differences())


@dataclass(frozen=True)
class _Tallies:
    """Rows of each class by group and cluster, [G, K, C]; weighted, K has become R and stands first."""

    actual: np.ndarray
    predicted: np.ndarray
    hit: np.ndarray

    @classmethod
    def of(
        cls,
        targets: np.ndarray,
        predictions: np.ndarray,
        groups: RowLabels,
        clusters: RowLabels,
        num_classes: int,
    ):
        cells = [np.unique(np.asarray(labels), return_inverse=True)[1] for labels in (groups, clusters)]
        shape = (cells[0].max() + 1, cells[1].max() + 1, num_classes)
        targets, predictions = np.asarray(targets), np.asarray(predictions)

        def tally(classes: np.ndarray, rows: np.ndarray) -> np.ndarray:  # [N] -> [G, K, C]
            index = np.ravel_multi_index((cells[0][rows], cells[1][rows], classes[rows]), shape)
            return np.bincount(index, minlength=np.prod(shape)).reshape(shape).astype(np.float64)

        every = np.ones(len(targets), dtype=bool)
        return cls(tally(targets, every), tally(predictions, every), tally(targets, targets == predictions))

    def weighted(self, counts: np.ndarray) -> _Tallies:  # [R, K] -> tallies [R, G, C]
        """Each cluster as often as it was drawn."""
        return _Tallies(*(np.tensordot(counts, t, (1, 1)) for t in (self.actual, self.predicted, self.hit)))

    def shared_out(self, member: np.ndarray) -> _Tallies:  # [R, G, K] -> tallies [R, G, C]
        """The clusters of a single group dealt to new groups."""
        return _Tallies(*(member @ t[0] for t in (self.actual, self.predicted, self.hit)))

    def differences(self) -> np.ndarray:  # of tallies [R, G, C] -> [R, C]
        negatives = self.actual.sum(axis=-1, keepdims=True) - self.actual
        rates = (_share(self.hit, self.actual), _share(self.predicted - self.hit, negatives))
        spans = [rate.max(axis=-2) - rate.min(axis=-2) for rate in rates]
        return np.maximum(*spans)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:  # any equal shapes
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _by_group(values: np.ndarray, groups: RowLabels) -> np.ndarray:  # [N], [N] -> [N, G]
    """Each group's values in a column of its own, NaN elsewhere."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    values = np.asarray(values, dtype=np.float64)
    return np.where(group[:, None] == np.arange(len(names)), values[:, None], np.nan)


def _two_or_more(groups: RowLabels) -> np.ndarray:
    names = np.unique(np.asarray(groups))
    if len(names) < 2:
        raise UserError("groups", f"there is {len(names)} group, a comparison takes two", "check the group labels")
    return np.asarray(groups)
