"""Judges an attack: how much its strongest attackers read, how sure that is, and whether it is chance.

An attribute of several questions (a class, a value) has the mean over its questions, in every statistic and on every
draw: what follows treats attributes of all kinds alike.

Note: everything that is compared is evaluated on the same draws of test subjects and seeds. Raw and released figures of
one unit move together, so the interval of their ratio is much narrower than theirs.

Shapes: S seeds, M attackers, n judged units, Q questions, A attributes, R resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.attacks.campaign import Attack, draws
from splavu.audit.answers import Truth, answered
from splavu.audit.evidence import AttributeResult, Rate, UnitResult
from splavu.audit.questions import Questions
from splavu.audit.subject_risk import SubjectRisk, attribute_risk
from splavu.metrics import inference
from splavu.metrics.estimates import estimated

ALPHA = 0.05
FPRS = (0.01, 0.001)
SWAP_CELLS = 4_000_000
"""Swaps times units that are held at once."""


@dataclass(frozen=True)
class Evaluator:
    """How all attacks of an audit are judged."""

    questions: Questions
    """What the columns of an attack's labels ask, of which attributes."""
    prior: np.ndarray
    """[Q] share of positives among training subjects: what someone without features would bet."""
    num_resamples: int
    num_swaps: int
    margin: float
    """How far from 0.5 an AUC may lie and count as chance."""
    truth: Truth | None = None
    """To say which class and how large a value; None where all attributes are binary."""

    def judged(self, attack: Attack) -> np.ndarray:  # -> [Q] of bool
        """The questions to which the test has both answers, and validation a label."""
        return ~np.isnan(attack.precision) & ~np.isnan(attack.tuned.labels).all(axis=0)

    def evaluate(self, attack: Attack, raw: Attack | None = None, *, beside: bool = False) -> UnitResult:
        """Judge the strongest attacker of each attribute.

        Args:
            attack: On released units, or on raw ones.
            raw: On the same units' raw features, for the leakage.
            beside: As in `evaluate_scored`.
        """
        whole = None if raw is None else AttackScore.of(raw, self)
        return self.evaluate_scored(attack, AttackScore.of(attack, self), whole, beside=beside)

    def evaluate_scored(
        self, attack: Attack, own: AttackScore, whole: AttackScore | None, *, beside: bool = False
    ) -> UnitResult:
        """The same, of an attack and of raw features whose scores are known.

        Args:
            beside: Say which class, how large a value and which subjects are protected worst, too. A value's p is then
                the smaller one of average precision and of Spearman's correlation, doubled: quartiles see less of a
                number than its rank does.
        """
        judged = np.flatnonzero(self.judged(attack))
        questions = self.questions.take(judged)
        names, of = self.questions.attributes, questions.mean
        kept = np.flatnonzero(np.isin(names, questions.attributes))
        attack, own, whole = attack.of(judged), own.only(kept), None if whole is None else whole.only(kept)
        single = attack.single
        resamples, seed_weights = draws(attack, self.num_resamples)
        score_of_seed = attack.chosen_scores
        single_precision = of(single.precision)
        single_drawn = of(_drawn_precisions(single, resamples, seed_weights))

        def over_seeds(function: Callable[..., np.ndarray], *per_seed: Sequence) -> np.ndarray:  # -> [R, Q]
            return _weighted(seed_weights, [function(*arguments) for arguments in zip(*per_seed, strict=True)])

        labels = attack.labels
        auc = of(np.mean([inference.aucs(labels, scores) for scores in score_of_seed], axis=0))
        auc_draws = of(
            _drawn(
                score_of_seed,
                seed_weights,
                lambda column, s: inference.resampled_aucs(labels[:, [column]], s, resamples),
            )
        )
        tuned = list(zip(attack.tuned.labels_of_seed, attack.chosen_tuned, strict=True))
        thresholds = [inference.best_thresholds(known, scores) for known, scores in tuned]
        accuracies = [
            inference.balanced_accuracies(labels, s, t) for s, t in zip(score_of_seed, thresholds, strict=True)
        ]
        accuracy = of(np.mean(accuracies, axis=0))
        accuracy_draws = of(
            over_seeds(
                lambda s, t: inference.resampled_balanced_accuracies(labels, s, t, resamples), score_of_seed, thresholds
            )
        )
        calibrated = [inference.platt_scaling(known, scores) for known, scores in tuned]
        usable = [
            inference.usable_bits(labels, scale(scores), self.prior[judged])
            for scale, scores in zip(calibrated, score_of_seed, strict=True)
        ]
        bits_draws = of(over_seeds(lambda u: metrics.resampled_prevalences(u.per_row, resamples), usable))
        bits, bits_available = of(np.mean([u.raw for u in usable], axis=0)), of(usable[0].prior_bits)
        positives = np.sum(labels > 0, axis=0)
        answers = answered(attack, questions, self.truth, self.num_swaps, resamples, seed_weights) if beside else {}

        p = own.p.copy()
        for a, name in enumerate(questions.attributes):
            if questions.kinds[name] == "value" and name in answers:
                p[a] = min(1.0, 2 * min(p[a], *(measured.p for measured in answers[name])))
        adjusted = inference.holm(p)
        leakage, leakage_draws = own.share_of(whole)
        found = []
        for a, name in enumerate(questions.attributes):
            asked = questions.of(name)
            equivalence = inference.equivalence(auc_draws[:, a], chance=0.5, margin=self.margin)
            found.append(
                AttributeResult(
                    name=name,
                    kind=questions.kinds[name],
                    questions=tuple(questions.names[q] for q in asked),
                    beside=answers.get(name, ()),
                    attacker=attack.label(asked),
                    members=attack.members(asked),
                    single=" and ".join(dict.fromkeys(attack.attackers[m] for m in attack.best[asked])),
                    single_ap=estimated(single_precision[a], single_drawn[:, a], chance=own.chance[a]),
                    prevalence=float(own.share[a]),
                    positives=int(positives[asked].min()),
                    ap=estimated(own.precision[a], own.drawn[:, a], chance=own.chance[a]),
                    auc=estimated(auc[a], auc_draws[:, a], chance=0.5),
                    balanced_accuracy=estimated(accuracy[a], accuracy_draws[:, a], chance=0.5),
                    tpr=tuple(
                        _rate(labels[:, asked], score_of_seed[..., asked], fpr, resamples, seed_weights) for fpr in FPRS
                    ),
                    bits=estimated(bits[a], bits_draws[:, a], chance=0.0),
                    bits_available=float(bits_available[a]),
                    leakage=estimated(leakage[a], leakage_draws[:, a], chance=0.0),
                    p=float(p[a]),
                    p_holm=float(adjusted[a]),
                    equivalence=equivalence,
                    verdict=decision(adjusted[a], equivalence.equivalent),
                )
            )
        mean_draws = metrics.mean_known(auc_draws)
        equivalence = inference.equivalence(mean_draws, chance=0.5, margin=self.margin)
        mean_leakage, mean_leakage_draws = own.share_of(whole, mean=True)
        return UnitResult(
            num_units=len(labels),
            num_people=len(np.unique(attack.clusters)),
            attributes=tuple(found),
            left_out=tuple(name for name in names if name not in questions.attributes),
            cmap=estimated(
                metrics.mean_known(own.precision), metrics.mean_known(own.drawn), chance=metrics.mean_known(own.chance)
            ),
            single_cmap=estimated(
                metrics.mean_known(single_precision),
                metrics.mean_known(single_drawn),
                chance=metrics.mean_known(own.chance),
            ),
            gain=estimated(
                metrics.mean_known(own.precision - single_precision),
                metrics.mean_known(own.drawn - single_drawn),
                chance=0.0,
            ),
            mean_auc=estimated(metrics.mean_known(auc), mean_draws, chance=0.5),
            leakage=estimated(mean_leakage, mean_leakage_draws, chance=0.0),
            equivalence=equivalence,
            verdict=decision(own.mean_p, equivalence.equivalent),
            worst_protected=self._risk(attack, questions).record() if beside else {},
        )

    def _risk(self, attack: Attack, questions: Questions) -> SubjectRisk:
        return attribute_risk(
            attack.labels,
            attack.chosen_scores,
            attack.clusters,
            attack.videos,
            questions,
            num_permutations=self.num_swaps,
        )


