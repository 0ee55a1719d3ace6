"""The objective of SPLAVU, written as in the paper.

    L = w_LC MSE(h, f_A(h)) + sum of w_task L_task(f_A(h)) - w_B L_B

The trainer knows nothing of its tasks but their contract (`splavu.tasks.Task`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from splavu.checkpoints import load_into, state_of
from splavu.datasets import ClipBatch, Stream
from splavu.objectives import latent_consistency, nt_xent
from splavu.runtime import autocast
from splavu.tasks import Learner, Task

EpochLength = Literal["longest", "shortest"]


class MultitaskTrainer:
    """Trains the anonymizer with its tasks; a `splavu.loop.Trainer`.

    Args:
        anonymizer: f_A and its optimizer.
        tasks: The tasks with their weights; none weighs 0.
        clips: Clips with their static pairs, read by the privacy and the consistency terms. Without them there is no
            privacy term, and consistency is asked of whatever the tasks anonymize.
        validation: The same of the validation split; needed only without a task, to choose a checkpoint by.
        consistency_weight: w_LC.
        privacy_weight: w_B; 0 reads no static pair.
        temperature: Of NT-Xent.
        epoch_length: A longer source sets the number of steps and the shorter ones start over ('longest'), or the
            shortest ends the epoch (the reference's way).
        device: Where batches go.
        precision: 'fp32', 'bf16'.
        consistency: (anonymized, raw) -> the latent-consistency term; the paper pre-trains with l1 instead.
    """

    def __init__(
        self,
        anonymizer: Learner,
        tasks: Sequence[tuple[Task, float]],
        clips: Stream | None,
        *,
        validation: Stream | None = None,
        consistency_weight: float,
        privacy_weight: float,
        temperature: float = 0.1,
        epoch_length: EpochLength = "longest",
        device: torch.device,
        precision: str = "fp32",
        consistency: Callable[[Tensor, Tensor], Tensor] = latent_consistency,
    ) -> None:
        self.anonymizer, self.clips, self.validation = anonymizer, clips, validation
        self.device, self.precision, self.consistency = device, precision, consistency
        self.tasks = [task for task, _ in tasks]
        self.weights_of_terms = {task.name: weight for task, weight in tasks}
        if consistency_weight:
            self.weights_of_terms["latent"] = consistency_weight
        if privacy_weight:
            self.weights_of_terms["privacy"] = privacy_weight
        self.temperature, self.epoch_length = temperature, epoch_length
        self.learners = [anonymizer, *(task.learner for task in self.tasks)]
        self.score = f"{self.tasks[0].name}/{self.tasks[0].score}" if self.tasks else "objective"

    @property
    def sources(self) -> dict[str, Any]:
        """Where a step's batches come from, by the name of their term."""
        clips = {} if self.clips is None else {"clips": self.clips}
        return clips | {task.name: task.source for task in self.tasks}

    @property
    def provenance(self) -> dict[str, Any]:
        """What the sources say of their making."""
        if set(self.sources) <= {"clips", "ar"}:
            return dict(next(iter(self.sources.values())).provenance)
        return {name: dict(source.provenance) for name, source in self.sources.items()}

    def batches(self, epoch: int) -> Batches:
        return Batches(self.sources, epoch, self.epoch_length)

    def step(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        moved = {id(part): part.to(self.device) for part in batch.values()}
        batch = {name: moved[id(part)] for name, part in batch.items()}  # a shared part stays one object
        with autocast(self.device, self.precision):
            terms = self.terms(batch)
            total = sum(self.weights_of_terms[name] * term for name, term in terms.items())
        for learner in self.learners:
            learner.zero_grad()
        total.backward()
        for learner in self.learners:
            learner.step()
        return {**{name: term.detach() for name, term in terms.items()}, "total": total.detach()}

    def terms(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The objective's terms by name, each a scalar to be minimised, before weighting."""
        anonymize = Once(self.anonymizer.network)
        terms = {task.name: task.loss(anonymize, batch[task.name]) for task in self.tasks}
        clips: ClipBatch | None = batch.get("clips")
        if "latent" in self.weights_of_terms:
            pairs = [(anonymize(clips.clips), clips.clips)] if clips is not None else anonymize.pairs()
            terms["latent"] = torch.stack([self.consistency(safe, raw) for safe, raw in pairs]).mean()
        if "privacy" in self.weights_of_terms:
            first, second = (anonymize(frames) for frames in clips.static_pairs.unbind(dim=1))  # two of [B, D]
            terms["privacy"] = -nt_xent(first, second, temperature=self.temperature)
        return terms

    def validate(self) -> dict[str, float]:
        anonymizer = self.anonymizer.network
        metrics = {
            f"{task.name}/{name}": value for task in self.tasks for name, value in task.evaluate(anonymizer).items()
        }
        return metrics or {"objective": self._objective()}

    @torch.no_grad()
    def _objective(self) -> float:
        """Without a task there is no utility to choose a checkpoint by: the negative objective on validation clips."""
        self.anonymizer.network.eval()
        total = 0.0
        for batch in self.validation.epoch(0):
            terms = self.terms({"clips": batch.to(self.device)})
            total -= float(sum(self.weights_of_terms[name] * term for name, term in terms.items()))
        return total / len(self.validation)

    def weights(self) -> dict[str, Any]:
        states = {key: network.state_dict() for key, network in self._networks().items()}
        return {"fa_architecture": self.anonymizer.network.architecture, **states}

    def load_weights(self, content: Mapping[str, Any]) -> None:
        for key, network in self._networks().items():
            load_into(network, state_of(content, key, "checkpoint"), "checkpoint")

    def _networks(self) -> dict[str, nn.Module]:
        """Every network by the key of its weights in a checkpoint; averages too, for they are what is validated."""
        networks = {"fa_model_state_dict": self.anonymizer.network}
        for task in self.tasks:
            networks[task.checkpoint_key] = task.learner.network
            if task.learner.average is not None:
                networks[f"{task.checkpoint_key}_ema"] = task.learner.average.network
        return networks


def steps_per_epoch(sources: Mapping[str, Any], length: EpochLength) -> int:
    """Steps of an epoch over several sources."""
    return (max if length == "longest" else min)(len(source) for source in sources.values())


class Batches:
    """One epoch over several sources at once: a batch of each, those that are the same object read once."""

    def __init__(self, sources: Mapping[str, Any], epoch: int, length: EpochLength) -> None:
        self.sources, self.epoch = sources, epoch
        self.num_steps = steps_per_epoch(sources, length)

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        distinct = {id(source): source.epoch(self.epoch, num_steps=self.num_steps) for source in self.sources.values()}
        for _ in range(self.num_steps):
            drawn = {key: next(batches) for key, batches in distinct.items()}
            yield {name: drawn[id(source)] for name, source in self.sources.items()}


class Once(nn.Module):
    """An anonymizer that maps each tensor of a step once, however many terms read it."""

    def __init__(self, anonymizer: nn.Module) -> None:
        super().__init__()
        self.anonymizer = anonymizer
        self._seen: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        key = (id(features), id(mask))
        if key not in self._seen:  # the input is kept too, so that its id can't be given to another tensor
            self._seen[key] = (features, self.anonymizer(features, mask))
        return self._seen[key][1]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(anonymized, raw) of everything mapped so far."""
        return [(safe, raw) for raw, safe in self._seen.values()]
