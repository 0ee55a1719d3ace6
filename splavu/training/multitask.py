"""The anonymizer's trainer: every step minimises the sum of weight * term over a list of terms.

The paper's list (docs/method.md has the others):

    L = w_LC MSE(h, f_A(h)) + sum of w_task L_task(f_A(h)) - w_B L_B

The trainer knows nothing of its tasks but their contract (`splavu.training.tasks.Task`), and nothing of the other terms
but that they are functions of `splavu.training.objectives.TermInputs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from splavu.data.clips import ClipBatch
from splavu.data.loader import BatchLoader
from splavu.runtime.checkpoints import load_into, state_of
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes
from splavu.training.critics import Critic
from splavu.training.learners import Learner, networks_of
from splavu.training.loop import Trainer
from splavu.training.objectives import CachedAnonymizer, Term, TermInputs, gathered

EpochLength = Literal["clips", "longest", "shortest"]
"""What sets the steps of an epoch: one pass over the clips (the AR set; without one the longest source), over the
longest source, or over the shortest (the reference's way). Every other source goes on where it stopped."""

CRITIC_PASSES = 1 << 32
"""Offset added to the pass index of the critics' batches so that they never coincide with the anonymizer's."""


class MultitaskTrainer(Trainer):
    """Trains the anonymizer on a list of terms, with the heads of the tasks among them.

    Args:
        anonymizer: f_A and its optimizer.
        terms: The loss, in the order in which it is computed and summed; terms of weight 0 are dropped.
        clips: Clips with what the terms need of them (labels, static pairs). None: no term but tasks' and consistency,
            which is then computed on whatever the tasks anonymize.
        validation: The same of the validation split; needed only without a task, to choose a checkpoint by.
        temperature: Of contrastive terms.
        epoch_length: What sets the number of steps.
        processes: Those that train together.
        critic: Trained before each step; for terms that need one.
        notes: Further entries of checkpoints, as plain values by name.

    Raises:
        ValueError: Two terms have one name.
    """

    def __init__(
        self,
        anonymizer: Learner,
        terms: Sequence[Term],
        clips: BatchLoader | None,
        *,
        validation: BatchLoader | None = None,
        temperature: float = 0.1,
        epoch_length: EpochLength = "clips",
        processes: Processes = NOT_DISTRIBUTED,
        critic: Critic | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self.anonymizer, self.clips, self.validation = anonymizer, clips, validation
        self.terms = [term for term in terms if term.weight]
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(f"terms of one name: {', '.join(names)}")
        self.tasks = [term.task for term in self.terms if term.task is not None]
        self.temperature, self.epoch_length, self.processes = temperature, epoch_length, processes
        self.critic, self.notes = critic, dict(notes or {})
        self.learners = [anonymizer, *(task.learner for task in self.tasks)]
        if critic is not None:
            self.learners.append(critic)
        self.score = f"{self.tasks[0].name}/{self.tasks[0].score}" if self.tasks else "objective"

    @property
    def sources(self) -> dict[str, Any]:
        """Where a step's batches come from, by the name under which terms find them."""
        clips = {} if self.clips is None else {"clips": self.clips}
        return clips | {task.name: task.source for task in self.tasks}

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes of the sources' feature stores."""
        if set(self.sources) <= {"clips", "ar"}:
            return dict(next(iter(self.sources.values())).provenance)
        return {name: dict(source.provenance) for name, source in self.sources.items()}

    def batches(self, epoch: int) -> Batches:
        num_critic_batches = 0 if self.critic is None else self.critic.num_steps
        return Batches(self.sources, epoch, self.epoch_length, num_critic_batches=num_critic_batches)

    def objective(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Update the critics; then L and its terms before weighting, of several processes this one's share of both."""
        if self.critic is not None:
            batch = dict(batch)
            for clips in batch.pop("critic_batches"):
                self._update_critic(clips.to(self.processes.device))
        losses = self.losses(batch, self.processes)
        return self._weighted(losses), losses

    def _update_critic(self, clips: ClipBatch) -> None:
        with torch.no_grad():
            safe = self.anonymizer.network(clips.clips)
        self.critic.update(*gathered(safe, clips, self.processes), self.processes)

    def _weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        return sum(term.weight * losses[term.name] for term in self.terms)

    def losses(self, batch: Mapping[str, Any], processes: Processes) -> dict[str, Tensor]:
        """Each term by name, a scalar to be minimised: the share of one of `processes`."""
        moved = {id(part): part.to(processes.device) for part in batch.values()}
        batch = {name: moved[id(part)] for name, part in batch.items()}  # a shared part stays one object
        anonymize = CachedAnonymizer(self.anonymizer.network)
        inputs = TermInputs(anonymize, batch, processes, self.critic, self.temperature)
        if any(term.anonymizes_static for term in self.terms):
            anonymize.together(inputs.clips.clips, *inputs.static_views)
        return {term.name: term.function(inputs) for term in self.terms}

    def validate(self) -> dict[str, float]:
        anonymizer = self.anonymizer.evaluated
        metrics = {
            f"{task.name}/{name}": value for task in self.tasks for name, value in task.evaluate(anonymizer).items()
        }
        return metrics or {"objective": self._objective()}

    @torch.no_grad()
    def _objective(self) -> float:
        """Without a task there is no utility to choose a checkpoint by: minus the loss on validation clips."""
        self.anonymizer.network.eval()
        each_alone, total = Processes(self.processes.device), 0.0  # every process validates on all of it
        for batch in self.validation.epoch(0):
            batch = replace(batch, clips=batch.clips.squeeze(1))  # one clip a video: [B, 1, D] -> [B, D]
            total -= float(self._weighted(self.losses({"clips": batch}, each_alone)))
        return total / len(self.validation)

    def weights(self) -> dict[str, Any]:
        states = {key: network.state_dict() for key, network in self._networks().items()}
        return {"fa_architecture": self.anonymizer.network.architecture, **self.notes, **states}

    def load_weights(self, content: Mapping[str, Any]) -> None:
        for key, network in self._networks().items():
            load_into(network, state_of(content, key, "checkpoint"), "checkpoint")

    def _networks(self) -> dict[str, nn.Module]:
        """Every network by the key of its weights in a checkpoint; averages too, for they are what is validated."""
        learners = {"fa_model_state_dict": self.anonymizer} | {task.checkpoint_key: task.learner for task in self.tasks}
        if self.critic is not None:
            learners["critic_state_dict"] = self.critic
        return networks_of(learners)


def steps_per_epoch(sources: Mapping[str, Any], length: EpochLength) -> int:
    """Steps of an epoch over several sources."""
    if length == "clips" and "clips" in sources:
        return len(sources["clips"])
    return (min if length == "shortest" else max)(len(source) for source in sources.values())


class Batches:
    """One epoch over several sources at once: a batch of each, those that are the same object read once.

    With `num_critic_batches` a step has so many more batches of clips, under 'critic_batches', from other passes.
    """

    def __init__(
        self, sources: Mapping[str, Any], epoch: int, length: EpochLength, *, num_critic_batches: int = 0
    ) -> None:
        self.sources, self.epoch, self.num_critic_batches = sources, epoch, num_critic_batches
        self.num_steps = steps_per_epoch(sources, length)

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first = self.epoch * self.num_steps
        distinct = {id(source): source.steps(first, self.num_steps) for source in self.sources.values()}
        if self.num_critic_batches:
            clips = self.sources["clips"]
            start = CRITIC_PASSES * len(clips) + first * self.num_critic_batches
            critic_batches = clips.steps(start, self.num_steps * self.num_critic_batches)
        for _ in range(self.num_steps):
            drawn = {key: next(batches) for key, batches in distinct.items()}
            batch = {name: drawn[id(source)] for name, source in self.sources.items()}
            if self.num_critic_batches:
                batch["critic_batches"] = [next(critic_batches) for _ in range(self.num_critic_batches)]
            yield batch
