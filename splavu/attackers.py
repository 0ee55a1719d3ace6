"""Attackers: classifiers trained after the fact, on exactly what is released, to read private attributes back.

An attacker is built with options only, learns once with `fit` and is then fixed; `scores` are unbounded logits or
probabilities, of use only for ranking. All attributes are attacked at once, labels are 0, 1 or NaN for unknown. Every
choice (regularisation, neighbours, epochs, trees, how inputs are scaled) is made for each attribute apart on validation
subjects: an attacker that is tuned badly makes any anonymizer look good.

What a reader would get wrong: scaling each coordinate is not enough. A map that squeezes the private direction to a
thousandth of the others hides it from every penalised classifier, and nobody who trains on whitened features is fooled.
So linear and neural attackers try both scalings, and whitening keeps every direction that float32 can carry.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from splavu.metrics import average_precision, average_precisions, mean_known

Labelled = tuple[np.ndarray, np.ndarray]  # features [N, D], labels [N, A]


class Attacker(Protocol):
    """What the protocols ask of an attacker."""

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> Attacker:  # [N, D], [N, A]
        """Learn from training subjects, tune on validation subjects, return self."""

    def scores(self, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
        """Higher means more likely; comparable within an attribute only."""


@dataclass(frozen=True)
class Scaling:
    """An invertible affine map of the inputs, from training statistics."""

    mean: Tensor
    """[D]"""
    matrix: Tensor
    """[D] to scale each coordinate, [D, d] to whiten; d < D only where training features span d dimensions."""

    def __call__(self, features: np.ndarray) -> Tensor:  # [N, D] -> [N, d]
        centred = torch.as_tensor(features, dtype=torch.float32, device=self.mean.device) - self.mean
        return centred * self.matrix if self.matrix.ndim == 1 else centred @ self.matrix


def standardise(features: np.ndarray, device: torch.device | str = "cpu") -> Scaling:  # [N, D]
    """Zero mean, unit variance for each coordinate; a constant coordinate becomes 0."""
    features = _double(features, device)
    spread = features.std(dim=0, correction=0)
    floor = spread.max() * torch.finfo(torch.float32).eps
    inverse = torch.where(spread > floor, 1 / spread.clamp_min(1e-300), 0.0)
    return Scaling(features.mean(dim=0).float().to(device), inverse.float().to(device))


def whiten(features: np.ndarray, device: torch.device | str = "cpu") -> Scaling:  # [N, D]
    """Unit covariance. Drops only directions narrower than float32 resolves beside the widest."""
    features = _double(features, device)
    mean = features.mean(dim=0)
    triangle = torch.linalg.qr(features - mean, mode="r").R  # singular values of the data, without squaring them
    _, singular, axes = torch.linalg.svd(triangle, full_matrices=False)
    kept = singular > singular.max() * torch.finfo(torch.float32).eps
    matrix = axes[kept].T * (len(features) ** 0.5 / singular[kept])
    return Scaling(mean.float().to(device), matrix.float().to(device))


SCALINGS: dict[str, Callable[..., Scaling]] = {"standardise": standardise, "whiten": whiten}


class LogisticAttacker:
    """Penalised logistic regression of all attributes at once, along a path from strong to weak penalty.

    Minimises mean log loss + penalty / 2 * |w|^2 for each attribute (scikit-learn's C is 1 / (penalty * N)), the
    intercept free, by L-BFGS warm-started from the stronger penalty before. Deterministic.
    """

    def __init__(
        self,
        *,
        penalties: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4),
        scalings: tuple[str, ...] = ("standardise", "whiten"),
        max_iterations: int = 60,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.penalties, self.scalings, self.max_iterations = penalties, scalings, max_iterations
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> LogisticAttacker:
        self.best_ = _BestPerAttribute(labels.shape[1])
        known, target = _known(labels, self.device)
        for name in self.scalings:
            scaling = SCALINGS[name](features, self.device)
            inputs, held_out = scaling(features), scaling(validation[0])
            weight = torch.zeros(inputs.shape[1] + 1, labels.shape[1], device=inputs.device)
            for penalty in self.penalties:
                weight = self._minimise(inputs, target, known, weight, penalty)
                scores = (held_out @ weight[:-1] + weight[-1]).cpu().numpy()
                self.best_.offer(average_precisions(validation[1], scores), partial(_linear_scores, scaling, weight))
        return self

    def _minimise(self, inputs: Tensor, target: Tensor, known: Tensor, start: Tensor, penalty: float) -> Tensor:
        weight = start.clone().requires_grad_()
        solver = torch.optim.LBFGS(
            [weight],
            max_iter=self.max_iterations,
            tolerance_grad=1e-5,
            tolerance_change=1e-8,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            solver.zero_grad()
            logits = torch.addmm(weight[-1], inputs, weight[:-1])  # [N, A]
            value = _log_loss(logits, target, known) + 0.5 * penalty * weight[:-1].square().sum()
            value.backward()
            return value

        solver.step(loss)
        return weight.detach()

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


class MLPAttacker:
    """ReLU network with unbounded logits for all attributes at once, by AdamW.

    Each attribute keeps the recipe and epoch of its best validation average precision. A recipe is (scaling, learning
    rate, weight decay) and stops after `patience` epochs without a better validation cMAP. Stochastic: `seed` draws the
    first weights, dropout and the order of rows, and the generator of the caller is left as it was.
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (256,),
        recipes: tuple[tuple[str, float, float], ...] = (("standardise", 1e-3, 1e-1), ("whiten", 1e-3, 1.0)),
        dropout: float = 0.3,
        batch_size: int = 256,
        max_epochs: int = 40,
        patience: int = 4,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.hidden, self.recipes, self.dropout = hidden, recipes, dropout
        self.batch_size, self.max_epochs, self.patience = batch_size, max_epochs, patience
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> MLPAttacker:
        self.best_ = _BestPerAttribute(labels.shape[1])
        known, target = _known(labels, self.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for name, learning_rate, weight_decay in self.recipes:
                scaling = SCALINGS[name](features, self.device)
                self._train(scaling, features, target, known, validation, learning_rate, weight_decay)
        return self

    def _train(
        self,
        scaling: Scaling,
        features: np.ndarray,
        target: Tensor,
        known: Tensor,
        validation: Labelled,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        inputs, held_out = scaling(features), scaling(validation[0])
        network = _network(inputs.shape[1], self.hidden, target.shape[1], self.dropout).to(inputs.device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        best, waited = -1.0, 0
        for _ in range(self.max_epochs):
            network.train()
            for rows in torch.randperm(len(inputs)).to(inputs.device).split(self.batch_size):
                optimizer.zero_grad(set_to_none=True)
                _log_loss(network(inputs[rows]), target[rows], known[rows]).backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                precisions = average_precisions(validation[1], network(held_out).cpu().numpy())
            if self.best_.improved_by(precisions).any():
                self.best_.offer(precisions, partial(_network_scores, scaling, copy.deepcopy(network)))
            mean = float(np.nan_to_num(mean_known(precisions)))
            best, waited = (mean, 0) if mean > best else (best, waited + 1)
            if waited >= self.patience:
                break

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


class TreesAttacker:
    """Gradient-boosted trees (histogram boosting), one ensemble an attribute, cut where validation peaks.

    Trees don't care how a coordinate is scaled but do care which axes they are given: after a rotation they are weaker,
    which is why they never attack alone. Deterministic below 200,000 rows (above, bins come from a sample).
    """

    def __init__(
        self,
        *,
        learning_rate: float = 0.1,
        max_trees: int = 60,
        stride: int = 5,
        leaves: int = 15,
        l2: float = 1.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.learning_rate, self.max_trees, self.stride = learning_rate, max_trees, stride
        self.leaves, self.l2, self.seed, self.device = leaves, l2, seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> TreesAttacker:
        from sklearn.ensemble import HistGradientBoostingClassifier

        self.best_ = _BestPerAttribute(labels.shape[1])
        for attribute, target in enumerate(labels.T):
            known = ~np.isnan(target)
            if len(np.unique(target[known])) < 2:
                continue
            trees = HistGradientBoostingClassifier(
                learning_rate=self.learning_rate,
                max_iter=self.max_trees,
                max_leaf_nodes=self.leaves,
                l2_regularization=self.l2,
                early_stopping=False,  # scikit-learn would hold out rows of the training subjects
                random_state=self.seed,
            ).fit(features[known], target[known] > 0)
            for count, scores in enumerate(trees.staged_decision_function(validation[0]), start=1):
                if count % self.stride == 0:
                    precisions = np.full(labels.shape[1], np.nan)
                    precisions[attribute] = average_precision(validation[1][:, attribute], np.ravel(scores))
                    self.best_.offer(precisions, partial(_tree_scores, trees, count))
        return self

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


class NeighboursAttacker:
    """k nearest training rows in Euclidean distance, votes weighted by closeness. Deterministic.

    A vote weighs exp(-d^2 / (2 h^2)), h^2 the query's mean squared distance to its k neighbours over 4: scores
    are then hardly ever tied, and the weights do not depend on the unit of the features.
    """

    def __init__(
        self,
        *,
        neighbours: tuple[int, ...] = (5, 20, 80, 320),
        scalings: tuple[str, ...] = ("standardise", "whiten"),
        chunk: int = 1024,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.neighbours, self.scalings, self.chunk = neighbours, scalings, chunk
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: Labelled) -> NeighboursAttacker:
        self.best_ = _BestPerAttribute(labels.shape[1])
        known, target = _known(labels, self.device)
        counts = sorted({min(k, len(features)) for k in self.neighbours})
        for name in self.scalings:
            scaling = SCALINGS[name](features, self.device)
            memory = scaling(features)
            votes = partial(_neighbour_votes, scaling, memory, target, known, self.chunk)
            for k, scores in zip(counts, votes(counts, validation[0]), strict=True):
                self.best_.offer(average_precisions(validation[1], scores), partial(_first_vote, votes, k))
        return self

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.best_.scores(features)


@dataclass(frozen=True)
class AttackerRow:
    """How an attacker is made, and whether another seed gives another attacker."""

    build: Callable[..., Attacker]
    """Takes `seed` and `device`."""
    stochastic: bool


ATTACKERS: dict[str, AttackerRow] = {
    "logistic": AttackerRow(LogisticAttacker, stochastic=False),
    "mlp": AttackerRow(MLPAttacker, stochastic=True),
    "mlp_large": AttackerRow(partial(MLPAttacker, hidden=(512, 256)), stochastic=True),
    "trees": AttackerRow(TreesAttacker, stochastic=False),
    "neighbours": AttackerRow(NeighboursAttacker, stochastic=False),
}


class _BestPerAttribute:
    """For each attribute, the candidate with the best validation average precision; a tie keeps the earlier."""

    def __init__(self, num_attributes: int) -> None:
        self.precision = np.full(num_attributes, -1.0)
        self.scorer: list[Callable[[np.ndarray], np.ndarray] | None] = [None] * num_attributes

    def improved_by(self, precisions: np.ndarray) -> np.ndarray:  # [A] -> [A] of bool
        return np.nan_to_num(precisions, nan=-1.0) > self.precision

    def offer(self, precisions: np.ndarray, scorer: Callable[[np.ndarray], np.ndarray]) -> None:
        better = self.improved_by(precisions)
        self.precision = np.where(better, precisions, self.precision)
        self.scorer = [scorer if wins else kept for wins, kept in zip(better, self.scorer, strict=True)]

    def scores(self, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
        """Scores of each attribute's winner, 0 for an attribute that validation could not judge."""
        result = np.zeros((len(features), len(self.scorer)), dtype=np.float32)
        answers = {id(scorer): scorer(features) for scorer in self.scorer if scorer is not None}
        for attribute, scorer in enumerate(self.scorer):
            if scorer is not None:
                answer = answers[id(scorer)]
                result[:, attribute] = answer if answer.ndim == 1 else answer[:, attribute]
        return result


def _double(features: np.ndarray, device: torch.device | str) -> Tensor:  # [N, D] -> [N, D] float64
    """On `device`, or on the CPU where the device has no double precision."""
    return torch.as_tensor(
        features, dtype=torch.float64, device="cpu" if torch.device(device).type == "mps" else device
    )


def _known(labels: np.ndarray, device: torch.device | str) -> tuple[Tensor, Tensor]:  # [N, A] -> [N, A], [N, A]
    """Which labels are known, as weights of 1 and 0, and the labels with 0 for the unknown."""
    labels = torch.as_tensor(labels, dtype=torch.float32, device=device)
    return (~labels.isnan()).float(), labels.nan_to_num()


def _log_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:  # [N, A] each -> []
    """Sum over attributes of the mean log loss over the rows whose label is known."""
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((losses * known).sum(dim=0) / known.sum(dim=0).clamp_min(1)).sum()


def _network(num_inputs: int, hidden: tuple[int, ...], num_outputs: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(num_inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        num_inputs = width
    return nn.Sequential(*layers, nn.Linear(num_inputs, num_outputs))


def _linear_scores(scaling: Scaling, weight: Tensor, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
    return torch.addmm(weight[-1], scaling(features), weight[:-1]).cpu().numpy()


@torch.no_grad()
def _network_scores(scaling: Scaling, network: nn.Module, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
    return network.eval()(scaling(features)).cpu().numpy()


def _tree_scores(trees: object, count: int, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N]
    stages = trees.staged_decision_function(features)
    return next(np.ravel(scores) for number, scores in enumerate(stages, start=1) if number == count)


def _neighbour_votes(
    scaling: Scaling, memory: Tensor, target: Tensor, known: Tensor, chunk: int, counts: list[int], features: np.ndarray
) -> list[np.ndarray]:  # [N, D] -> one [N, A] for each k of `counts` (ascending)
    queries = scaling(features)
    length = memory.square().sum(dim=1)  # [M]
    votes: list[list[Tensor]] = [[] for _ in counts]
    for query in queries.split(chunk):
        squared = torch.addmm(length, query, memory.T, alpha=-2).add_(query.square().sum(dim=1, keepdim=True))
        nearest, rows = squared.clamp_min_(0).topk(counts[-1], largest=False)  # [b, k], closest first
        for place, k in enumerate(counts):
            distance, row = nearest[:, :k], rows[:, :k]
            bandwidth = distance.mean(dim=1, keepdim=True).clamp_min(1e-30) / 4
            weight = torch.exp(-(distance - distance[:, :1]) / (2 * bandwidth))[..., None] * known[row]  # [b, k, A]
            votes[place].append((weight * target[row]).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-30))
    return [torch.cat(blocks).cpu().numpy() for blocks in votes]


def _first_vote(votes: Callable, k: int, features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, A]
    return votes([k], features)[0]