@dataclass(frozen=True)
class AttackScore:
    """Average precision of the strongest attackers beside chance, on draws of subjects and seeds."""

    precision: np.ndarray
    """[A]"""
    share: np.ndarray
    """[A] of positives; NaN for an attribute that cannot be judged."""
    chance: np.ndarray
    """[A] mean over swaps of the test subjects' labels."""
    drawn: np.ndarray
    """[R, A]"""
    drawn_chance: np.ndarray
    """[R, A] the draw's share of positives, moved by as much as `chance` lies above `share`."""
    p: np.ndarray
    """[A]"""
    mean_p: float

    @classmethod
    def of(cls, attack: Attack, evaluator: Evaluator) -> AttackScore:
        """On all attributes; NaN for those that can't be judged."""
        mean = evaluator.questions.mean
        judged = evaluator.judged(attack)
        precision = mean(np.where(judged, attack.precision, np.nan))
        share = mean(np.where(judged, metrics.prevalences(attack.labels), np.nan))
        resamples, seed_weights = draws(attack, evaluator.num_resamples)
        drawn = np.where(judged, _drawn_precisions(attack, resamples, seed_weights), np.nan)
        drawn_share = np.where(np.isnan(drawn), np.nan, metrics.resampled_prevalences(attack.labels, resamples))
        null = mean(np.where(judged, _swapped(attack, evaluator.num_swaps), np.nan))
        chance, known = metrics.mean_known(null.T), ~np.isnan(precision)
        mean_p = np.nan
        if known.any():
            mean_null = metrics.mean_known(null[:, known])
            mean_p = (1 + np.sum(mean_null >= precision[known].mean())) / (1 + len(null))
        return cls(
            precision=precision,
            share=share,
            chance=chance,
            drawn=mean(drawn),
            drawn_chance=mean(drawn_share) + (chance - share),
            p=np.where(known, (1 + np.sum(null >= precision, axis=0)) / (1 + len(null)), np.nan),
            mean_p=float(mean_p),
        )

    def only(self, kept: np.ndarray) -> AttackScore:  # [a] of indices
        """Of some of the attributes; `mean_p` stays that of all."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return AttackScore(**{name: v if name == "mean_p" else v[..., kept] for name, v in fields.items()})

    def share_of(self, raw: AttackScore | None, *, mean: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Excess over chance as a share of `raw`'s, and on each draw: [A] and [R, A], or of the mean: [] and [R]."""
        pick = metrics.mean_known if mean else lambda values: values
        own = pick(self.precision - self.chance), pick(self.drawn - self.drawn_chance)
        if raw is None:
            return tuple(np.full_like(values, np.nan) for values in own)
        whole = pick(raw.precision - raw.chance), pick(raw.drawn - raw.drawn_chance)
        return tuple(metrics.normalised_leakage(o, w, np.zeros_like(w)) for o, w in zip(own, whole, strict=True))

    @property
    def excess(self) -> float:
        """Mean over attributes of average precision less chance."""
        return float(metrics.mean_known(self.precision - self.chance))


