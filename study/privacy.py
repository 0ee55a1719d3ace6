"""How much private information features give away: parameters and both protocols of `privacy_eval.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval, MinLen

from splavu.anonymizers import Anonymizer, FrozenAnonymizer, array_map
from splavu.anonymizers.apply import Serving
from splavu.attackers import DEFAULT_ATTACKERS, attacker_names
from splavu.attacks import paper_protocol, release_protocol
from splavu.attacks.rows import AttackData, Rows, hold_out
from splavu.metrics.protocols import protocol_name
from splavu.runtime.params import derived_value
from splavu.runtime.schema import Convert, Count, Draws, OneOf, Positive, Seeds
from study.datasets.loading import dataset_spec, privacy_rows
from study.models import JudgedFeatures

Attackers = Annotated[tuple[str, ...], Convert(attacker_names), MinLen(1)]
"""Names of attacker families."""


@dataclass(frozen=True, kw_only=True)
class PrivacyEvalParams(JudgedFeatures):
    """Parameters of a privacy evaluation; see params/params_fb.py."""

    dataset: str
    """A row of feature_dl.CATALOGUE; without private labels of its own it reads `private_labels.csv`. Without a split
    'val' some training subjects validate."""
    protocol: Annotated[Literal["release", "paper", "released", "published"], Convert(protocol_name)] = "release"
    """'released' and 'published' are the former names."""
    views: Annotated[tuple[Annotated[str, OneOf(("static", "temporal"))], ...], MinLen(1)] = ("static", "temporal")
    """'temporal' are the clips that are released, 'static' the static clips; 'paper' takes the first only."""
    num_pa: Count | None = None
    """Private attributes A; looked up, may be stated, must agree."""
    fb_frame_pool: Count = 10
    """Static clips a video in the store."""
    serving: Serving = "alone"
    """'release' only. What the anonymizer gets: 'alone' one feature at a time, 'batch' to show what mixing hides."""
    batch_size: Count = 1024
    attackers: Attackers = DEFAULT_ATTACKERS
    seeds: Seeds = (0, 1, 2)
    num_resamples: Draws = 1000
    max_train_rows: Count = 20_000
    """Of more training rows a random draw is taken, another for each seed; the result says so."""
    level: Literal["row", "video"] = "row"
    """Evaluate each anonymized feature, or the mean score of a video's features."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of training subjects used to validate, where the data set has no 'val' split."""
    num_epochs: Count = 100
    """'paper' only, as is learning_rate_fb."""
    learning_rate_fb: Positive = 1e-3


def evaluate_by_release_protocol(
    p: PrivacyEvalParams,
    data: dict[str, AttackData],
    anonymizer: Anonymizer | None,
    attributes: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """Newly trained attackers on every view, raw and anonymized."""
    return release_protocol.evaluate_by_release_protocol(
        data,
        None
        if anonymizer is None
        else array_map(anonymizer, serving=p.serving, batch_size=p.batch_size, device=device),
        attributes=attributes,
        attackers=p.attackers,
        seeds=p.seeds,
        num_resamples=p.num_resamples,
        max_train_rows=p.max_train_rows,
        level=p.level,
        served=p.serving,
        device=device,
    )


def evaluate_by_paper_protocol(
    p: PrivacyEvalParams,
    data: dict[str, AttackData],
    anonymizer: Anonymizer | None,
    attributes: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """The paper's head, which picks its epoch on the test set and so leaves the validation subjects unused."""
    view = data[p.views[0]]
    return paper_protocol.evaluate_by_paper_protocol(
        view.train,
        view.test,
        None if anonymizer is None else FrozenAnonymizer(anonymizer.to(device), "batch"),
        attributes=attributes,
        seeds=p.seeds,
        recipe=paper_protocol.PaperHeadRecipe(p.num_epochs, p.batch_size, p.learning_rate_fb),
        device=device,
    )


def read_view(p: PrivacyEvalParams, view: str) -> tuple[AttackData, tuple[str, ...]]:
    """All features of a view, split by subject, and the names of their attributes."""
    names: tuple[str, ...] = ()

    def rows(split: str) -> Rows:
        nonlocal names
        options = {"encoder": p.ft_arch, "static_frames": p.fb_frame_pool, "data_root": p.data_root}
        found, names = privacy_rows(p.dataset, split, view, **options)
        return found

    train, test = rows("train"), rows("test")
    derived_value("num_pa", p.num_pa, len(names), because=f"dataset = '{p.dataset}'")
    if "val" in dataset_spec(p.dataset, data_root=p.data_root).splits:
        return AttackData(train, rows("val"), test), names
    if p.protocol == "paper":
        return AttackData(train, train.take(np.arange(0)), test), names
    return AttackData(*hold_out(train, share=p.val_share), test), names


def digest(data: dict[str, AttackData]) -> str:
    """SHA-256 of everything the evaluation reads."""
    found = hashlib.sha256()
    for view, splits in data.items():
        for name, rows in splits.splits.items():
            found.update(f"{view}/{name}/{rows.features.shape}/{rows.labels.shape}".encode())
            for array in (rows.features, rows.labels):
                found.update(np.ascontiguousarray(array).tobytes())
            found.update("\n".join([*map(str, rows.clusters), *map(str, rows.videos)]).encode())
    return found.hexdigest()
