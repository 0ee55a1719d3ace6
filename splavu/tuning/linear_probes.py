"""What released features are still good for, told in seconds: fresh linear heads on data that their task holds out.

    actions     which action a video shows; clips of a video averaged. Top-1.
    moments     when which action happens in a long video: every step apart. Mean average precision over classes.
    anomalies   whether anything abnormal happens in a long video, trained on videos labelled as a whole: the mean of
                its most abnormal tenth of steps. Area under the ROC curve over videos.

Note: these figures are for choosing between anonymizers, not for reporting. A detector uses the time around a step and
finds more; train TriDet and MGFN on released features to measure what it loses.

Shapes: N judged units, C columns of targets, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from splavu import metrics
from splavu.anonymizers.apply import ArrayMap
from splavu.attacks.rows import AttackData
from splavu.errors import UserError
from splavu.metrics import inference

MOST_ABNORMAL = 0.1
HELD_OUT = 0.25
"""Of the long videos, which heads are judged on."""
REMEDY = "give more long videos, or leave it out of probes"
MOST_STEPS = 20_000
"""Steps of long videos that a head learns from, evenly taken of more."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the heads' ridge, as a share of the (unit) variances; a quarter of what a head may learn from chooses."""


@dataclass(frozen=True)
class ProbeScore:
    """A head's figure, and on resamples of subjects or, where subjects are unknown, of videos."""

    value: float
    drawn: np.ndarray
    """[R]"""
    chance: float
    """Of a head that knows nothing."""
    drawn_chance: np.ndarray
    """[R]"""


@dataclass(frozen=True)
class LongVideos:
    """Long videos of training subjects, whose steps are features."""

    features: Sequence[np.ndarray]
    """A video each, [T, D] float32."""
    labels: Sequence[np.ndarray]
    """A video each, [T, C] of 0 and 1: what happens at a step. For anomalies [1]: whether anything does, anywhere."""

    def divided(self) -> tuple[list[int], list[int]]:
        """Places of those that are trained on, and of those held out: every fourth, in an order drawn once."""
        order = np.random.default_rng(0).permutation(len(self.features))
        count = max(1, round(HELD_OUT * len(order)))
        return sorted(order[count:].tolist()), sorted(order[:count].tolist())


@dataclass(frozen=True)
class ActionHits:
    """Whether the action of each of V test videos was named."""

    hits: np.ndarray
    """[V] of 0 and 1."""
    guesses: np.ndarray
    """[V] the same of the commonest action."""
    clusters: np.ndarray
    """[V] the subject of each."""


def actions(released: AttackData, classes: Mapping[str, int], num_resamples: int) -> ProbeScore:
    """Top-1 on the test subjects' videos; the head learns from all others. Chance names the commonest action."""
    found = action_hits(released, classes)
    resamples = metrics.cluster_resamples(found.clusters, num_resamples=num_resamples)
    weights = resamples.counts[:, resamples.cluster_of_row].astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    hits, guesses = found.hits, found.guesses
    return ProbeScore(float(hits.mean()), weights @ hits, float(guesses.mean()), weights @ guesses)


def action_hits(released: AttackData, classes: Mapping[str, int]) -> ActionHits:
    """Video by video what `actions` counts."""
    learnt = [released.train, released.validation]
    features, people = (np.concatenate([getattr(rows, name) for rows in learnt]) for name in ("features", "clusters"))
    numbers = np.array([classes[video] for rows in learnt for video in rows.videos])
    kinds = np.unique(numbers)
    score = _tuned(features, (numbers[:, None] == kinds).astype(np.float64), people, _accuracy)
    test = released.test
    names, first, index = np.unique(test.videos, return_index=True, return_inverse=True)
    scores = np.zeros((len(names), len(kinds)))
    np.add.at(scores, index, score(test.features))
    actual = np.array([classes[video] for video in names])
    kinds_seen, counts = np.unique(actual, return_counts=True)
    hits = (kinds[scores.argmax(axis=1)] == actual).astype(np.float64)
    guesses = (actual == kinds_seen[counts.argmax()]).astype(np.float64)
    return ActionHits(hits, guesses, test.clusters[first])


