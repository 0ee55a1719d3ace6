"""Attacks: attackers trained on some people, tuned on others, their scores on a third group kept to be judged.

Everything that is compared is judged on the same draws of subjects: average precision, chance and leakage of raw and of
anonymized features.

Note: the strongest attacker of an attribute is an ensemble, chosen on validation subjects for raw and for anonymized
features separately (`splavu.attacks.ensemble`); beside it stands the single attacker with the best validation average
precision. The best on the test subjects would be a biased choice.

Shapes: S seeds, M attackers, n judged rows (features or videos), v rows that the choice is made on, A attributes, R
resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from splavu import metrics
from splavu.attackers import ATTACKERS
from splavu.attacks.ensemble import ensemble_weights, standardised
from splavu.attacks.rows import AttackData, Rows

Level = Literal["row", "video"]


@dataclass(frozen=True)
class Scored:
    """Scores of all attackers on the people that the choice between them is made on."""

    labels: np.ndarray
    """[v, A]; [S, v, A] where seeds choose on different labels."""
    clusters: np.ndarray
    """[v]"""
    videos: np.ndarray
    """[v]"""
    scores: np.ndarray
    """[S, M, v, A]"""

    @property
    def labels_of_seed(self) -> np.ndarray:  # [S, v, A]
        return np.broadcast_to(self.labels, (len(self.scores), *self.labels.shape[-2:]))


@dataclass(frozen=True)
class Exposure:
    """What trained attackers are shown, whether or not they were trained on that kind."""

    validation: Rows
    """To choose between attackers."""
    test: Rows


@dataclass(frozen=True)
class Attack:
    """All attackers on one representation of one view, or of one fold."""

    attackers: tuple[str, ...]
    labels: np.ndarray
    """[n, A] of the test."""
    clusters: np.ndarray
    """[n] the person of each row."""
    videos: np.ndarray
    """[n]"""
    scores: np.ndarray
    """[S, M, n, A] on the test."""
    validation: np.ndarray
    """[S, M, A] average precision on validation units."""
    tuned: Scored | None = None
    """What the choice is made on; None where folds were pooled, of a single attacker then."""
    chosen: np.ndarray | None = None
    """[M, A] shares of the attackers, where they are given; else `weights` chooses them."""

    @cached_property
    def weights(self) -> np.ndarray:  # [M, A]
        """Share of each attacker in the ensemble that counts as the strongest, chosen on validation subjects."""
        if self.chosen is not None:
            return self.chosen
        if self.tuned is None:
            return np.ones((1, self.labels.shape[1]))
        labels, scores = self.tuned.labels_of_seed, standardised(self.tuned.scores, self.tuned.scores)
        columns = range(self.labels.shape[1])
        return np.stack([ensemble_weights(labels[..., a], self.tuned.clusters, scores[..., a]) for a in columns], 1)

    @property
    def best(self) -> np.ndarray:  # [A]
        """Index of the attacker with the best validation average precision; the first where none could be judged."""
        return np.argmax(np.nan_to_num(metrics.mean_known(np.moveaxis(self.validation, 0, -1)), nan=-1.0), axis=0)

    @property
    def single(self) -> Attack:
        """The same attack, of which the best attacker alone counts."""
        return replace(self, chosen=np.eye(len(self.attackers))[self.best].T)

    def members(self, attribute: int | np.ndarray) -> dict[str, float]:
        """Attackers of an attribute's ensemble and their shares, the largest first; over several columns their mean."""
        shares = self.weights[:, np.atleast_1d(attribute)].mean(axis=1)
        return {self.attackers[m]: float(shares[m]) for m in np.argsort(-shares, kind="stable") if shares[m] > 0}

    def label(self, attribute: int | np.ndarray) -> str:
        """What counts as the strongest attacker of an attribute, for a table."""
        members = list(self.members(attribute))
        return members[0] if len(members) == 1 else f"mean of {len(members)}, most of it {members[0]}"

    @cached_property
    def chosen_scores(self) -> np.ndarray:  # [S, n, A]
        return self._combined(self.scores)

    @cached_property
    def chosen_tuned(self) -> np.ndarray:  # [S, v, A]
        """The same on validation units, for thresholds and calibration."""
        return self._combined(self.tuned.scores)

    def _combined(self, scores: np.ndarray) -> np.ndarray:  # [S, M, n, A] -> [S, n, A]
        """One attacker's own scores, or the weighted mean of standardised ones."""
        columns = []
        for a, shares in enumerate(self.weights.T):
            members = np.flatnonzero(shares)
            taken = scores[..., a][:, members]  # [S, members, n]
            if len(members) > 1:
                tuned = self.tuned.scores[..., a][:, members]
                taken = shares[members, None] * standardised(taken[..., None], tuned[..., None])[..., 0]
            columns.append(taken.sum(axis=1))
        return np.stack(columns, axis=-1)

    @property
    def precision(self) -> np.ndarray:  # [A]
        """Test average precision of the strongest attackers, mean over seeds."""
        return np.mean([metrics.average_precisions(self.labels, scores) for scores in self.chosen_scores], axis=0)

    def resampled(self, resamples: metrics.Resamples, seed_weights: np.ndarray) -> np.ndarray:  # [R, S] -> [R, A]
        """Test average precision on draws of subjects and seeds."""
        of_seed = [metrics.resampled_average_precisions(self.labels, s, resamples) for s in self.chosen_scores]
        return np.einsum("rs,sra->ra", seed_weights, np.stack(of_seed))

    def of(self, attributes: np.ndarray) -> Attack:  # [a] of indices
        """The same attack on some of the attributes."""
        tuned = self.tuned
        if tuned is not None:
            tuned = replace(tuned, labels=tuned.labels[..., attributes], scores=tuned.scores[..., attributes])
        return replace(
            self,
            labels=self.labels[:, attributes],
            scores=self.scores[..., attributes],
            validation=self.validation[..., attributes],
            tuned=tuned,
            chosen=self.weights[:, attributes],
        )

    def table(self) -> dict[str, Any]:
        """Every attacker's average precision for each attribute. The test column is for diagnosis, not for choosing."""
        test = np.array([[metrics.average_precisions(self.labels, s) for s in of_seed] for of_seed in self.scores])
        means = {"validation": self.validation.mean(axis=0), "test_diagnostic": test.mean(axis=0)}
        return {
            name: {column: values[place].tolist() for column, values in means.items()}
            for place, name in enumerate(self.attackers)
        }


