"""Utility: top-1 of new heads on PA-HMDB51's videos, and the privacy-utility curve.

A head is trained on HMDB51's videos without annotations for a fixed time, so nothing is chosen on the test videos.

Note: the annotated videos measure privacy too, so both axes of the curve use the same draws of films.

Letters: V annotated videos, C classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pahmdb.dl_pahmdb import PaHmdb51, film
from splavu import metrics
from splavu.anonymizers.apply import FrozenAnonymizer
from splavu.attacks.campaign import Attack, draws, resampled_leakage
from splavu.data.datasets import BatchLoader, EvenClips, FeatureDataset, RandomClip
from splavu.metrics import tradeoff
from splavu.runtime import environment
from splavu.runtime.distributed import Processes
from splavu.runtime.run_folder import RunFolder
from splavu.training import loop
from splavu.training.heads import LinearHead
from splavu.training.learners import Learner, adamw
from splavu.training.probes import ProbeTrainer
from splavu.training.tasks import ActionRecognition
from study.datasets.loading import dataset_spec


@dataclass(frozen=True)
class HeadRecipe:
    """How a head for action recognition is trained."""

    seed: int
    num_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    num_modes: int
    """Evenly spaced clips of a test video, whose probabilities are averaged."""
    val_freq: int = 1
    """Nothing is validated; the loop asks."""


def head_hits(
    data: PaHmdb51, served: FrozenAnonymizer, recipe: HeadRecipe, run: RunFolder, device: torch.device
) -> np.ndarray:  # -> [V] of 0 and 1
    """Whether a fresh linear head on served features names the action of each annotated video."""
    environment.seed_everything(recipe.seed)
    head = LinearHead(data.features.feature_dim, dataset_spec("hmdb51").num_classes).to(device)
    optimizer = adamw(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def videos(keys: list[str], draw: RandomClip | EvenClips) -> FeatureDataset:
        return FeatureDataset(data.features, keys, labels=data.actions, draw=draw, seed=recipe.seed)

    task = ActionRecognition(
        Learner("ft_ar", head, optimizer),
        BatchLoader(videos(data.others, RandomClip()), batch_size=recipe.batch_size, seed=recipe.seed, device=device),
        BatchLoader(
            videos(list(data.annotated), EvenClips(recipe.num_modes)), batch_size=512, shuffle=False, device=device
        ),
        device,
        checkpoint_key="ft_model_state_dict",
    )
    loop.fit(ProbeTrainer(served, task, chooses=False), run, recipe, restart=True, processes=Processes(device))
    probabilities, classes = task.video_probabilities(served)  # [V, C], [V]
    return (probabilities.argmax(dim=1) == classes).double().numpy()


@dataclass(frozen=True)
class Utility:
    """Top-1 of every representation, measured and on draws of films."""

    top1: Mapping[str, float]
    drawn: Mapping[str, np.ndarray]
    """[R]"""
    chance: float
    """Top-1 of naming the most frequent class of the test videos each time."""
    drawn_chance: np.ndarray
    """[R] of naming that same class."""

    @classmethod
    def of(cls, data: PaHmdb51, hits: Mapping[str, np.ndarray], raw: Attack, num_resamples: int) -> Utility:
        """From each representation's hits [V], on the draws of films that judge the attack on raw features."""
        films = [film(video, frames) for video, frames in data.annotated.items()]
        of_clips, _ = draws(raw, num_resamples)
        resamples = metrics.Resamples(of_clips.counts, np.unique(films, return_inverse=True)[1])
        classes = np.array([data.actions[video] for video in data.annotated])
        guess = (classes == np.bincount(classes).argmax()).astype(np.float64)
        weights = resamples.counts[:, resamples.cluster_of_row]  # [R, V]
        weights = weights / weights.sum(axis=1, keepdims=True)
        drawn = {name: weights @ hit for name, hit in hits.items()}
        top1 = {name: float(hit.mean()) for name, hit in hits.items()}
        return cls(top1, drawn, float(guess.mean()), weights @ guess)

    def judged(self) -> dict[str, Any]:
        """Top-1 with its interval, and chance."""
        of = {name: {"top1": top1, "interval": _interval(self.drawn[name])} for name, top1 in self.top1.items()}
        return {"chance": self.chance, "of": of}


def trade_off(attacks: Mapping[str, Attack], utility: Utility, num_resamples: int) -> dict[str, Any] | None:
    """The curve of the operating points and its hypervolume; None without an operating point."""
    raw, names = attacks["raw"], [name for name in attacks if name != "raw"]
    if not names:
        return None
    share = metrics.mean_known(np.where(np.isnan(raw.precision), np.nan, metrics.prevalences(raw.labels)))
    cmap = {name: metrics.mean_known(attack.precision) for name, attack in attacks.items()}
    measured = tradeoff.curve(
        leakage=np.array([metrics.normalised_leakage(cmap[name], cmap["raw"], share) for name in names]),
        metric=np.array([utility.top1[name] for name in names]),
        raw=utility.top1["raw"],
        chance=utility.chance,
    )
    resampled = tradeoff.curve(
        leakage=np.stack([resampled_leakage(attacks[name], raw, num_resamples) for name in names], axis=1),
        metric=np.stack([utility.drawn[name] for name in names], axis=1),
        raw=utility.drawn["raw"][:, None],
        chance=utility.drawn_chance[:, None],
    )
    area = tradeoff.hypervolume(measured, resampled)
    points = {
        name: {
            "privacy": float(measured.privacy[k]),
            "privacy_interval": _interval(resampled.privacy[:, k]),
            "utility": float(measured.utility[k]),
            "utility_interval": _interval(resampled.utility[:, k]),
        }
        for k, name in enumerate(names)
    }
    hypervolume = {"value": area.value, "interval": [area.low, area.high]}
    return {"points": points, "hypervolume": hypervolume, "definition": tradeoff.DEFINITION}


def _interval(drawn: np.ndarray) -> list[float]:  # [R] -> [2]
    return metrics.percentile_interval(drawn).tolist()
