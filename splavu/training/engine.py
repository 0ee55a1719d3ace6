"""One epoch of training: batches in, updates out, the mean of each loss term back.

What surrounds the steps (validation, checkpoints, resume) is `splavu.training.loop`.

Note: nothing here waits for the device. Sums stay on it, and so does the number of the first step whose loss isn't
finite, so that the error can name the step although a GPU is asked only now and then.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from splavu.errors import UserError
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes
from splavu.runtime.environment import autocast
from splavu.runtime.options import option
from splavu.runtime.progress import progress_bar
from splavu.runtime.schema import Count, Few, Positive, Schema, Share
from splavu.training.learners import Learner

STEPS_BETWEEN_CHECKS = 50
"""Reading a loss waits for a GPU, so losses are checked once in this many steps there; on a CPU at each step."""


@dataclass(frozen=True, kw_only=True)
class EngineParams(Schema):
    """How steps are computed; part of the parameters of every training script."""

    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "of matrix products; fp16 scales losses. Weights, losses and metrics are fp32"
    )
    accumulate: Few = option(1, "batches whose gradients are averaged into one update")
    """NT-Xent compares within each batch, so this makes no larger batch."""
    clip_norm: Positive | None = option(None, "largest gradient norm of a network; none: no clipping")
    """TriDet has its own."""
    ema_decay: Share = option(0.0, "of a moving average of the weights, which is then evaluated and released; 0: none")
    compile: bool = option(False, "torch.compile the network")
    """Pays where steps are many and small kernels rule, as on a GPU."""
    deterministic: bool = option(False, "only deterministic kernels, slower on a GPU")
    """On a CPU a seed fixes everything anyhow."""
    checkpoint_freq: Count = option(1, "epochs between two writings of model_temp.pth, from which a run resumes")


class Steps(Protocol):
    """What an epoch is made of."""

    learners: Sequence[Learner]

    def batches(self, epoch: int) -> Iterable[Any]: ...

    def objective(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """This process's share of what is minimised, and of each of its terms by name."""
        ...


class Engine:
    """Everything of a step except its objective: precision, accumulation, updates, several processes."""

    def __init__(self, params: EngineParams, processes: Processes = NOT_DISTRIBUTED) -> None:
        self.params, self.processes = params, processes
        self.scaler = GradScaler(processes.device.type, enabled=params.precision == "fp16")

    def prepare(self, networks: Iterable[nn.Module]) -> None:
        """Compile the networks if the parameters say so.

        Raises:
            UserError: `compile` on a CPU without a C++ compiler.
        """
        if self.params.compile:
            if self.processes.device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
                raise UserError("compile", "needs a C++ compiler on a CPU", "install one, or set compile = False")
            for network in networks:
                network.compile()

    def epoch(self, steps: Steps, epoch: int, *, title: str | None = "") -> dict[str, float]:
        """One epoch of updates; returns the mean of each term over its steps. `title` None shows no progress.

        Raises:
            NonFiniteLoss: A term is NaN or infinite.
        """
        for learner in steps.learners:
            learner.network.train()
        batches = steps.batches(epoch)
        num_steps, accumulate = len(batches), self.params.accumulate
        sums = _Sums(epoch, self.processes)
        shows = self.processes.is_first and title is not None
        shown = progress_bar(batches, desc=title or f"epoch {epoch + 1}", leave=False) if shows else batches
        for number, batch in enumerate(shown):
            first = number - number % accumulate
            together = min(accumulate, num_steps - first)
            with autocast(self.processes.device, self.params.precision):
                objective, terms = steps.objective(batch)
            self.scaler.scale(objective / together if together > 1 else objective).backward()
            if number + 1 == first + together:
                self._update(steps.learners)
            sums.add({**terms, "total": objective}, number)
        return sums.means()

    def _update(self, learners: Sequence[Learner]) -> None:
        self.processes.add_gradients(chain.from_iterable(learner.network.parameters() for learner in learners))
        for learner in learners:
            learner.step(self.scaler)
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        return {"grad_scaler": self.scaler.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.scaler.load_state_dict(state["grad_scaler"])


class NonFiniteLoss(UserError):
    """A loss term that is NaN or infinite: names the term, the step and the epoch."""

    @classmethod
    def of(cls, term: str, step: int, epoch: int) -> NonFiniteLoss:
        """`step` and `epoch` count from 0."""
        problem = f"isn't finite in step {step + 1} of epoch {epoch + 1}"
        return cls(f"loss term '{term}'", problem, "lower the learning rate or its weight")


class _Sums:
    """The terms' sums over an epoch, on their device."""

    def __init__(self, epoch: int, processes: Processes) -> None:
        self.epoch, self.processes = epoch, processes
        self.names: tuple[str, ...] = ()
        self.count = 0

    def add(self, terms: Mapping[str, Tensor], step: int) -> None:
        values = torch.stack([value.detach().float() for value in terms.values()])  # [n]
        if not self.count:
            self.names = tuple(terms)
            self.sums = torch.zeros_like(values, dtype=torch.float64 if values.device.type != "mps" else None)
            self.first_bad = torch.full_like(values, torch.inf)
        self.sums += values
        self.first_bad = self.first_bad.minimum(torch.where(values.isfinite(), torch.inf, float(step)))
        self.count += 1
        if self.count % STEPS_BETWEEN_CHECKS == 0 or (values.device.type == "cpu" and self.processes.count == 1):
            self.check()

    def check(self) -> None:
        # A process whose own share is finite has to stop with the one whose share isn't.
        is_bad = self.processes.total(self.first_bad.isfinite().float())
        if is_bad.any():
            earliest = torch.where(is_bad > 0, self.first_bad, torch.inf).argmin()
            step = self.first_bad[earliest]
            raise NonFiniteLoss.of(self.names[earliest], int(step) if step.isfinite() else self.count - 1, self.epoch)

    def means(self) -> dict[str, float]:
        self.check()
        return dict(zip(self.names, (self.processes.total(self.sums) / self.count).tolist(), strict=True))