@dataclass(frozen=True)
class Campaign:
    """The options that all attacks of an evaluation share."""

    attackers: tuple[str, ...]
    seeds: tuple[int, ...]
    max_train_rows: int
    level: Level
    device: torch.device | str
    progress: tqdm
    executor: Executor | None = None
    """Trains several attackers at once, in processes: attackers seed torch's own generator. None: one by one, here."""

    def run(self, data_of_seed: Sequence[AttackData]) -> Attack:
        """Train every attacker for every seed, on that seed's data; all have the same test rows."""
        shown = Exposure(data_of_seed[0].validation, data_of_seed[0].test)
        return self.run_on(data_of_seed, {"own": shown}, chosen_on=[data.validation for data in data_of_seed])["own"]

    def run_together(self, data_of_seed: Sequence[AttackData]) -> Attack:
        """The same where seeds differ in labels alone: every attacker is trained once, with the first seed, on the
        labels of all of them side by side, and what it scores counts for each seed apart. Costs little more than a
        single seed."""

        def beside(split: str) -> Rows:
            rows = [data.splits[split] for data in data_of_seed]
            return replace(rows[0], labels=np.concatenate([one.labels for one in rows], axis=1))

        def apart(values: np.ndarray) -> np.ndarray:  # [..., S A] -> [S, ..., A]
            return np.stack(np.split(values, len(data_of_seed), axis=-1))

        data = AttackData(beside("train"), beside("validation"), beside("test"))
        attack = replace(self, seeds=self.seeds[:1]).run([data])
        tuned = replace(attack.tuned, labels=apart(attack.tuned.labels), scores=apart(attack.tuned.scores[0]))
        return replace(
            attack,
            labels=apart(attack.labels)[0],
            scores=apart(attack.scores[0]),
            validation=apart(attack.validation[0]),
            tuned=tuned,
        )

    def run_on(
        self,
        data_of_seed: Sequence[AttackData],
        exposures: Mapping[str, Exposure],
        *,
        chosen_on: Sequence[Rows] | None = None,
    ) -> dict[str, Attack]:
        """The same attackers, trained once, on what each of `exposures` shows them.

        Args:
            data_of_seed: What to learn from and to tune on; its test rows are not read.
            exposures: Name -> rows of the same width.
            chosen_on: Each seed's own validation rows, where labels differ from seed to seed.
        """
        keys = [
            [self._key(name, seed, data) for name in self.attackers]
            for seed, data in zip(self.seeds, data_of_seed, strict=True)
        ]
        jobs: dict[_Key, _Job] = {}
        for number, (seed, data) in enumerate(zip(self.seeds, data_of_seed, strict=True)):
            for name, key in zip(self.attackers, keys[number], strict=True):
                if key in jobs:  # an attacker that seeds leave as it is
                    self.progress.update()
                    continue
                shown = [(chosen_on[number] if chosen_on else e.validation, e.test) for e in exposures.values()]
                jobs[key] = _Job(name, seed, data.train, data.validation, shown, self.max_train_rows, self.device)
        found: dict[_Key, list[tuple[np.ndarray, np.ndarray]]] = {}
        for key, scores in zip(
            jobs, (self.executor.map if self.executor else map)(_scores_of, jobs.values()), strict=True
        ):
            found[key] = scores
            self.progress.update()
        attacks = {}
        for index, (name, exposure) in enumerate(exposures.items()):
            scores = [[found[key][index] for key in of_seed] for of_seed in keys]
            attacks[name] = self._attack(scores, exposure.test, chosen_on or [exposure.validation] * len(self.seeds))
        return attacks

    def _key(self, name: str, seed: int, data: AttackData) -> _Key:
        """What decides how an attacker comes out: its data alone, or its seed."""
        thinned = len(data.train) > self.max_train_rows
        return (name, id(data)) if not (ATTACKERS[name].stochastic or thinned) else (name, -1 - seed)

    def _attack(
        self, scores: list[list[tuple[np.ndarray, np.ndarray]]], test: Rows, chosen_on: Sequence[Rows]
    ) -> Attack:  # [S][M] pairs of [v, A] and [n, A]
        tuned = [
            [_of_units(pair[0], rows, self.level) for pair in of_seed]
            for of_seed, rows in zip(scores, chosen_on, strict=True)
        ]
        units = [judged_units(rows, self.level) for rows in chosen_on]
        labels = np.stack([labels for labels, _, _ in units])
        same = all(rows is chosen_on[0] for rows in chosen_on)
        precision = [
            [metrics.average_precisions(labels, one) for one in of_seed]
            for (labels, _, _), of_seed in zip(units, tuned, strict=True)
        ]
        return Attack(
            self.attackers,
            *judged_units(test, self.level),
            np.array([[_of_units(pair[1], test, self.level) for pair in of_seed] for of_seed in scores]),
            np.array(precision),
            Scored(labels[0] if same else labels, *units[0][1:], np.array(tuned)),
        )