def attacker_table(attack: Attack, questions: Questions) -> Mapping[str, Mapping[str, list[float]]]:
    """Every attacker's average precision: the mean over seeds, and the test's standard deviation."""
    test = [[metrics.average_precisions(attack.labels, s) for s in of_seed] for of_seed in attack.scores]
    test, validation = (questions.mean(np.array(values)) for values in (test, attack.validation))
    values = {
        "validation": validation.mean(axis=0),
        "test": test.mean(axis=0),
        "test_spread": test.std(axis=0, ddof=1) if len(test) > 1 else np.zeros(test.shape[1:]),
    }
    return {
        name: {column: value[place].tolist() for column, value in values.items()}
        for place, name in enumerate(attack.attackers)
    }


def decision(p: float, equivalent: bool) -> str:
    """A p-value and whether the statistic is chance up to the margin, in a word."""
    leaks = bool(p <= ALPHA)
    return {(True, False): "leaks", (True, True): "faint", (False, True): "at chance"}.get(
        (leaks, equivalent), "undecided"
    )


def _drawn_precisions(attack: Attack, resamples: metrics.Resamples, seed_weights: np.ndarray) -> np.ndarray:
    """Average precision of what counts as the strongest on the draws: [R, S] -> [R, A]."""
    return _drawn(
        attack.chosen_scores,
        seed_weights,
        lambda column, s: metrics.resampled_average_precisions(attack.labels[:, [column]], s, resamples),
    )