def moments(videos: LongVideos, serve: ArrayMap, num_resamples: int) -> ProbeScore:
    """Mean average precision of telling each class's steps from all others, on held-out videos. Chance: prevalence.

    Raises:
        UserError: No class is both learned and judged.
    """
    learnt, judged = videos.divided()
    features, labels, owners = _thinned(*_steps(videos, learnt, serve))
    test, targets, of_video = _steps(videos, judged, serve)
    both = [c for c in range(labels.shape[1]) if 0 < labels[:, c].sum() < len(labels) and targets[:, c].any()]
    if not both:
        raise UserError("moments", f"no class is both learnt and among the {len(judged)} videos held out", REMEDY)
    score = _tuned(features, labels[:, both], owners, _precision)
    scores, targets = score(test), targets[:, both]
    resamples = metrics.cluster_resamples(of_video, num_resamples=num_resamples)
    return ProbeScore(
        _precision(targets, scores),
        metrics.mean_known(metrics.resampled_average_precisions(targets, scores, resamples)),
        float(targets.mean()),
        metrics.mean_known(metrics.resampled_prevalences(targets, resamples)),
    )


def anomalies(videos: LongVideos, serve: ArrayMap, num_resamples: int) -> ProbeScore:
    """ROC-AUC over held-out videos, from labels of whole videos: what a step of an abnormal video looks like.

    Raises:
        UserError: All videos trained on, or all held out, are of one kind.
    """
    learnt, judged = videos.divided()
    for places, these in ((learnt, "learnt from"), (judged, "held out")):
        if len({float(videos.labels[place][0]) for place in places}) < 2:
            raise UserError("anomalies", f"the {len(places)} videos {these} are all of one kind", REMEDY)
    score = _tuned(*_thinned(*_steps(videos, learnt, serve)), _precision)
    scores = np.array([_highest(score(serve(videos.features[place]))[:, 0]) for place in judged])[:, None]
    targets = np.array([videos.labels[place][0] for place in judged], dtype=np.float64)[:, None]
    resamples = metrics.cluster_resamples(np.arange(len(judged)), num_resamples=num_resamples)
    drawn = inference.resampled_aucs(targets, scores, resamples)[:, 0]
    return ProbeScore(float(inference.aucs(targets, scores)[0]), drawn, 0.5, np.full(num_resamples, 0.5))


Score = Callable[[np.ndarray], np.ndarray]  # [N, D] -> [N, C]


def _tuned(
    features: np.ndarray,
    targets: np.ndarray,
    owners: np.ndarray,
    quality: Callable[[np.ndarray, np.ndarray], float],
) -> Score:  # [N, D], [N, C], [N]
    """A head of the strength that does best on owners (people, videos) held out of the learning."""
    names, index = np.unique(owners, return_inverse=True)
    held = np.random.default_rng(1).permutation(len(names)) < HELD_OUT * len(names)
    tuning = held[index]
    if tuning.all() or not tuning.any():
        return _head(features, targets, STRENGTHS[0])
    quality_of = [
        quality(targets[tuning], _head(features[~tuning], targets[~tuning], strength)(features[tuning]))
        for strength in STRENGTHS
    ]
    return _head(features, targets, STRENGTHS[int(np.nanargmax(quality_of))])


def _head(features: np.ndarray, targets: np.ndarray, strength: float) -> Score:
    """Ridge regression of all columns on standardised features."""
    head = make_pipeline(StandardScaler(), Ridge(alpha=strength * len(features))).fit(features, targets)
    return lambda x: head.predict(x).reshape(len(x), -1)


def _accuracy(targets: np.ndarray, scores: np.ndarray) -> float:  # [N, C], [N, C]
    return float((targets.argmax(axis=1) == scores.argmax(axis=1)).mean())


def _precision(targets: np.ndarray, scores: np.ndarray) -> float:  # [N, C], [N, C]
    return float(metrics.mean_known(metrics.average_precisions(targets, scores)))


def _highest(scores: np.ndarray) -> float:  # [T]
    count = max(1, round(MOST_ABNORMAL * len(scores)))
    return float(np.sort(scores)[-count:].mean())


def _steps(
    videos: LongVideos, places: Sequence[int], serve: ArrayMap
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # -> [N, D], [N, C], [N] of the video
    """The steps of some videos, one after the other."""
    lengths = [len(videos.features[place]) for place in places]
    features = serve(np.concatenate([videos.features[place] for place in places]))
    labels = [
        np.broadcast_to(videos.labels[place], (length, np.shape(videos.labels[place])[-1]))
        for place, length in zip(places, lengths, strict=True)
    ]
    return features, np.concatenate(labels).astype(np.float64), np.repeat(np.arange(len(places)), lengths)


def _thinned(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    count = len(arrays[0])
    kept = np.linspace(0, count - 1, min(count, MOST_STEPS)).round().astype(int)
    return tuple(array[kept] for array in arrays)
