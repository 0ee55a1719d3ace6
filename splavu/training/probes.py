"""New heads on features that no longer change: how much utility is left once the anonymizer is fixed.

The anonymizer is never in training mode here and gets no gradient. The output of one that attends over the batch
depends on how features reach it, so that is an argument: 'alone', one feature at a time as when released, or 'batch',
as the paper's numbers were made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from splavu.anonymizers.apply import FrozenAnonymizer
from splavu.data.datasets import ClipBatch
from splavu.runtime.checkpoints import load_into, state_of
from splavu.training.learners import networks_of
from splavu.training.loop import Trainer
from splavu.training.tasks import Task


class ProbeTrainer(Trainer):
    """Trains the head of one task on the output of a fixed anonymizer.

    Args:
        served: The anonymizer.
        task: The head and its data.
        chooses: Whether validation chooses the epoch; False trains a fixed number, for data without a validation split.
    """

    def __init__(self, served: FrozenAnonymizer, task: Task, *, chooses: bool = True) -> None:
        self.served, self.task = served, task
        self.learners = [task.learner]
        self.score = task.score if chooses else None

    def batches(self, epoch: int) -> _Pass:
        return _Pass(self.task.source, epoch)

    def objective(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.task.loss(self.served, batch.to(self.task.device))
        return loss, {self.task.name: loss}

    def validate(self) -> dict[str, float]:
        return self.task.evaluate(self.served)

    def weights(self) -> dict[str, Any]:
        return {key: network.state_dict() for key, network in self._networks().items()}

    def load_weights(self, content: Mapping[str, Any]) -> None:
        for key, network in self._networks().items():
            load_into(network, state_of(content, key, "checkpoint"), "checkpoint")

    def _networks(self) -> dict[str, nn.Module]:
        return networks_of({self.task.checkpoint_key: self.task.learner})


class _Pass:
    """One epoch of a source, with its length."""

    def __init__(self, source: Any, epoch: int) -> None:
        self.source, self.epoch = source, epoch

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[ClipBatch]:
        return self.source.epoch(self.epoch)
