"""How much it takes to read an attribute: the curve over the number of subjects trained on, and the online code.

Note: attackers trained on the few subjects of an evaluation say little about attackers with many. A curve that still
rises at its right end is a warning that the headline is too optimistic (`rising`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.attackers import ATTACKERS, LogisticAttacker
from splavu.attacks.campaign import Attack, Campaign
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.questions import Questions
from splavu.metrics.estimates import estimated
from splavu.metrics.inference import CodeLength, online_code_length, platt_scaling

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the training subjects; the first ones are part of the next ones."""
NUM_ORDERS = 3
"""In which training subjects are added; as many as there are seeds, if these are fewer."""
BLOCKS = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Of the people, where the blocks of the online code end."""
HELD_OUT = 0.25
"""Of the rows that a block's attacker has seen: to choose its penalty and to calibrate its scores."""


@dataclass(frozen=True)
class _Curve:
    family: str
    seed: int
    data: AttackData
    max_train_rows: int
    device: Any


def learning_curve(
    data: AttackData,
    questions: Questions,
    families: tuple[str, ...],
    campaign: Campaign,
    num_resamples: int,
    *,
    whole: Attack | None = None,
) -> list[dict[str, Any]]:
    """Test AP of each attribute by family and number of training subjects, mean over the orders that add them.

    `gain` is what the last subjects that were added brought to the mean over attributes: its interval draws test
    subjects, and orders where there are several.

    Args:
        whole: Attackers called 'fresh/family', trained for the campaign's seeds on all of the same rows: the right end
            of their families' curves.
    """
    seeds = campaign.seeds[:NUM_ORDERS]
    every = np.unique(data.train.clusters)
    counts = sorted({max(2, round(share * len(every))) for share in SHARES})
    jobs, scores = {}, {}
    for family in families:
        for number, seed in enumerate(seeds):
            if whole is not None and (trained := f"fresh/{family}") in whole.attackers:
                scores[family, seed, len(every)] = whole.scores[number, whole.attackers.index(trained)]
            names = np.random.default_rng(seed).permutation(every)
            for count in counts:
                twin = (family, seeds[0], count) if count == len(every) and not ATTACKERS[family].stochastic else None
                if twin not in jobs and (family, seed, count) not in scores:
                    part = _among(data, names[:count])
                    jobs[family, seed, count] = _Curve(family, seed, part, campaign.max_train_rows, campaign.device)
    scores |= zip(jobs, (campaign.executor.map if campaign.executor else map)(_point, jobs.values()), strict=True)
    test = data.test
    resamples = metrics.cluster_resamples(test.clusters, num_resamples=num_resamples, seed=0)
    weights = metrics.seed_weights(len(seeds), num_resamples)
    points = []
    for family in families:
        before = None
        for count in counts:
            keys = [(family, seed, count) for seed in seeds]
            keys = [key if key in scores else (family, seeds[0], count) for key in keys]
            of_order = [scores[key] for key in keys]
            precision = [questions.mean(metrics.average_precisions(test.labels, s)) for s in of_order]
            drawn = [questions.mean(metrics.resampled_average_precisions(test.labels, s, resamples)) for s in of_order]
            mean = metrics.mean_known(np.stack(precision))  # [S]
            mean_drawn = metrics.mean_known(np.stack(drawn))  # [S, R]
            gain = None
            if before is not None:
                draws = np.einsum("rs,sr->r", weights, mean_drawn - before[1])
                gain = estimated(float(np.mean(mean - before[0])), draws, chance=0.0)
            before = mean, mean_drawn
            rows = round(float(np.mean([len(jobs[key].data.train if key in jobs else data.train) for key in keys])))
            ap = np.mean(precision, axis=0)
            points.append({"family": family, "people": count, "rows": rows, "ap": ap, "gain": gain})
    return points


def rising(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each family whose last gain exceeds its noise: the lower end of its 95 % interval is above 0."""
    lines = []
    for family in dict.fromkeys(point["family"] for point in points):
        *_, before, last = [None, None, *(point for point in points if point["family"] == family)]
        if before is not None and last["gain"].low > 0:
            value, low, high = (100 * end for end in (last["gain"].value, last["gain"].low, last["gain"].high))
            lines.append(
                f"attackers still gain from more training subjects ({family}: {value:.1f} points of AP [{low:.1f}, "
                f"{high:.1f}] from {before['people']} to {last['people']}): those who have more get further than this"
            )
    return lines


def code_lengths(data: Mapping[str, AttackData], questions: Questions, campaign: Campaign) -> dict[str, dict[str, Any]]:
    """Representation -> attribute -> length of the online code of its labels, by logistic regression; of several
    questions the sum."""
    keys = [(kind, q) for kind in data for q in range(len(questions.asked))]
    results = (campaign.executor.map if campaign.executor else map)(
        _code_length, [(data[kind].train, q, campaign.seeds[0]) for kind, q in keys]
    )
    lengths = dict(zip(keys, results, strict=True))
    found: dict[str, dict[str, Any]] = {kind: {} for kind in data}
    for kind in data:
        for name in questions.attributes:
            known = [one for q in questions.of(name) if (one := lengths[kind, q]) is not None]
            found[kind][name] = _summed(known) if known else None
    return found


def _summed(lengths: list[CodeLength]) -> dict[str, float]:
    bits, prior_bits, uniform_bits = (
        sum(getattr(one, field) for one in lengths) for field in ("bits", "prior_bits", "uniform_bits")
    )
    return {
        "bits": bits,
        "prior_bits": prior_bits,
        "uniform_bits": uniform_bits,
        "rows": sum(one.num_rows for one in lengths),
        "compression_over_prior": prior_bits / bits,
    }


def _among(data: AttackData, people: np.ndarray) -> AttackData:
    return AttackData(data.train.take(np.flatnonzero(np.isin(data.train.clusters, people))), data.validation, data.test)


def _point(job: _Curve) -> np.ndarray:  # -> [n, Q] scores of test rows
    train, validation = job.data.train, job.data.validation
    if len(train) > job.max_train_rows:
        train = train.take(np.random.default_rng(job.seed).permutation(len(train))[: job.max_train_rows])
    attacker = ATTACKERS[job.family].build(seed=job.seed, device=job.device)
    attacker.fit(train.features, train.labels, (validation.features, validation.labels))
    return attacker.scores(job.data.test.features)


def _code_length(job: tuple[Rows, int, int]) -> CodeLength | None:
    rows, question, seed = job
    labels = rows.labels[:, question]
    if np.isnan(labels).all():
        return None
    return online_code_length(_fit, rows.features, labels, BLOCKS, num_classes=2, clusters=rows.clusters, seed=seed)


def _fit(features: np.ndarray, classes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:  # [n, D], [n]
    """A logistic attacker; the last rows, of subjects who come last, choose its penalty and calibrate it."""
    learnt = max(1, round((1 - HELD_OUT) * len(classes)))
    labels = classes[:, None].astype(np.float32)
    attacker = LogisticAttacker(penalties=(1.0, 1e-1, 1e-2))
    attacker.fit(features[:learnt], labels[:learnt], (features[learnt:], labels[learnt:]))
    scale = platt_scaling(labels[learnt:], attacker.scores(features[learnt:]))

    def probabilities(new: np.ndarray) -> np.ndarray:  # [m, D] -> [m, 2]
        positive = scale(attacker.scores(new))
        return np.concatenate([1 - positive, positive], axis=1)

    return probabilities
