"""The terms of the anonymizer's loss, and the table of those that a parameter file can name.

The loss is a list of `Term(name, weight, function)`; the trainer minimises the sum of weight * function. A new term on
clips is a function of `TermInputs` here and its line in `OBJECTIVES`: `privacy_objective = "its name"` or
`extra_terms = {"its name": 0.1}` then trains with it. The line says what the term needs; parameters and trainer read
that, so that no store is opened and no critic is built that no term uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.data.clips import ClipBatch
from splavu.errors import UserError
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes
from splavu.training.contrastive import conditional_contrast, nt_xent_share
from splavu.training.critics import Critic
from splavu.training.tasks import Task


class CachedAnonymizer(nn.Module):
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
        """Map several tensors of independent rows in one pass; `forward` then returns each from the cache."""
        if self.anonymizer.attends_over != "batch":  # there the rows of one tensor are one sequence
            mapped = self.anonymizer(torch.cat(features)).split([len(rows) for rows in features])
            self._seen |= {(id(rows), id(None)): (rows, safe) for rows, safe in zip(features, mapped, strict=True)}

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(anonymized, raw) of everything mapped so far."""
        return [(safe, raw) for raw, safe in self._seen.values()]


@dataclass(frozen=True)
class TermInputs:
    """What the terms of one step read.

    Letters: b clips of this process, B of all processes, D feature width.
    """

    anonymize: CachedAnonymizer
    batch: Mapping[str, Any]
    """By source: 'clips' is a `ClipBatch`, a task's batch is under the task's name."""
    processes: Processes = NOT_DISTRIBUTED
    critic: Critic | None = None
    """Trained beside the anonymizer, if a term needs it."""
    temperature: float = 0.1
    """Of contrastive terms."""

    @property
    def clips(self) -> ClipBatch:
        """Raw clips [b, D] with the labels and static clips that the terms need."""
        return self.batch["clips"]

    @property
    def anonymized_clips(self) -> Tensor:  # [b, D]
        return self.anonymize(self.clips.clips)

    @cached_property
    def static_views(self) -> tuple[Tensor, Tensor]:  # two of [b, D]
        """Two raw static clips of each clip's video; the same tensors each time, so that they are mapped once."""
        return self.clips.static_pairs.unbind(dim=1)

    @property
    def anonymized_static_views(self) -> tuple[Tensor, Tensor]:  # two of [b, D]
        first, second = self.static_views
        return self.anonymize(first), self.anonymize(second)

    def gather(self, rows: Tensor) -> Tensor:  # [b, D] -> [B, D]
        """The rows of all processes, in their order, with gradients."""
        return self.processes.gather(rows, self.clips.num_total)

    def with_static_frames(self) -> tuple[Tensor, Tensor, Tensor]:  # [B, D], [B, D], [B]
        """Of all processes: anonymized clips, the raw still frame of each one's video, and its class."""
        return gathered(self.anonymized_clips, self.clips, self.processes)


def gathered(  # [b, D] -> [B, D], [B, D], [B]
    safe: Tensor, clips: ClipBatch, processes: Processes
) -> tuple[Tensor, Tensor, Tensor]:
    """Anonymized clips of all processes, raw still frames of the same videos (means of pairs), and classes."""
    static, classes = clips.static_pairs.mean(dim=1), clips.labels[:, None].to(torch.float32)
    safe, static, classes = (processes.gather(rows, clips.num_total) for rows in (safe, static, classes))
    return safe, static, classes[:, 0]


@dataclass(frozen=True)
class Objective:
    """A loss term on clips, and what it needs."""

    function: Callable[[TermInputs], Tensor]
    """-> [], to be minimised."""
    static: Literal["raw", "anonymized"] | None = None
    """Whether it reads static clips, and how: anonymized ones are mapped in one pass with the clips."""
    classes: bool = False
    """Whether it reads the actions of the clips."""
    critic: bool = False
    """Whether it needs a critic, which is then trained on batches of its own before each step."""
    whole_batch: bool = False
    """How it splits over processes. False: the function gives this process's share, the sum over its rows divided by
    the rows of all, as for a loss per clip. True: it gives the value for the whole batch, from gathered rows, in every
    process."""