def _drawn(
    score_of_seed: np.ndarray, seed_weights: np.ndarray, function: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:  # [S, n, A], [R, S] -> [R, A]
    """A statistic of each attribute on the draws, weighted by seed; computed once where all seeds have one score."""
    columns = []
    for column in range(score_of_seed.shape[-1]):
        scores = score_of_seed[..., column]
        if (scores == scores[0]).all():
            columns.append(function(column, scores[0][:, None])[:, 0])
        else:
            columns.append(_weighted(seed_weights, [function(column, s[:, None]) for s in scores])[:, 0])
    return np.stack(columns, axis=1)


def _swapped(attack: Attack, num_swaps: int) -> np.ndarray:  # -> [swaps, A]
    """Average precision of the strongest attackers' scores when whole test subjects swap their labels."""
    step = max(1, SWAP_CELLS // max(1, len(attack.labels)))
    blocks = []
    for start in range(0, num_swaps, step):
        count = min(step, num_swaps - start)
        swaps = metrics.permuted_rows(attack.clusters, attack.videos, num_permutations=count, seed=1 + start)
        even = np.full((count, len(attack.scores)), 1 / len(attack.scores))
        blocks.append(
            _drawn(
                attack.chosen_scores,
                even,
                lambda column, s, swaps=swaps: metrics.permuted_average_precisions(
                    attack.labels[:, [column]], s, swaps
                ),
            )
        )
    return np.concatenate(blocks)


def _weighted(seed_weights: np.ndarray, of_seed: Sequence[np.ndarray]) -> np.ndarray:  # [R, S], S x [R, A] -> [R, A]
    return np.einsum("rs,sra->ra", seed_weights, np.stack(of_seed))


def _rate(
    labels: np.ndarray, score_of_seed: np.ndarray, fpr: float, resamples: metrics.Resamples, seed_weights: np.ndarray
) -> Rate:  # [n, q], [S, n, q]
    """Of a binary attribute; a mean over several questions would be nobody's rate."""
    negatives = int(np.sum(labels == 0, axis=0).min())
    if labels.shape[1] > 1:
        return Rate(fpr, None, None, None, negatives)
    label, score_of_seed = labels[:, 0], score_of_seed[..., 0]
    values = [inference.tpr_at_fpr(label, scores, fpr) for scores in score_of_seed]
    if any(value is None for value in values):
        return Rate(fpr, None, None, None, negatives)
    drawn = _drawn(
        score_of_seed[..., None],
        seed_weights,
        lambda _, s: inference.resampled_tprs(label, s[:, 0], resamples, fpr=fpr)[:, None],
    )[:, 0]
    low, high = metrics.percentile_interval(drawn)
    return Rate(fpr, float(np.mean(values)), float(low), float(high), negatives)
