"""Attacks on all clips of a video, or of a person, at once: pooled scores, pooled features, trained pooling.

Note: pooling the scores of clip attackers is not enough. Where noise hides the attribute in each clip, clip attackers
learn nothing that could be pooled; attackers trained on the pooled features do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from splavu import metrics
from splavu.attackers import AttackerSpec
from splavu.attacks.campaign import Attack, Campaign, Exposure, Scored, joined
from splavu.attacks.rows import AttackData
from splavu.audit.attributes.set_attackers import AttentionPooling, ClipSets
from splavu.audit.attributes.units import AuditUnit, known_only, set_attack, set_data, set_names

SET_ATTACKERS: Mapping[str, AttackerSpec] = {"attention": AttackerSpec(AttentionPooling, stochastic=True)}
"""Families that take sets of clips (`sets.ClipSets`) in place of features."""


def attack_sets(
    data: AttackData,
    clip: Attack,
    unit: AuditUnit,
    campaign: Campaign,
    *,
    attackers: tuple[str, ...],
    kept: np.ndarray | None = None,
) -> Attack:
    """All attacks on sets as one, its attackers named 'way/attacker'.

    Args:
        data: Clips.
        clip: Attackers of the same clips, to pool their scores.
        unit: What makes a set.
        campaign: The families that learn from pooled features.
        attackers: Names from `SET_ATTACKERS`.
        kept: [A] of bool, the attributes that a set may have; the others are unknown.
    """
    sets = set_data(data, unit)
    if kept is not None:
        sets = AttackData(**{name: known_only(rows, kept) for name, rows in sets.splits.items()})
        clip = known_only(clip, kept)
    shown = Exposure(sets.validation, sets.test)
    found = {
        "mean of scores": set_attack(clip, unit, "mean"),
        "largest score": set_attack(clip, unit, "max"),
        "mean of features": campaign.run_on([sets] * len(campaign.seeds), {"own": shown})["own"],
    }
    if attackers:
        found["learnt pooling"] = _learnt_pooling(data, sets, unit, campaign, attackers)
    return joined(found)


@dataclass(frozen=True)
class _SetJob:
    """One attacker on sets to train; features of clips, labels of sets."""

    name: str
    seed: int
    features: tuple[ClipSets, ClipSets, ClipSets]
    """Train, validation, test."""
    labels: tuple[np.ndarray, np.ndarray]
    device: torch.device | str


def _scores_of(job: _SetJob) -> tuple[np.ndarray, np.ndarray]:  # -> [v, A], [n, A]
    attacker = SET_ATTACKERS[job.name].build(seed=job.seed, device=job.device)
    train, validation, test = job.features
    attacker.fit(train, job.labels[0], (validation, job.labels[1]))
    return attacker.scores(validation), attacker.scores(test)


def _learnt_pooling(
    clips: AttackData, sets: AttackData, unit: AuditUnit, campaign: Campaign, attackers: tuple[str, ...]
) -> Attack:
    features = tuple(ClipSets.of(rows.features, set_names(rows, unit)) for rows in clips.splits.values())
    labels = sets.train.labels, sets.validation.labels
    jobs = [_SetJob(name, seed, features, labels, campaign.device) for seed in campaign.seeds for name in attackers]
    scores = []
    for found in (campaign.executor.map if campaign.executor else map)(_scores_of, jobs):
        scores.append(found)
        campaign.progress.update()
    tuned, test = (
        np.stack([found[part] for found in scores]).reshape(len(campaign.seeds), len(attackers), *scores[0][part].shape)
        for part in (0, 1)
    )
    validation = sets.validation
    return Attack(
        attackers,
        sets.test.labels,
        sets.test.clusters,
        sets.test.videos,
        test,
        np.array([[metrics.average_precisions(validation.labels, s) for s in of_seed] for of_seed in tuned]),
        Scored(validation.labels, validation.clusters, validation.videos, tuned),
    )