@dataclass(frozen=True)
class Term:
    """One summand of the loss."""

    name: str
    """In logs and errors."""
    weight: float
    """0 leaves the term out."""
    function: Callable[[TermInputs], Tensor]
    """-> [], this process's share of the term, to be minimised."""
    task: Task | None = None
    """Whose loss it is: its head is trained with the anonymizer, and validated."""
    anonymizes_static: bool = False
    """Whether it reads `anonymized_static_views`."""

    @classmethod
    def of_task(cls, task: Task, weight: float) -> Term:
        """The task's loss. Every process computes all of a batch that can't be split, and takes its share."""

        def function(inputs: TermInputs) -> Tensor:
            loss = task.loss(inputs.anonymize, inputs.batch[task.name])
            return loss if task.splits_batches else loss / inputs.processes.count

        return cls(task.name, weight, function, task=task)

    @classmethod
    def of_objective(cls, name: str, weight: float, objective: Objective) -> Term:
        """A row of `OBJECTIVES` under the name that logs give it."""

        def function(inputs: TermInputs) -> Tensor:
            loss = objective.function(inputs)
            return loss / inputs.processes.count if objective.whole_batch else loss

        return cls(name, weight, function, anonymizes_static=objective.static == "anonymized")


def latent_consistency(inputs: TermInputs, distance: Callable[..., Tensor] = F.mse_loss) -> Tensor:
    """L_LC: how far anonymized features are from raw ones, a mean over clips and features.

    Without clips it is the mean over whatever the tasks before it in the list have anonymized.

    Args:
        inputs: Of the step.
        distance: (anonymized, raw, reduction) -> []; the paper trains with the squared error and pre-trains with l1.
    """
    if "clips" not in inputs.batch:
        means = [distance(safe, raw) for safe, raw in inputs.anonymize.pairs()]
        return torch.stack(means).mean() / inputs.processes.count
    safe = inputs.anonymized_clips
    return distance(safe, inputs.clips.clips, reduction="sum") / (inputs.clips.num_total * safe.shape[-1])


def static_nt_xent(inputs: TermInputs) -> Tensor:
    """- L_B, the paper's privacy budget: static clips of a video shall not resemble each other more than others.

    Source: Fioresi et al. 2026; minus NT-Xent over the pairs of all processes.
    """
    first, second = inputs.anonymized_static_views
    everyone = inputs.gather(first), inputs.gather(second)
    offset = inputs.processes.rows(inputs.clips.num_total).start
    return -nt_xent_share(first, second, *everyone, offset=offset, temperature=inputs.temperature)


def conditional_leakage(inputs: TermInputs) -> Tensor:
    """Nats by which cosines link a clip to the raw still frame of its video among those of its class."""
    return leakage_bound(conditional_contrast(*inputs.with_static_frames(), temperature=inputs.temperature))


def critic_leakage(inputs: TermInputs) -> Tensor:
    """Nats by which the critics link a clip to the raw still frame of its video among those of its class."""
    return leakage_bound(inputs.critic.information(*inputs.with_static_frames()))


def leakage_bound(information: Tensor) -> Tensor:  # [] -> []
    """An estimate of mutual information as something to minimise: less than 0 nats earns nothing.

    Scores below chance take no privacy, only a change of sign.
    """
    return information.clamp_min(0)


OBJECTIVES: dict[str, Objective] = {
    "published": Objective(static_nt_xent, static="anonymized"),
    "nt_xent": Objective(static_nt_xent, static="anonymized"),
    "conditional": Objective(conditional_leakage, static="raw", classes=True, whole_batch=True),
    "critic": Objective(critic_leakage, static="raw", classes=True, critic=True, whole_batch=True),
}
"""Terms on clips by the name that parameters give them. 'published' is the older name of 'nt_xent'."""


@dataclass(frozen=True)
class RelativeConsistency:
    """Squared error as a share of the features' variance, so that one weight serves every encoder.

    1 is the error of a constant anonymizer, 0.1 a loss of a tenth of the variance.
    """

    variance: float
    """Of raw training features, the mean over dimensions: a constant of the encoder, never of the batch."""

    def __post_init__(self) -> None:
        if not 0 < self.variance < float("inf"):
            raise UserError("consistency", f"features have variance {self.variance}", "look at the feature store")

    def __call__(self, anonymized: Tensor, raw: Tensor, reduction: str = "mean") -> Tensor:
        return F.mse_loss(anonymized, raw, reduction=reduction) / self.variance
