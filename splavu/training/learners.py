"""A network with its optimizer, schedule, clipping and moving average: one `step`, one state to resume from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

FUSED_ON = ("cpu", "cuda")
"""Devices on which torch updates all parameters in one pass over memory."""


def adamw(parameters: Iterable[Tensor], *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, in one kernel where there is one.

    The update only moves memory: weight, gradient and two moments in, weight and moments out, 28 bytes a parameter. Op
    by op, as torch does by default, all of it moves several times; on a CPU that takes three times as long.
    """
    updated = list(parameters)
    fused = all(parameter.device.type in FUSED_ON for parameter in updated)
    return torch.optim.AdamW(updated, lr=lr, weight_decay=weight_decay, fused=fused)


class Stateful(Protocol):
    """What can be saved and resumed: a learning-rate schedule, a network."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Schedule(Stateful, Protocol):
    """A learning-rate schedule; torch's own are some."""

    def step(self) -> None: ...


class Average(Protocol):
    """A running average of a network's weights, such as an exponential moving average."""

    network: nn.Module
    """The averaged network, which is evaluated in place of the trained one."""

    def update(self, network: nn.Module) -> None: ...


class MovingAverage:
    """An exponential moving average of a network's weights and buffers, by torch's `AveragedModel`."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        # Begin as a copy; torch would take the first update for the start.
        self._averaged.n_averaged.fill_(1)
        self.network: nn.Module = self._averaged.module.eval().requires_grad_(False)

    def update(self, network: nn.Module) -> None:
        self._averaged.update_parameters(network)


def moving_average(network: nn.Module, decay: float) -> MovingAverage | None:
    """The average of `network`; none for a decay of 0."""
    return MovingAverage(network, decay) if decay else None


@dataclass
class Learner:
    """A network with its optimizer, schedule, clipping and moving average: one `step`, one state to resume from.

    Checkpoints keep the optimizer's state as `optimizer_{name}`.
    """

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None = None
    schedule_every: Literal["epoch", "step"] = "epoch"
    """When the schedule advances."""
    clip_norm: float | None = None
    """Largest gradient norm; None leaves gradients alone."""
    average: Average | None = None
    """Updated after each step."""

    def plan(self, *, num_epochs: int, steps_per_epoch: int) -> None:
        """Called once, before training, with its length; a learner whose schedule depends on that builds it here."""

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate: the average, where there is one."""
        return self.network if self.average is None else self.average.network

    def step(self, scaler: GradScaler | None = None) -> None:
        """Update the network from its gradients (scaled by `scaler`, if there is one) and clear them."""
        if self.clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        if self.schedule is not None and self.schedule_every == "step":
            self.schedule.step()
        if self.average is not None:
            self.average.update(self.network)

    def end_epoch(self) -> None:
        if self.schedule is not None and self.schedule_every == "epoch":
            self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs except the network's weights, which checkpoints keep under their own key."""
        return {f"{part}_{self.name}": stateful.state_dict() for part, stateful in self._stateful().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        for part, stateful in self._stateful().items():
            stateful.load_state_dict(state[f"{part}_{self.name}"])

    def _stateful(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {"optimizer": self.optimizer}
        if self.schedule is not None:
            parts["schedule"] = self.schedule
        if self.average is not None:
            parts["average"] = self.average.network
        return parts


def networks_of(learners: Mapping[str, Learner]) -> dict[str, nn.Module]:
    """Every network by the key of its weights in a checkpoint, averages under `{key}_ema`."""
    networks = {key: learner.network for key, learner in learners.items()}
    return networks | {
        f"{key}_ema": learner.average.network for key, learner in learners.items() if learner.average is not None
    }
