"""Gates: whether attackers beat chance where they must, and don't where they mustn't; or that so few can't decide.

The test is by permutation of labels between test subjects. Of few subjects there are few permutations, so that even an
attacker without an error can't be distinguished from luck: 4 of 8 subjects can be picked in 70 ways, and p is 1/70 at
least. Then the gate is undecided, which is neither passed nor failed, and it names the number of subjects that is
needed. That follows from the labels alone, before anything is trained (`power_of`).

Shapes: N rows, A attributes, G subjects, R permutations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from splavu import metrics
from splavu.attacks.campaign import Attack, draws

LUCK = 0.005
"""Share of permutations of the test subjects' labels that may score as high before a cMAP counts as chance. It is less
than usual: faults of an evaluation raise cMAP by tens of points, and a sound one should rarely fail."""

SWAP_GAIN = 0.04
"""How far attackers trained on permuted labels may exceed the mean over permutations of the test subjects' labels, in
cMAP. Which labels the training subjects get adds variance that the test subjects don't show: in 100 simulated
evaluations (100 training and 50 test subjects, 7 attributes, 3 seeds) the excess had mean 0.004 and standard deviation
0.013."""

NUM_SWAPS = 1000
"""Permutations of the test subjects' labels, all of them where there are no more; resolves LUCK."""

ONE_CLASS = 0.05
"""Share of resamples of subjects that may lack a class before a 95 % interval has no end."""

MOST_NEEDED = 10_000
"""Test subjects; where these wouldn't do, no number is named."""

GateState = Literal["passed", "failed", "undecided"]
GATE_FAILED, UNDECIDED = 3, 4
"""Exit codes."""


@dataclass(frozen=True)
class Power:
    """What a gate can decide with these test subjects."""

    subjects: int
    least_p: float
    """p of an attacker without an error: 1 / number of labellings that permutations give."""
    one_class: float
    """Share of resamples of subjects in which the best attribute has one class only."""
    needed: int | None
    """The smallest number of test subjects, of the same shares of labels, that can decide; None above `MOST_NEEDED`."""

    @property
    def decides(self) -> bool:
        return _decides(self.least_p, self.one_class)

    def __str__(self) -> str:
        count = (
            "no number of subjects with such labels can decide" if self.needed is None else f"{self.needed} can decide"
        )
        if self.decides:
            return count
        why = f"p can't be below {self.least_p:.2g}" if self.least_p > LUCK else "a class has too few of them"
        return f"{self.subjects} test subjects are too few ({why}): {count}"


def power_of(labels: np.ndarray, clusters: np.ndarray, videos: np.ndarray) -> Power:  # [N, A], [N], [N]
    """What test subjects with these labels can decide, whatever the attackers.

    With c_k subjects of each labelling k (all rows of a subject taken together) there are G! / (c_1! c_2! ...)
    permutations that differ. A resample of G subjects lacks a class with probability q^G, q the share of subjects that
    have no row of it.
    """
    labels = labels[:, ~np.isnan(metrics.average_precisions(labels, np.zeros_like(labels)))]
    kinds = _kinds(labels, clusters, videos)
    counts = Counter(kinds)
    alike = [count for kind, count in counts.items() if count > 1 or not isinstance(kind[0], tuple)]
    _, subject = np.unique(clusters, return_inverse=True)
    lacking = [
        [1 - len(np.unique(subject[column == value])) / len(kinds) for value in (0, 1)] for column in labels.T
    ]  # [A, 2] share of subjects without a row of the class

    def found(size: int) -> tuple[float, float]:
        scaled = _apportioned([*alike, len(kinds) - sum(alike)], size)[:-1]  # the last have labels like nobody else's
        return math.exp(_log_share(scaled, size)), min(
            (sum(share**size for share in of) for of in lacking), default=1.0
        )

    needed = next((size for size in range(2, MOST_NEEDED) if _decides(*found(size))), None)
    return Power(len(kinds), *found(len(kinds)), needed)


def _decides(least_p: float, one_class: float) -> bool:
    return least_p <= LUCK and one_class <= ONE_CLASS


def gate(view: str, claim: str, attack: Attack, expected: bool, num_resamples: int) -> dict[str, Any]:
    """Whether the strongest attackers beat chance, against whether they should.

    They do when the lower end of the 95% interval of cMAP - prevalence is above 0 and at most a share LUCK of the
    permutations of the test subjects' labels gives as high a cMAP; where they should not, by more than SWAP_GAIN. With
    too few subjects to decide, the state is 'undecided' and `passed` None.
    """
    share = np.where(np.isnan(attack.precision), np.nan, metrics.prevalences(attack.labels))
    observed = float(metrics.mean_known(attack.precision))
    resamples, seed_weights = draws(attack, num_resamples)
    drawn = attack.resampled(resamples, seed_weights)
    drawn_share = np.where(np.isnan(drawn), np.nan, metrics.resampled_prevalences(attack.labels, resamples))
    interval = metrics.percentile_interval(metrics.mean_known(drawn) - metrics.mean_known(drawn_share))
    swaps, complete = label_permutations(attack.labels, attack.clusters, attack.videos)
    of_seed = [metrics.permuted_average_precisions(attack.labels, s, swaps) for s in attack.chosen_scores]
    null = metrics.mean_known(np.mean(of_seed, axis=0))  # [R]
    as_high = int(np.sum(null >= observed - 1e-12))
    luck = as_high / len(null) if complete else (1 + as_high) / (1 + len(null))
    beats = bool(interval[0] > 0 and luck <= LUCK)
    if not expected:
        beats = beats and observed - float(null.mean()) > SWAP_GAIN
    power = power_of(attack.labels, attack.clusters, attack.videos)
    state: GateState = "undecided" if not (power.decides or beats) else "passed" if beats is expected else "failed"
    return {
        "view": view,
        "claim": claim,
        "state": state,
        "passed": {"passed": True, "failed": False, "undecided": None}[state],
        "cmap": observed,
        "chance": float(metrics.mean_known(share)),
        "above_chance_interval": interval.tolist(),
        "swapped_test_labels_mean": float(null.mean()),
        "swapped_test_labels_p": float(luck),
        "least_p": power.least_p,
        "subjects": power.subjects,
        "subjects_needed": power.needed,
    }


