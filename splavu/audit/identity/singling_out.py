"""Singling out, linkability and inference, each against a control group of subjects who were not released.

The three risks by which European data protection judges anonymity, measured as Anonymeter does for synthetic tables: an
attack on released subjects, the same attack on subjects of whom nothing was released, and the difference. Test subjects
are dealt into a released and a control half, many times; of each subject, one part of the videos is what may be
released, the other two are what the attacker knows.

    singling out    a released vector (of a clip, or all of a video) as a predicate: does exactly one subject fit it?
                    Of released subjects at least its owner does; of control subjects, one may by luck
    linkability     two parts of what is known of a person: do both have that person's released part as their nearest?
                    To a control subject the released part of a stranger counts as theirs
    inference       the attribute of the most similar released video is taken for that of a known one

Note: success against the control group is what the release reveals of people in general, which the attacks on
attributes measure. What is left here is about those who are in it.

Shapes: `N` clips, `G` subjects, `V` videos, `D` feature width, `A` attributes.

Source: Giomi et al. 2023, "A unified framework for quantifying privacy risk in synthetic data" (the three risks and the
control group); Cohen and Nissim 2020, "Towards formalizing the GDPR's notion of singling out". Anonymeter itself takes
tables of mixed columns, one row a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.attacks.rows import Rows
from splavu.audit.attributes.units import set_rows
from splavu.audit.identity.similarity import Metric, cosines
from splavu.errors import UserError
from splavu.metrics.estimates import Estimate
from splavu.metrics.residual_risk import residual_risk
from splavu.metrics.vector_owners import distinct_rows

ATTACKS = ("singling out by a clip", "singling out by a video", "linkability", "inference")
NUM_DRAWS = 20
MOST_SUBJECTS, MOST_VIDEOS = 400, 12
"""Subjects, and videos of each; of more, as many are drawn once."""


@dataclass(frozen=True)
class Risk:
    """One attack and its control."""

    attack: float
    """Share of the attacks on released subjects that succeed, mean over subjects."""
    control: float
    """The same against control subjects."""
    risk: Estimate
    """(attack - control) / (1 - control), with a 95 % interval over subjects."""


def release_risks(
    rows: Rows, metric: Metric, *, attributes: Sequence[str] = (), num_draws: int = NUM_DRAWS, seed: int = 0
) -> dict[str, Risk]:
    """Name -> risk: singling out by a clip and by a video, linkability, inference as a mean and by attribute.

    Args:
        rows: Clips of test subjects, as they are released.
        metric: Trained and chosen on other subjects.
        attributes: [A] names of the columns of the labels.
        num_draws: Of released and control subjects, and of what is known of each.
        seed: Of the draws.

    Raises:
        UserError: Fewer than four subjects have three videos.
    """
    generator = np.random.default_rng(seed)
    rows = _thinned(rows, generator)
    subjects = np.unique(rows.clusters)
    if len(subjects) < 4:
        problem = f"{len(subjects)} subjects have three videos"
        raise UserError("singling out", problem, "give four subjects with three videos each")
    world = _World.of(rows, metric)
    names = [*ATTACKS, *(f"inference of {name}" for name in attributes)]
    total = np.zeros((2, len(names), len(subjects)))  # attack and control
    times = np.zeros_like(total)
    for _ in range(num_draws):
        for side, success in enumerate(world.attacked(generator)):
            known = ~np.isnan(success)
            total[side] += np.where(known, success, 0.0)
            times[side] += known
    found = {}
    for place, name in enumerate(names):
        sides = [(total[side, place] / np.maximum(times[side, place], 1))[times[side, place] > 0] for side in (0, 1)]
        if all(map(len, sides)):
            found[name] = Risk(*(float(np.mean(side)) for side in sides), residual_risk(*sides))
    return found


@dataclass(frozen=True)
class _World:
    """Test subjects, numbered; clips stand in the order of their videos."""

    vector: np.ndarray
    """[N] number of each clip's vector."""
    first: np.ndarray
    """[V] each video's first clip."""
    subject: np.ndarray
    """[V]"""
    place: np.ndarray
    """[V, d] mean of a video's clips, as the metric maps it."""
    labels: np.ndarray
    """[V, A]"""

    @classmethod
    def of(cls, rows: Rows, metric: Metric) -> _World:
        rows = rows.take(np.argsort(rows.videos, kind="stable"))
        videos = set_rows(rows, "video")
        return cls(
            distinct_rows(rows.features),
            np.unique(rows.videos, return_index=True)[1],
            np.unique(videos.clusters, return_inverse=True)[1],
            metric.gallery(videos.features),
            videos.labels,
        )

    def attacked(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Success of `ATTACKS`, then of inference by attribute, [4 + A, G] against released and against control
        subjects; NaN where a subject was not on that side."""
        num_subjects = int(self.subject.max()) + 1
        released = generator.permutation(num_subjects) < num_subjects // 2
        part = self._parts(generator)  # 0 may be released, 1 and 2 are known to the attacker
        in_release = (part == 0) & released[self.subject]
        singled = self._singled_out(part == 0, in_release, released)  # [2, 2, G]

        theirs = np.where(released, np.arange(num_subjects), generator.choice(np.flatnonzero(released), num_subjects))
        nearest = [self._nearest_subject(part == side, in_release) for side in (1, 2)]
        linked = ((nearest[0] == theirs) & (nearest[1] == theirs)).astype(np.float64)[None]  # [1, G]
        inferred = self._inferred(part != 0, in_release)  # [A, G]
        by_subject = np.concatenate([linked, metrics.mean_known(inferred.T)[None], inferred])
        return tuple(
            np.concatenate([singled[side], np.where(on_side, by_subject, np.nan)])
            for side, on_side in enumerate((released, ~released))
        )

    def _parts(self, generator: np.random.Generator) -> np.ndarray:  # -> [V] of 0, 1, 2
        """A quarter of each subject's videos, at least one, in part 1, as many in part 2; dealt by their place in the
        sort order, alike for all subjects (see `set_linkage`)."""
        count = np.bincount(self.subject)
        start = np.repeat(np.cumsum(count) - count, count)
        by_subject = np.argsort(self.subject, kind="stable")
        place = np.empty(len(by_subject), dtype=np.intp)
        place[by_subject] = np.arange(len(by_subject)) - start
        order = np.lexsort((generator.random(count.max())[place], self.subject))
        rank = np.empty(len(order), dtype=np.intp)
        rank[order] = np.arange(len(order)) - start
        quarter = np.maximum(1, count // 4)[self.subject]
        return np.where(rank < quarter, 1, np.where(rank < 2 * quarter, 2, 0))

    def _singled_out(self, offered: np.ndarray, in_release: np.ndarray, released: np.ndarray) -> np.ndarray:
        """[V], [V], [G] of bool -> [2, 2, G]: against released and control subjects, by a clip and by a video."""
        clips = np.diff(self.first, append=len(self.vector))  # [V] how many
        has = np.zeros((int(self.vector.max()) + 1, len(released)), dtype=bool)  # [vectors, G]
        has[self.vector[np.repeat(offered, clips)], np.repeat(self.subject, clips)[np.repeat(offered, clips)]] = True
        of_clip = [has[:, group].sum(axis=1)[self.vector] == 1 for group in (released, ~released)]  # each [N]
        fits = np.logical_and.reduceat(has[self.vector], self.first, axis=0)  # [V, G] who has all of a video's vectors
        found = np.empty((2, 2, len(released)))
        for side, group in enumerate((released, ~released)):
            by_clip = np.add.reduceat(of_clip[side].astype(np.float64), self.first) / clips
            by_video = fits[:, group].sum(axis=1) == 1
            found[side] = [self._of_subjects(success, in_release) for success in (by_clip, by_video)]
        return found

    def _nearest_subject(self, known: np.ndarray, in_release: np.ndarray) -> np.ndarray:  # [V], [V] -> [G]
        """The released subject whose released part is most similar to the known part of each subject."""
        probes, gallery = (
            np.stack([self._of_subjects(column, rows) for column in self.place.T], axis=1)
            for rows in (known, in_release)
        )
        in_gallery = np.flatnonzero(~np.isnan(gallery[:, 0]))
        return in_gallery[np.argmax(cosines(probes, gallery[in_gallery]), axis=1)]

    def _inferred(self, known: np.ndarray, in_release: np.ndarray) -> np.ndarray:  # [V], [V] -> [A, G]
        """How often the most similar released video has the label of a known one."""
        nearest = np.flatnonzero(in_release)[np.argmax(cosines(self.place[known], self.place[in_release]), axis=1)]
        own, guess = self.labels[known], self.labels[nearest]
        right = np.full(self.labels.shape, np.nan)
        right[known] = np.where(np.isnan(own) | np.isnan(guess), np.nan, own == guess)
        rows = [self._of_subjects(column, ~np.isnan(column)) for column in right.T]
        return np.array(rows).reshape(len(rows), int(self.subject.max()) + 1)

    def _of_subjects(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:  # [V], [V] of bool -> [G]
        """Mean over the chosen videos of each subject, NaN without one."""
        size = int(self.subject.max()) + 1
        count = np.bincount(self.subject[rows], minlength=size)
        total = np.bincount(self.subject[rows], weights=np.asarray(values, dtype=np.float64)[rows], minlength=size)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _thinned(rows: Rows, generator: np.random.Generator) -> Rows:
    """Subjects with at least three videos, within the caps."""
    videos, first = np.unique(rows.videos, return_index=True)
    subject_of = rows.clusters[first]
    names, counts = np.unique(subject_of, return_counts=True)
    kept: list[str] = []
    for name in generator.permutation(names[counts >= 3])[:MOST_SUBJECTS]:
        kept += generator.permutation(videos[subject_of == name])[:MOST_VIDEOS].tolist()
    return rows.take(np.flatnonzero(np.isin(rows.videos, kept)))
