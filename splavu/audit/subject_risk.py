"""The worst-protected subjects: how well attackers read each test subject, beside what luck gives.

A mean hides the subject who is read best. A subject's risk here is a mean of ranks: the share of others who were ranked
on the wrong side of the subject's own label (those without the attribute ranked below a subject who has it, and the
other way round), averaged over the subject's clips, over questions and attributes. 0.5 is chance, 1 is read without
doubt. Averaged over all subjects of one label it is the AUC, so this is the AUC, subject by subject.

Note: of many subjects the largest risk is far above 0.5 by luck alone, the more so the fewer labels each has. So every
quantile stands beside the same quantile under permuted labels, and a subject counts as beyond luck only above what the
largest of all subjects reaches in 95 % of permutations: where there is nothing to read, no subject is beyond luck in
95 % of audits.

Source: placement values, DeLong, DeLong and Clarke-Pearson 1988; that error rates of recognition differ between
subjects and a few are recognised best, Doddington et al. 1998; that privacy is not an average, Carlini et al. 2022.

Shapes: n units, S seeds, Q questions, G subjects, R permutations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.audit.questions import Questions

SHARES = {"median": 0.5, "p90": 0.9, "max": 1.0}
"""Quantiles over subjects."""
LUCK = 0.05
"""Share of permutations whose largest subject may lie beyond what counts as luck."""
CELLS = 4_000_000
"""Permutations times units that are held at once; with many seeds or units there are fewer permutations, `FEWEST`."""
FEWEST = 200


@dataclass(frozen=True)
class SubjectRisk:
    """Each subject's risk, and what it is when subjects swap their labels."""

    subjects: np.ndarray
    """[G] names; without those who can't be judged."""
    risk: np.ndarray
    """[G] from 0 to 1, chance 0.5."""
    null: np.ndarray
    """[R, G]"""

    @property
    def threshold(self) -> float:
        """What the largest of these subjects reaches by luck, in all but `LUCK` of the permutations."""
        return float(np.quantile(self.null.max(axis=1), 1 - LUCK))

    def record(self) -> dict[str, Any]:
        """Quantiles over subjects with their luck, and who lies beyond, for the evidence."""
        found: dict[str, Any] = {"subjects": len(self.subjects)}
        if not len(self.subjects):
            return found
        for name, share in SHARES.items():
            null = np.quantile(self.null, share, axis=1)
            found[name] = {"value": float(np.quantile(self.risk, share)), "luck": float(null.mean())}
        largest = self.null.max(axis=1)
        beyond = [g for g in np.argsort(-self.risk, kind="stable") if self.risk[g] > self.threshold]
        return found | {
            "threshold": self.threshold,
            "p": float((1 + np.sum(largest >= self.risk.max())) / (1 + len(largest))),
            "beyond_luck": len(beyond),
            "who": [{"subject": str(self.subjects[g]), "risk": float(self.risk[g])} for g in beyond],
        }


