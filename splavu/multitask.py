"""The objective of SPLAVU, written as in the paper.

    L = w_LC MSE(h, f_A(h)) + sum of w_task L_task(f_A(h)) - w_B L_B

The trainer knows nothing of its tasks but their contract (`splavu.tasks.Task`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.checkpoints import load_into, state_of
from splavu.datasets import ClipBatch, Stream
from splavu.learners import Learner, networks_of
from splavu.loop import Trainer
from splavu.objectives import nt_xent_share
from splavu.processes import SINGLE, Processes
from splavu.tasks import Task

EpochLength = Literal["clips", "longest", "shortest"]
"""What sets the steps of an epoch: one pass over the clips (the AR set; without one the longest source), over the
longest source, or over the shortest (the reference's way). Every other source goes on where it stopped."""


class MultitaskTrainer(Trainer):
    """Trains the anonymizer with its tasks.

    Args:
        anonymizer: f_A and its optimizer.
        tasks: The tasks with their weights; none weighs 0.
        clips: Clips with their static pairs, read by the privacy and the consistency terms. Without them there is no
            privacy term, and consistency is asked of whatever the tasks anonymize.
        validation: The same of the validation split; needed only without a task, to choose a checkpoint by.
        consistency_weight: w_LC.
        privacy_weight: w_B; 0 reads no static pair.
        temperature: Of NT-Xent.
        epoch_length: What sets the number of steps.
        processes: Those that train together.
        consistency: (anonymized, raw, reduction) -> the latent-consistency term, a mean over features and clips; the
            paper pre-trains with l1 instead.
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
        epoch_length: EpochLength = "clips",
        processes: Processes = SINGLE,
        consistency: Callable[..., Tensor] = F.mse_loss,
    ) -> None:
        self.anonymizer, self.clips, self.validation = anonymizer, clips, validation
        self.processes, self.consistency = processes, consistency
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

    def objective(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """L, and its terms before weighting; of several processes this one's share of both."""
        terms = self.terms(batch, self.processes)
        return self._weighted(terms), terms

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        return sum(self.weights_of_terms[name] * term for name, term in terms.items())

    def terms(self, batch: Mapping[str, Any], processes: Processes) -> dict[str, Tensor]:
        """The objective's terms by name, each a scalar to be minimised: the share of one of `processes`."""
        moved = {id(part): part.to(processes.device) for part in batch.values()}
        batch = {name: moved[id(part)] for name, part in batch.items()}  # a shared part stays one object
        clips: ClipBatch | None = batch.get("clips")
        anonymize = Once(self.anonymizer.network)
        if "privacy" in self.weights_of_terms:
            first, second = clips.static_pairs.unbind(dim=1)  # two of [b, D]
            anonymize.together(clips.clips, first, second)
        terms = {}
        for task in self.tasks:
            loss = task.loss(anonymize, batch[task.name])
            terms[task.name] = loss if task.splits_batches else loss / processes.count
        if "latent" in self.weights_of_terms:
            if clips is not None:
                terms["latent"] = self._clip_consistency(anonymize(clips.clips), clips)
            else:
                means = [self.consistency(safe, raw) for safe, raw in anonymize.pairs()]
                terms["latent"] = torch.stack(means).mean() / processes.count
        if "privacy" in self.weights_of_terms:
            terms["privacy"] = -self._nt_xent(anonymize(first), anonymize(second), clips.num_total, processes)
        return terms

    def _clip_consistency(self, safe: Tensor, clips: ClipBatch) -> Tensor:  # [b, D] -> []
        return self.consistency(safe, clips.clips, reduction="sum") / (clips.num_total * safe.shape[-1])

    def _nt_xent(  # [b, D], [b, D] -> []
        self, first: Tensor, second: Tensor, num_total: int, processes: Processes
    ) -> Tensor:
        everyone = (processes.gather(view, num_total) for view in (first, second))
        offset = processes.rows(num_total).start
        return nt_xent_share(first, second, *everyone, offset=offset, temperature=self.temperature)

    def validate(self) -> dict[str, float]:
        anonymizer = self.anonymizer.evaluated
        metrics = {
            f"{task.name}/{name}": value for task in self.tasks for name, value in task.evaluate(anonymizer).items()
        }
        return metrics or {"objective": self._objective()}

    @torch.no_grad()
    def _objective(self) -> float:
        """Without a task there is no utility to choose a checkpoint by: the negative objective on validation clips."""
        self.anonymizer.network.eval()
        each_alone, total = Processes(self.processes.device), 0.0  # every process validates on all of it
        for batch in self.validation.epoch(0):
            batch = replace(batch, clips=batch.clips.squeeze(1))  # one clip a video: [B, 1, D] -> [B, D]
            total -= float(self._weighted(self.terms({"clips": batch}, each_alone)))
        return total / len(self.validation)

    def weights(self) -> dict[str, Any]:
        states = {key: network.state_dict() for key, network in self._networks().items()}
        return {"fa_architecture": self.anonymizer.network.architecture, **states}

    def load_weights(self, content: Mapping[str, Any]) -> None:
        for key, network in self._networks().items():
            load_into(network, state_of(content, key, "checkpoint"), "checkpoint")

    def _networks(self) -> dict[str, nn.Module]:
        """Every network by the key of its weights in a checkpoint; averages too, for they are what is validated."""
        learners = {"fa_model_state_dict": self.anonymizer} | {task.checkpoint_key: task.learner for task in self.tasks}
        return networks_of(learners)


def steps_per_epoch(sources: Mapping[str, Any], length: EpochLength) -> int:
    """Steps of an epoch over several sources."""
    if length == "clips" and "clips" in sources:
        return len(sources["clips"])
    return (min if length == "shortest" else max)(len(source) for source in sources.values())


class Batches:
    """One epoch over several sources at once: a batch of each, those that are the same object read once."""

    def __init__(self, sources: Mapping[str, Any], epoch: int, length: EpochLength) -> None:
        self.sources, self.epoch = sources, epoch
        self.num_steps = steps_per_epoch(sources, length)

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first = self.epoch * self.num_steps
        distinct = {id(source): source.steps(first, self.num_steps) for source in self.sources.values()}
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

    def together(self, *features: Tensor) -> None:  # each [B, D]
        """Map several tensors of independent rows in one pass, to be had again one by one."""
        if self.anonymizer.attends_over != "batch":  # there the rows of one tensor are one sequence
            mapped = self.anonymizer(torch.cat(features)).split([len(rows) for rows in features])
            self._seen |= {(id(rows), id(None)): (rows, safe) for rows, safe in zip(features, mapped, strict=True)}

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(anonymized, raw) of everything mapped so far."""
        return [(safe, raw) for raw, safe in self._seen.values()]
