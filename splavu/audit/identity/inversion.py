"""Inversion: how much of the raw feature comes back out of the released one.

An inverter learns from raw and released features of other subjects (anyone with the encoder and the anonymizer can make
such pairs), and is judged on people it never saw.

Note: explained variance is weighted by variance, and a few directions that all videos share hold most of it. An
inversion that explains 90 % may have lost what distinguishes subjects, and one that explains 10 % may have kept nothing
else. So the variance between subjects is reported separately, and each reconstruction is used to find its own raw
feature among all of them.

Shapes: `N` rows, `D` released width, `E` raw width, `G` people, `R` resamples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from splavu import metrics
from splavu.attackers import whiten
from splavu.attackers.networks import Dropout
from splavu.metrics.estimates import Estimate, estimated

BLOCK = 512  # reconstructions whose similarities are held at once

FeaturePairs = tuple[np.ndarray, np.ndarray]  # released [N, D], raw [N, E]
Inverter = Callable[[np.ndarray], np.ndarray]  # [N, D] -> [N, E]

PENALTIES = tuple(10.0**power for power in range(-10, 3))
"""Of the ridge, in units of the inputs' mean variance. The least ones matter: a direction squeezed to a thousandth is
still there."""


@dataclass(frozen=True)
class LinearMap:
    """x -> (x - mean) M + offset, in float64."""

    mean: np.ndarray
    """[D]"""
    matrix: np.ndarray
    """[D, E]"""
    offset: np.ndarray
    """[E]"""

    def __call__(self, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, E]
        return (np.asarray(features, dtype=np.float64) - self.mean) @ self.matrix + self.offset


def learn_ridge(
    inputs: np.ndarray, targets: np.ndarray, validation: FeaturePairs, *, penalties: Sequence[float] = PENALTIES
) -> LinearMap:  # [N, D], [N, E]
    """Least squares from standardised inputs to targets, the penalty with the least squared error on `validation`.

    Deterministic. Cost: one singular value decomposition for all penalties.

    Args:
        validation: Inputs and targets of subjects who are in neither the training nor the test rows.
    """
    inputs, targets = np.asarray(inputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    mean, offset = inputs.mean(axis=0), targets.mean(axis=0)
    spread = inputs.std(axis=0)
    inverse = np.where(spread > spread.max() * np.finfo(np.float32).eps, 1 / np.where(spread > 0, spread, 1.0), 0.0)
    scaled = (inputs - mean) * inverse
    # Singular values of the data, not of its square: the narrow directions would drown in rounding.
    _, singular, axes = np.linalg.svd(np.linalg.qr(scaled, mode="r"), full_matrices=False)
    kept = singular > singular.max(initial=0.0) * 1e-12
    singular, axes = singular[kept], axes[kept]
    projected = axes @ (scaled.T @ (targets - offset))  # [d, E]
    held_out = (np.asarray(validation[0], dtype=np.float64) - mean) * inverse @ axes.T
    wanted = np.asarray(validation[1], dtype=np.float64) - offset
    unit = np.square(singular).mean() if len(singular) else 1.0
    shrunk = [projected / (np.square(singular) + penalty * unit)[:, None] for penalty in penalties]
    errors = [np.square(held_out @ weight - wanted).sum() for weight in shrunk]
    return LinearMap(mean, inverse[:, None] * (axes.T @ shrunk[int(np.argmin(errors))]), offset)


def learn_mlp(
    inputs: np.ndarray,
    targets: np.ndarray,
    validation: FeaturePairs,
    *,
    hidden: int = 512,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-1,
    dropout: float = 0.2,
    batch_size: int = 256,
    max_epochs: int = 60,
    patience: int = 6,
    seed: int = 0,
    device: torch.device | str = "cpu",
    ridge: LinearMap | None = None,
) -> Inverter:  # [N, D], [N, E]
    """What a network with one hidden layer, on whitened inputs, adds to the ridge; the epoch best on `validation`.

    It starts as the ridge and is never worse than it on the validation rows. Stochastic: `seed` draws first weights,
    dropout and the order of rows, and the generator of the caller is left as it was.

    Args:
        ridge: What `learn_ridge` gives for the same pairs, where it is known already.
    """
    ridge, scaling = ridge or learn_ridge(inputs, targets, validation), whiten(inputs, device)
    left, left_out = (
        np.asarray(wanted, dtype=np.float64) - ridge(given) for given, wanted in ((inputs, targets), validation)
    )
    unit = max(float(np.sqrt(np.mean(np.square(left_out)))), np.finfo(np.float64).tiny)
    wanted, wanted_out = (torch.as_tensor(r / unit, dtype=torch.float32, device=device) for r in (left, left_out))
    given, given_out = scaling(inputs), scaling(validation[0])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        last = nn.Linear(hidden, wanted.shape[1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = nn.Linear(given.shape[1], hidden)
        network = nn.Sequential(first, nn.ReLU(), Dropout(dropout), last).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
        best, least, waited = copy.deepcopy(network), float(wanted_out.square().mean()), 0
        for _ in range(max_epochs):
            network.train()
            for rows in torch.randperm(len(given)).to(given.device).split(batch_size):
                optimizer.zero_grad(set_to_none=True)
                functional.mse_loss(network(given[rows]), wanted[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                error = float((network.eval()(given_out) - wanted_out).square().mean())
            best, least, waited = (copy.deepcopy(network), error, 0) if error < least else (best, least, waited + 1)
            if waited >= patience:
                break
    best.eval()

    @torch.no_grad()
    def invert(features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, E]
        return ridge(features) + unit * best(scaling(features)).double().cpu().numpy()

    return invert


INVERTERS: dict[str, Callable[..., Inverter]] = {"ridge": learn_ridge, "mlp": learn_mlp}
"""Each takes released [N, D] and raw [N, E] features, and such pairs of validation subjects."""


@dataclass(frozen=True)
class Inversion:
    """How well raw features were reconstructed."""

    explained: Estimate
    """Share of the raw variance, all dimensions together; below 0 the mean would have been the better guess."""
    explained_between: Estimate
    """The same for the means of subjects: what distinguishes them."""
    per_dimension: np.ndarray
    """[E] R2 of each dimension, NaN where it is constant."""
    ranks: np.ndarray
    """[N] of the true raw feature by similarity to the reconstruction, 1 the best; ties share a mean rank."""
    median_rank: Estimate
    top1: Estimate
    """Share of rows whose reconstruction is most similar to its own raw feature."""


def inversion(
    reconstructed: np.ndarray, raw: np.ndarray, people: Sequence, *, num_resamples: int = 1000, seed: int = 0
) -> Inversion:  # [N, E], [N, E], [N]
    """Compare test features with what an inverter made of their released form.

    Explained variance is scikit-learn's R2 weighted by variance, about the mean of these rows, which resamples keep:
    about a mean of their own, few subjects would deviate less each time that they are drawn. It is too low by about
    (1 - R2) / people, and its intervals lie as much too low. Similarity is the cosine
    of features that are centred and scaled by these rows; clips of one video count as wrong answers, so static views
    or many clips a video make ranks worse. Intervals resample people among the queries; the features searched stay.
    """
    reconstructed, raw = np.asarray(reconstructed, dtype=np.float64), np.asarray(raw, dtype=np.float64)
    resamples = metrics.cluster_resamples(people, num_resamples=num_resamples, seed=seed)
    names, person = np.unique(np.asarray(people), return_inverse=True)
    centre = raw.mean(axis=0)
    error, deviation = reconstructed - raw, raw - centre
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.square(deviation).sum(axis=0)
        per_dimension = np.where(variance > 0, 1 - np.square(error).sum(axis=0) / variance, np.nan)

    sizes = np.bincount(person).astype(np.float64)
    mean_error, mean_deviation = (_sums(values, person) / sizes[:, None] for values in (error, deviation))
    one = np.ones((1, len(names)))
    within = _sums(np.square(error).sum(axis=1), person), _sums(np.square(deviation).sum(axis=1), person)
    between = np.square(mean_error).sum(axis=1), np.square(mean_deviation - mean_deviation.mean(axis=0)).sum(axis=1)
    explained, explained_between = (
        estimated(_explained(one, *squares)[0], _explained(resamples.counts, *squares), chance=0.0)
        for squares in (within, between)
    )
    ranks, first = _own_ranks(reconstructed, raw)
    return Inversion(
        explained,
        explained_between,
        per_dimension,
        ranks,
        estimated(np.median(ranks), _resampled_medians(ranks, resamples), chance=(len(raw) + 1) / 2),
        estimated(
            first.mean(), metrics.resampled_prevalences(first[:, None], resamples)[:, 0], chance=1 / max(1, len(raw))
        ),
    )


def _explained(
    counts: np.ndarray, errors: np.ndarray, deviations: np.ndarray
) -> np.ndarray:  # [R, G], [G], [G], squared and summed -> [R]
    """1 - error / deviation, both weighted by how often each person was drawn; NaN where nothing deviates."""
    varies = counts @ deviations > 0
    return np.where(varies, 1 - counts @ errors / np.where(varies, counts @ deviations, 1.0), np.nan)


def _own_ranks(reconstructed: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # -> [N], [N]
    """Rank of each row's own raw feature, and its share of the first place."""
    centre, spread = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1.0), 0.0)
    found, wanted = (_directions((values - centre) * scale) for values in (reconstructed, raw))
    ranks, first = np.empty(len(raw)), np.empty(len(raw))
    for start in range(0, len(raw), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(raw)))
        similarity = np.round(found[rows] @ wanted.T, 12)  # equal features tie, in whatever order they were summed
        own = similarity[np.arange(len(rows)), rows][:, None]
        better, equal = (similarity > own).sum(axis=1), (similarity == own).sum(axis=1)
        ranks[rows] = 1 + better + (equal - 1) / 2
        first[rows] = np.where(better == 0, 1 / equal, 0.0)
    return ranks, first


def _resampled_medians(values: np.ndarray, resamples: metrics.Resamples) -> np.ndarray:  # [N] -> [R]
    order, result = np.argsort(values, kind="stable"), np.empty(len(resamples.counts))
    for block, weights in resamples.blocks(order):
        running = np.cumsum(weights, axis=1)
        result[block] = values[order][np.argmax(running >= running[:, -1:] / 2, axis=1)]
    return result


def _sums(values: np.ndarray, group: np.ndarray) -> np.ndarray:  # [N, ...], [N] -> [G, ...]
    sums = np.zeros((group.max() + 1, *values.shape[1:]))
    np.add.at(sums, group, values)
    return sums


def _directions(features: np.ndarray) -> np.ndarray:  # [N, E] -> [N, E] of length 1; zeros stay
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 1e-9, length, np.inf)