def attribute_risk(
    labels: np.ndarray,
    scores: np.ndarray,
    clusters: np.ndarray,
    videos: np.ndarray,
    questions: Questions,
    *,
    num_permutations: int = 1000,
) -> SubjectRisk:  # [n, Q], [S, n, Q], [n], [n]
    """Risk by the attackers' scores. Luck: whole subjects swap their labels, all questions together."""
    names, subject = np.unique(clusters, return_inverse=True)
    step = max(1, CELLS // max(1, len(labels)))
    num_permutations = min(num_permutations, max(FEWEST, step // len(scores)))
    own = _of_subjects(labels, scores, np.arange(len(labels))[None], subject, questions)[0]
    blocks = []
    for start in range(0, num_permutations, step):
        count = min(step, num_permutations - start)
        swaps = metrics.permuted_rows(clusters, videos, num_permutations=count, seed=1 + start)
        blocks.append(_of_subjects(labels, scores, swaps, subject, questions))
    null = np.concatenate(blocks)
    known = ~np.isnan(own)
    return SubjectRisk(names[known], own[known], np.where(np.isnan(null), 0.5, null)[:, known])


def linkage_risk(
    similarity: np.ndarray,
    people: tuple[np.ndarray, np.ndarray],
    videos: tuple[np.ndarray, np.ndarray],
    *,
    num_permutations: int = 1000,
) -> tuple[SubjectRisk, dict[str, float]]:  # [P, N], of gallery [N] and probes [P], likewise
    """Risk by linking: of others' videos, the share that is less similar to a subject's video than its mates are.

    Luck: videos are dealt to subjects again, as many each; where identity can't be seen, they are interchangeable.

    Args:
        similarity: Of probes and gallery.
        people: Subjects of the gallery's rows and of the probes.
        videos: Names; rows of one video do not meet.

    Returns:
        The risk, and by name: `found_first`, the number of subjects of whose videos at least half have a mate as their
        nearest one, and `found_first_by_luck`.
    """
    names, of_row = np.unique(np.concatenate(videos), return_inverse=True)
    gallery, probes = np.split(of_row, [len(videos[0])])
    subjects, person_of_row = np.unique(np.concatenate(people), return_inverse=True)
    person = np.empty(len(names), dtype=np.intp)
    person[of_row] = person_of_row
    met = probes[:, None] != gallery[None]
    below, nearest = _rank_matrices(np.where(met, similarity, -np.inf), met)
    dealt = np.random.default_rng(1).permuted(np.tile(person, (num_permutations, 1)), axis=1)
    placed, first = zip(
        *(_linked(below, nearest, met, of[gallery], of[probes], len(subjects)) for of in (person, *dealt)), strict=True
    )
    linked = ~np.isnan(placed[0])  # those with two videos
    null, null_first = np.stack(placed[1:])[:, linked], np.stack(first[1:])[:, linked]
    return SubjectRisk(subjects[linked], placed[0][linked], np.where(np.isnan(null), 0.5, null)), {
        "found_first": int((first[0][linked] >= 0.5).sum()),
        "found_first_by_luck": float((null_first >= 0.5).sum(axis=1).mean()),
    }


def _of_subjects(
    labels: np.ndarray, scores: np.ndarray, swaps: np.ndarray, subject: np.ndarray, questions: Questions
) -> np.ndarray:  # [n, Q], [S, n, Q], [R, n], [n] -> [R, G]
    """Mean placement of each subject; NaN where none of its labels is known."""
    member = np.zeros((len(subject), subject.max() + 1), dtype=np.float32)
    member[np.arange(len(subject)), subject] = 1
    per_question = []
    for q in range(labels.shape[1]):
        of_seed = scores[:1, :, q] if (scores[..., q] == scores[0, :, q]).all() else scores[..., q]
        total, count = 0.0, 0.0
        for one in of_seed:
            order = np.argsort(one, kind="stable")
            starts = np.flatnonzero(np.append(True, np.diff(one[order]) != 0))
            placed, known = _placements(labels[:, q].astype(np.float32)[swaps[:, order]], starts)
            total, count = total + placed @ member[order], count + known @ member[order]
        per_question.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return metrics.mean_known(questions.mean(np.stack(per_question, axis=-1).astype(np.float64)))


def _placements(labels: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [R, n], [g] -> [R, n] twice
    """Share of the other label's units on the right side of each unit, ties counting half, and whether there is one.

    Args:
        labels: Of the units from the lowest score up, float32.
        starts: Where each run of equal scores starts.
    """
    positive, negative = ((labels == label).astype(np.float32) for label in (1, 0))

    def shares_below(is_one: np.ndarray) -> np.ndarray:  # [R, n] -> [R, n]; 0 where there is no such unit
        if len(starts) == is_one.shape[1]:
            below = np.cumsum(is_one, axis=1)  # a unit's own label is the other one
        else:
            sizes = np.add.reduceat(is_one, starts, axis=1)
            below = np.cumsum(sizes, axis=1) - sizes / 2
            below = np.repeat(below, np.diff(starts, append=is_one.shape[1]), axis=1)
        return below / np.maximum(is_one.sum(axis=1, keepdims=True), 1)

    known = positive * negative.any(axis=1, keepdims=True) + negative * positive.any(axis=1, keepdims=True)
    return known * (positive * shares_below(negative) + negative * (1 - shares_below(positive))), known


def _rank_matrices(similarity: np.ndarray, met: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [P, N] -> twice
    """For each probe, how many of those it met lie below each (ties half), and each one's share of the first place."""
    below, nearest = np.zeros_like(similarity), np.zeros_like(similarity)
    for p, scores in enumerate(similarity):
        ordered = np.sort(scores[met[p]])
        if len(ordered):
            at_most = np.searchsorted(ordered, scores, "right")
            below[p] = np.where(met[p], (np.searchsorted(ordered, scores, "left") + at_most - 1) / 2, 0.0)
            best = met[p] & (scores == ordered[-1])
            nearest[p] = best / best.sum()
    return below, nearest


def _linked(
    below: np.ndarray, nearest: np.ndarray, met: np.ndarray, gallery: np.ndarray, probes: np.ndarray, num_people: int
) -> tuple[np.ndarray, np.ndarray]:  # [P, N] thrice, [N], [P] -> [G], [G]
    """Of each subject's probes, the mean placement of their mates among strangers, and the share found first."""
    placed, first = np.full(num_people, np.nan), np.full(num_people, np.nan)
    own_rows, own_columns = (_members(of, num_people) for of in (probes, gallery))
    num_met = met.sum(axis=1)
    for g, (rows, columns) in enumerate(zip(own_rows, own_columns, strict=True)):
        block = np.ix_(rows, columns)
        mates = met[block].sum(axis=1)
        strangers = num_met[rows] - mates
        kept = (mates > 0) & (strangers > 0)
        if kept.any():
            # mates lie below mates too, however they are ordered: 0 + 1 + ... of them
            strange = below[block].sum(axis=1)[kept] - (mates * (mates - 1) / 2)[kept]
            placed[g] = np.mean(strange / (mates * strangers)[kept])
            first[g] = nearest[block].sum(axis=1)[kept].mean()
    return placed, first


def _members(of: np.ndarray, num_people: int) -> list[np.ndarray]:
    order = np.argsort(of, kind="stable")
    return np.split(order, np.searchsorted(of[order], np.arange(1, num_people)))