_Key = tuple[str, int]


@dataclass(frozen=True)
class _Job:
    """One attacker to train, and what it is shown then: pairs of rows to choose on and to test on."""

    name: str
    seed: int
    train: Rows
    validation: Rows
    shown: list[tuple[Rows, Rows]]
    max_train_rows: int
    device: torch.device | str


def _scores_of(job: _Job) -> list[tuple[np.ndarray, np.ndarray]]:  # -> pairs of [N, A], [N, A]
    train = job.train
    if len(train) > job.max_train_rows:
        train = train.take(np.random.default_rng(job.seed).permutation(len(train))[: job.max_train_rows])
    attacker = ATTACKERS[job.name].build(seed=job.seed, device=job.device)
    attacker.fit(train.features, train.labels, (job.validation.features, job.validation.labels))
    return [(attacker.scores(chosen.features), attacker.scores(test.features)) for chosen, test in job.shown]


def joined(attacks: Mapping[str, Attack]) -> Attack:
    """Attacks on the same units as one, whose attackers are called 'attack/attacker'; the first breaks a tie."""
    first = next(iter(attacks.values()))
    tuned = None
    if first.tuned is not None:
        tuned = replace(first.tuned, scores=np.concatenate([a.tuned.scores for a in attacks.values()], axis=1))
    return replace(
        first,
        attackers=tuple(f"{name}/{attacker}" for name, attack in attacks.items() for attacker in attack.attackers),
        scores=np.concatenate([attack.scores for attack in attacks.values()], axis=1),
        validation=np.concatenate([attack.validation for attack in attacks.values()], axis=1),
        tuned=tuned,
        chosen=None,
    )


