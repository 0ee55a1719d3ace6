"""The objective of SPLAVU, written as in the paper.

    L = w_LC MSE(h, f_A(h)) + sum of w_task L_task(f_A(h)) - w_B L_B

or, in place of - L_B, what f_A(h) tells of the raw still pictures of its video beyond the action (docs/method.md).
The trainer knows nothing of its tasks but their contract (`splavu.training.tasks.Task`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.data.datasets import BatchLoader, ClipBatch
from splavu.runtime.checkpoints import load_into, state_of
from splavu.runtime.distributed import SINGLE, Processes
from splavu.training.critics import Critic
from splavu.training.learners import Learner, networks_of
from splavu.training.loop import Trainer
from splavu.training.objectives import conditional_contrast, nt_xent_share
from splavu.training.tasks import Task

EpochLength = Literal["clips", "longest", "shortest"]
"""What sets the steps of an epoch: one pass over the clips (the AR set; without one the longest source), over the
longest source, or over the shortest (the reference's way). Every other source goes on where it stopped."""

PrivacyObjective = Literal["published", "conditional", "critic"]
"""What is asked for privacy: static clips of a video that can't be told from others by cosine; or clips from which the
raw still picture of their video can't be told among those of its class, by cosine or by critics that learn to."""

LESSONS_AFTER = 1 << 32
"""Passes after which the critics' batches come in the sequence of passes: no training is so long."""


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
        privacy_objective: What is asked for privacy.
        critic: Of the objective 'critic'.
        notes: What checkpoints say of themselves beside weights, as plain values by name.
    """

    def __init__(
        self,
        anonymizer: Learner,
        tasks: Sequence[tuple[Task, float]],
        clips: BatchLoader | None,
        *,
        validation: BatchLoader | None = None,
        consistency_weight: float,
        privacy_weight: float,
        temperature: float = 0.1,
        epoch_length: EpochLength = "clips",
        processes: Processes = SINGLE,
        consistency: Callable[..., Tensor] = F.mse_loss,
        privacy_objective: PrivacyObjective = "published",
        critic: Critic | None = None,
        notes: Mapping[str, Any] | None = None,
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
        self.privacy_objective, self.critic, self.notes = privacy_objective, critic, dict(notes or {})
        self.learners = [anonymizer, *(task.learner for task in self.tasks)]
        if critic is not None:
            self.learners.append(critic)
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
        lessons = 0 if self.critic is None else self.critic.num_steps
        return Batches(self.sources, epoch, self.epoch_length, num_lessons=lessons)

    def objective(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """L, and its terms before weighting; of several processes this one's share of both. Critics learn first."""
        if self.critic is not None:
            batch = dict(batch)
            for lesson in batch.pop("lessons"):
                self._teach(lesson.to(self.processes.device))
        terms = self.terms(batch, self.processes)
        return self._weighted(terms), terms

    def _teach(self, clips: ClipBatch) -> None:
        with torch.no_grad():
            safe = self.anonymizer.network(clips.clips)
        self.critic.learn(*_of_everyone(safe, clips, self.processes), self.processes)

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        return sum(self.weights_of_terms[name] * term for name, term in terms.items())

    def terms(self, batch: Mapping[str, Any], processes: Processes) -> dict[str, Tensor]:
        """The objective's terms by name, each a scalar to be minimised: the share of one of `processes`."""
        moved = {id(part): part.to(processes.device) for part in batch.values()}
        batch = {name: moved[id(part)] for name, part in batch.items()}  # a shared part stays one object
        clips: ClipBatch | None = batch.get("clips")
        anonymize = Once(self.anonymizer.network)
        compares_static_clips = "privacy" in self.weights_of_terms and self.privacy_objective == "published"
        if compares_static_clips:
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
        if compares_static_clips:
            terms["privacy"] = -self._nt_xent(anonymize(first), anonymize(second), clips.num_total, processes)
        elif "privacy" in self.weights_of_terms:
            terms["privacy"] = self._told(anonymize(clips.clips), clips, processes) / processes.count
        return terms

    def _clip_consistency(self, safe: Tensor, clips: ClipBatch) -> Tensor:  # [b, D] -> []
        return self.consistency(safe, clips.clips, reduction="sum") / (clips.num_total * safe.shape[-1])

    def _nt_xent(  # [b, D], [b, D] -> []
        self, first: Tensor, second: Tensor, num_total: int, processes: Processes
    ) -> Tensor:
        everyone = (processes.gather(view, num_total) for view in (first, second))
        offset = processes.rows(num_total).start
        return nt_xent_share(first, second, *everyone, offset=offset, temperature=self.temperature)

    def _told(self, safe: Tensor, clips: ClipBatch, processes: Processes) -> Tensor:  # [b, D] -> []
        """Nats that clips tell of the raw still pictures of their videos beyond the class; every process has all of it.

        Less than nothing isn't rewarded: it takes no privacy to be taken for somebody else, only a change of sign.
        """
        everyone = _of_everyone(safe, clips, processes)
        if self.critic is None:
            return conditional_contrast(*everyone, temperature=self.temperature).clamp_min(0)
        return self.critic.information(*everyone).clamp_min(0)

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


def _of_everyone(  # [b, D] -> [B, D], [B, D], [B]
    safe: Tensor, clips: ClipBatch, processes: Processes
) -> tuple[Tensor, Tensor, Tensor]:
    """Anonymized clips of all processes, raw still pictures of the same videos (means of pairs), and classes."""
    static, classes = clips.static_pairs.mean(dim=1), clips.labels[:, None].to(torch.float32)
    safe, static, classes = (processes.gather(rows, clips.num_total) for rows in (safe, static, classes))
    return safe, static, classes[:, 0]


def steps_per_epoch(sources: Mapping[str, Any], length: EpochLength) -> int:
    """Steps of an epoch over several sources."""
    if length == "clips" and "clips" in sources:
        return len(sources["clips"])
    return (min if length == "shortest" else max)(len(source) for source in sources.values())


class Batches:
    """One epoch over several sources at once: a batch of each, those that are the same object read once.

    With `num_lessons` a step has so many more batches of clips, under 'lessons', from passes of their own.
    """

    def __init__(self, sources: Mapping[str, Any], epoch: int, length: EpochLength, *, num_lessons: int = 0) -> None:
        self.sources, self.epoch, self.num_lessons = sources, epoch, num_lessons
        self.num_steps = steps_per_epoch(sources, length)

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first = self.epoch * self.num_steps
        distinct = {id(source): source.steps(first, self.num_steps) for source in self.sources.values()}
        if self.num_lessons:
            clips = self.sources["clips"]
            start = LESSONS_AFTER * len(clips) + first * self.num_lessons
            lessons = clips.steps(start, self.num_steps * self.num_lessons)
        for _ in range(self.num_steps):
            drawn = {key: next(batches) for key, batches in distinct.items()}
            batch = {name: drawn[id(source)] for name, source in self.sources.items()}
            if self.num_lessons:
                batch["lessons"] = [next(lessons) for _ in range(self.num_lessons)]
            yield batch


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
