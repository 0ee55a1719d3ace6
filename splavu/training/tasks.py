"""Tasks: what anonymized features must stay useful for, behind one contract; the trainer knows nothing else of them.

A task is built only if its weight isn't 0, so the data of an unused task need not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.anonymizers import Anonymizer
from splavu.data.datasets import BatchLoader, ClipBatch
from splavu.metrics import cmap, top1
from splavu.training.heads import reverse_gradient
from splavu.training.learners import Learner

logger = logging.getLogger(__name__)


class BatchSource(Protocol):
    """Where a task's batches come from; tasks that name the same source share its batches."""

    provenance: dict[str, Any]
    """Attributes of the feature store (encoder, weights, preprocessing), as plain values."""

    def __len__(self) -> int:
        """Batches of one pass."""
        ...

    def steps(self, first: int, count: int) -> Iterator[Any]:
        """Batches number `first` to `first + count - 1` of pass after pass; a function of the numbers alone."""
        ...


def passes(first: int, count: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Steps `first` to `first + count - 1` of passes that are `length` long: (pass, first step in it, steps of it)."""
    while count > 0:
        number, start = divmod(first, length)
        taken = min(count, length - start)
        yield number, start, taken
        first, count = first + taken, count - taken


class Task(Protocol):
    """What the multitask trainer asks of a task."""

    name: str
    """Names the loss term and the metrics: 'ar', 'tad', 'ad', 'fb'."""
    learner: Learner
    checkpoint_key: str
    """Key of the head's weights in a checkpoint."""
    source: BatchSource

    splits_batches: bool
    """True: each of several processes gets a slice of a batch, and losses add up. False: each gets all of it."""

    def loss(self, anonymizer: nn.Module, batch: Any) -> Tensor:  # -> []
        """The task's loss on anonymized features; the gradient reaches the anonymizer."""
        ...

    def evaluate(self, anonymizer: Anonymizer) -> dict[str, float]:
        """Metrics on validation data; higher is better for the one called like `score`."""
        ...

    score: str
    """The metric by which checkpoints are chosen."""


@dataclass
class ActionRecognition:
    """A linear head on clip features; validation averages the softmax of evenly spaced clips of each video.

    Source: L_AR of Fioresi et al. 2026; five clips a video ("modes").
    """

    learner: Learner
    source: BatchLoader
    validation: BatchLoader
    """In file order, `EvenClips`."""
    device: torch.device
    name: str = "ar"
    checkpoint_key: str = "ft_model_ar_state_dict"
    score: str = field(default="top1", init=False)
    splits_batches: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        trained, held_out = self.source.dataset, self.validation.dataset
        if untrained := sorted(set(held_out.labels.tolist()).difference(trained.labels.tolist())):
            logger.warning(
                "%d classes of the held-out videos have no training video and can't be recognised: class %d of '%s' is "
                "one (counted from 0)",
                len(untrained),
                untrained[0],
                held_out.keys[held_out.labels.tolist().index(untrained[0])],
            )

    def loss(self, anonymizer: nn.Module, batch: ClipBatch) -> Tensor:
        logits = self.learner.network(anonymizer(batch.clips))
        return F.cross_entropy(logits, batch.labels, reduction="sum") / batch.num_total

    def evaluate(self, anonymizer: Anonymizer) -> dict[str, float]:
        probabilities, labels = self.video_probabilities(anonymizer)
        log_likelihood = probabilities.clamp_min(1e-12).log()
        return {
            "top1": top1(labels.numpy(), probabilities.numpy()),
            "loss": float(F.nll_loss(log_likelihood, labels)),
        }

    def video_probabilities(self, anonymizer: Anonymizer) -> tuple[Tensor, Tensor]:  # -> [V, C], [V]
        """Class probabilities and classes of the validation videos, in file order."""
        return _video_means(self, anonymizer, lambda logits: logits.softmax(dim=-1))


@dataclass
class AttributeRecognition:
    """A head that predicts the private attributes of a clip; validation is the cMAP of videos, 0 to 1.

    Source: the privacy head f_B of Fioresi et al. 2026, logistic loss.
    """

    learner: Learner
    source: BatchLoader
    """Labels are attributes, [B, A]."""
    validation: BatchLoader
    """In file order, `EvenClips`."""
    device: torch.device
    name: str = "fb"
    checkpoint_key: str = "fb_model_state_dict"
    score: str = field(default="cmap", init=False)
    splits_batches: bool = field(default=True, init=False)

    def loss(self, anonymizer: nn.Module, batch: ClipBatch) -> Tensor:
        logits = self.learner.network(anonymizer(batch.clips))
        losses = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")  # [b, A]
        return losses.mean(dim=1).sum() / batch.num_total

    def evaluate(self, anonymizer: Anonymizer) -> dict[str, float]:
        probabilities, labels = self.video_probabilities(anonymizer)
        return {
            "cmap": cmap(labels.numpy(), probabilities.numpy()).mean,
            "loss": float(F.binary_cross_entropy(probabilities, labels)),
        }

    def video_probabilities(self, anonymizer: Anonymizer) -> tuple[Tensor, Tensor]:  # -> [V, A], [V, A]
        """Probability of each attribute and the attributes of the validation videos, in file order."""
        return _video_means(self, anonymizer, torch.sigmoid)


@dataclass
class AdversarialAttributes(AttributeRecognition):
    """The same head as an adversary: it learns to predict the attributes, and the anonymizer learns to prevent it.

    One loss serves both, because the gradient changes its sign between head and anonymizer (Ganin and Lempitsky 2015).
    Note: this head's score doesn't measure privacy; that takes an attacker trained after the anonymizer.
    """

    score: str = field(default="privacy", init=False)

    def loss(self, anonymizer: nn.Module, batch: ClipBatch) -> Tensor:
        return super().loss(lambda clips: reverse_gradient(anonymizer(clips)), batch)

    def evaluate(self, anonymizer: Anonymizer) -> dict[str, float]:
        metrics = super().evaluate(anonymizer)
        return {**metrics, "privacy": 1 - metrics["cmap"]}


@torch.no_grad()
def _video_means(
    task: ActionRecognition | AttributeRecognition, anonymizer: Anonymizer, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:  # -> [V, C], [V] or [V, A]
    """Activated outputs of the head, averaged over each video's clips, and the videos' labels."""
    anonymizer.eval()
    head = task.learner.evaluated.eval()
    means, labels = [], []
    for batch in task.validation.epoch(0):
        batch = batch.to(task.device)
        # One pass for each mode: an anonymizer that attends over the batch sees one clip of each video at a time.
        modes = [activation(head(anonymizer(clips))) for clips in batch.clips.unbind(dim=1)]
        means.append(torch.stack(modes).mean(dim=0).cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(means), torch.cat(labels)