def judged_units(rows: Rows, level: Level) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # -> [n, A], [n], [n]
    """Labels, clusters and videos of what is judged. A video whose rows disagree gets the label of most of them."""
    if level == "row":
        return rows.labels, rows.clusters, rows.videos
    labels = np.stack(list(metrics.video_scores(rows.labels, rows.videos.tolist()).values()))
    labels = np.where(np.isnan(labels), np.nan, labels >= 0.5)
    videos, first = np.unique(rows.videos, return_index=True)
    cluster_of = dict(zip(videos.tolist(), rows.clusters[first].tolist(), strict=True))
    order = list(dict.fromkeys(rows.videos.tolist()))
    return labels, np.array([cluster_of[video] for video in order]), np.array(order)


def _of_units(scores: np.ndarray, rows: Rows, level: Level) -> np.ndarray:  # [N, A] -> [n, A]
    if level == "row":
        return scores
    return np.stack(list(metrics.video_scores(scores, rows.videos.tolist()).values()))


def judged(attacks: Mapping[str, Attack], attributes: Sequence[str], num_resamples: int) -> dict[str, Any]:
    """Average precision, chance and leakage of each attribute and of their mean, all on the same resamples.

    Args:
        attacks: On 'raw' and, where there is one, 'anonymized'; without it leakage is that of raw features, 1.
        attributes: Names of the columns of the labels.
        num_resamples: Draws of subjects and seeds.

    Returns:
        `attributes` by name, their `mean`, and `left_out`, those of one class only in the test; NaN where undefined.
    """
    raw = attacks["raw"]
    share = np.where(np.isnan(raw.precision), np.nan, metrics.prevalences(raw.labels))
    resamples, seed_weights = draws(raw, num_resamples)
    drawn = {name: attack.resampled(resamples, seed_weights) for name, attack in attacks.items()}  # [R, A]
    single = {name: attack.single.precision for name, attack in attacks.items()}
    drawn_share = np.where(np.isnan(drawn["raw"]), np.nan, metrics.resampled_prevalences(raw.labels, resamples))

    def entry(pick: Callable[[np.ndarray], np.ndarray], attribute: int | None) -> dict[str, Any]:
        result: dict[str, Any] = {"chance": float(pick(share))}
        for name, attack in attacks.items():
            result[name] = {
                "ap": float(pick(attack.precision)),
                "interval": metrics.percentile_interval(pick(drawn[name])).tolist(),
                "single_ap": float(pick(single[name])),
            }
            if attribute is not None:
                result[name]["attacker"] = attack.label(attribute)
                result[name]["members"] = attack.members(attribute)
                result[name]["single"] = attack.attackers[attack.best[attribute]]
        released = "anonymized" if "anonymized" in attacks else "raw"
        point = metrics.normalised_leakage(result[released]["ap"], result["raw"]["ap"], result["chance"])
        leaks = metrics.normalised_leakage(pick(drawn[released]), pick(drawn["raw"]), pick(drawn_share))
        return result | {"leakage": float(point), "leakage_interval": metrics.percentile_interval(leaks).tolist()}

    columns = {name: entry(lambda v, a=a: v[..., a], a) for a, name in enumerate(attributes)}
    left_out = [name for a, name in enumerate(attributes) if np.isnan(raw.precision[a])]
    return {"attributes": columns, "mean": entry(metrics.mean_known, None), "left_out": left_out}


def resampled_leakage(attack: Attack, raw: Attack, num_resamples: int) -> np.ndarray:  # -> [R]
    """Leakage of the mean over attributes on the draws behind `judged`'s interval, for curves of several attacks."""
    resamples, seed_weights = draws(raw, num_resamples)
    drawn = [a.resampled(resamples, seed_weights) for a in (attack, raw)]
    share = np.where(np.isnan(drawn[1]), np.nan, metrics.resampled_prevalences(raw.labels, resamples))
    return metrics.normalised_leakage(*(metrics.mean_known(values) for values in (*drawn, share)))


def draws(attack: Attack, num_resamples: int) -> tuple[metrics.Resamples, np.ndarray]:  # -> R draws, [R, S]
    """Draws of test subjects, and of seeds as weights that sum to 1."""
    resamples = metrics.cluster_resamples(attack.clusters, num_resamples=num_resamples, seed=0)
    return resamples, metrics.seed_weights(len(attack.scores), num_resamples)
