"""How much it takes to read an attribute: the curve over the number of subjects trained on, and the online code.

Note: attackers trained on the few subjects of an evaluation say little about attackers with many. A curve that still
rises at its right end is a warning that the headline is too optimistic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.attackers import ATTACKERS, LogisticAttacker
from splavu.attacks.campaign import Campaign
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.questions import Questions
from splavu.metrics.inference import CodeLength, online_code_length, platt_scaling

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the training subjects; the first ones are part of the next ones."""
BLOCKS = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Of the people, where the blocks of the online code end."""
HELD_OUT = 0.25
"""Of the rows that a block's attacker has seen: to choose its penalty and to calibrate its scores."""


@dataclass(frozen=True)
class _Curve:
    family: str
    seed: int
    data: AttackData
    people: int
    max_train_rows: int
    device: Any


def learning_curve(
    data: AttackData, questions: Questions, families: tuple[str, ...], campaign: Campaign
) -> list[dict[str, Any]]:
    """Test AP of each attribute by family and number of training subjects, for the first seed."""
    seed = campaign.seeds[0]
    names = np.random.default_rng(seed).permutation(np.unique(data.train.clusters))
    counts = sorted({max(2, round(share * len(names))) for share in SHARES})
    jobs = [
        _Curve(family, seed, _among(data, names[:count]), count, campaign.max_train_rows, campaign.device)
        for family in families
        for count in counts
    ]
    results = (campaign.executor.map if campaign.executor else map)(_point, jobs)
    return [
        {"family": job.family, "people": job.people, "rows": len(job.data.train), "ap": questions.mean(precision)}
        for job, precision in zip(jobs, results, strict=True)
    ]


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


def _point(job: _Curve) -> np.ndarray:  # -> [A]
    train, validation = job.data.train, job.data.validation
    if len(train) > job.max_train_rows:
        train = train.take(np.random.default_rng(job.seed).permutation(len(train))[: job.max_train_rows])
    attacker = ATTACKERS[job.family].build(seed=job.seed, device=job.device)
    attacker.fit(train.features, train.labels, (validation.features, validation.labels))
    return metrics.average_precisions(job.data.test.labels, attacker.scores(job.data.test.features))


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