def state_of(found: Mapping[str, Any]) -> str:
    """The state of a gate; also of results that were stored before there were states."""
    return found.get("state") or ("passed" if found["passed"] else "failed")


def exit_code(states: Iterable[str]) -> int:
    """3 if a gate failed, 4 if one is undecided, else 0."""
    states = set(states)
    return GATE_FAILED if "failed" in states else UNDECIDED if "undecided" in states else 0


def in_words(found: Mapping[str, Any]) -> str:
    """The state of a gate, loud where it isn't passed."""
    state = state_of(found)
    return state if state == "passed" else state.upper()


def objections(gates: Sequence[Mapping[str, Any]]) -> str:
    """Why the numbers beside these gates prove nothing; empty where all passed."""
    lines = []
    for state, what in (("failed", "not valid, a gate failed"), ("undecided", "undecided, too few test subjects")):
        if claims := [f"{g['view']}: {g['claim']}" for g in gates if state_of(g) == state]:
            lines.append(f"{what} ({'; '.join(claims)}): don't rely on these numbers")
    return "\n".join(lines)


def numbers_in_words(found: Mapping[str, Any]) -> str:
    """What a gate of `gate` measured: cMAP, chance, p and the number of subjects that is needed."""
    text = f"cMAP {_percent(found['cmap'])}, chance {_percent(found['chance'])}"
    if "subjects" not in found:
        return text
    needed = found["subjects_needed"]
    number = "no number can decide" if needed is None else f"{needed} can decide"
    return f"{text}, p {found['swapped_test_labels_p']:.2g}; {found['subjects']} test subjects, {number}"


def label_permutations(
    labels: np.ndarray, clusters: np.ndarray, videos: np.ndarray
) -> tuple[np.ndarray, bool]:  # [N, A], [N], [N] -> [R, N]
    """Permutations of subjects as `metrics.permuted_rows` gives them; whether they are all that differ, each once.

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero", on p from all permutations and from a
    draw of them.
    """
    kinds = _kinds(labels, clusters, videos)
    if -_log_share(Counter(kinds).values(), len(kinds)) > math.log(NUM_SWAPS + 0.5):
        return metrics.permuted_rows(clusters, videos, num_permutations=NUM_SWAPS, seed=1), False
    place = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    numbers = np.array([place[kind] for kind in kinds])
    having = np.argsort(numbers, kind="stable")  # subjects, by what they lend
    lenders = []
    for arrangement in _arrangements(np.sort(numbers).tolist()):
        borrowing = np.argsort(arrangement, kind="stable")
        lenders.append(having[np.argsort(borrowing)])
    return metrics.permute_cluster_labels(clusters, videos, np.array(lenders)), True


def _arrangements(current: list[int]) -> Iterator[list[int]]:
    """All orders of sorted numbers that differ, in the order of a dictionary."""
    current = list(current)
    while True:
        yield list(current)
        place = next((i for i in range(len(current) - 2, -1, -1) if current[i] < current[i + 1]), None)
        if place is None:
            return
        larger = next(j for j in range(len(current) - 1, place, -1) if current[j] > current[place])
        current[place], current[larger] = current[larger], current[place]
        current[place + 1 :] = current[:place:-1]


def _log_share(counts: Iterable[int], total: int) -> float:
    """Logarithm of c_1! c_2! ... / total!."""
    return sum(math.lgamma(count + 1) for count in counts) - math.lgamma(total + 1)


def _kinds(labels: np.ndarray, clusters: np.ndarray, videos: np.ndarray) -> list[Any]:  # -> G
    """What a subject lends, in sort order of subjects: equal where exchanging two subjects changes no label."""
    order = np.lexsort((videos, clusters))
    _, starts = np.unique(np.asarray(clusters)[order], return_index=True)
    kinds = []
    for rows in np.split(order, starts[1:]):
        of_rows = [tuple(None if np.isnan(value) else float(value) for value in row) for row in labels[rows]]
        _, video = np.unique(np.asarray(videos)[rows], return_inverse=True)
        kinds.append(of_rows[0] if len(set(of_rows)) == 1 else (tuple(video.tolist()), tuple(of_rows)))
    return kinds


def _apportioned(counts: Sequence[int], size: int) -> list[int]:
    """Whole numbers in the proportion of `counts` that sum to `size`, by largest remainders."""
    exact = np.array(counts) * size / sum(counts)
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: size - whole.sum()]] += 1
    return whole.tolist()


def _percent(share: float | None) -> str:
    return "-" if share is None or share != share else f"{100 * share:.1f}"
