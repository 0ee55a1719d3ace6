"""How the network is updated: parameter groups, optimizer, learning rate, clipping, moving average.

Order of an iteration: backward, `clip`, `optimizer.step()`, `LearningRate.step()`, `MovingAverage.update()`. The rate
changes with every iteration and the first one has rate 0: weights stay, but the optimizer's moments don't.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tridet.errors import InputError
from tridet.schema import OptConfig


def parameter_groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The parameters that decay (weights of convolutions) and those that don't (biases, norms, scales), sorted by name.

    This order numbers the parameters in a saved optimizer's state, so checkpoints depend on it.
    """
    decayed = {
        f"{prefix}.weight".lstrip(".")
        for prefix, module in model.named_modules()
        if isinstance(module, (nn.Conv1d, nn.Linear))
    }
    named = sorted(model.named_parameters())
    return (
        {name: parameter for name, parameter in named if name in decayed},
        {name: parameter for name, parameter in named if name not in decayed},
    )


def build_optimizer(model: nn.Module, opt: OptConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over `parameter_groups`, the first with weight decay, at the base learning rate."""
    decayed, rest = (list(group.values()) for group in parameter_groups(model))
    groups = [{"params": decayed, "weight_decay": opt.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if opt.type == "SGD":
        return torch.optim.SGD(groups, lr=opt.learning_rate, momentum=opt.momentum)
    return torch.optim.AdamW(groups, lr=opt.learning_rate)


def learning_rate(step: int, opt: OptConfig, *, iters_per_epoch: int) -> float:
    """The rate after `step` iterations: linear warm-up from 0, then half a cosine down to `eta_min`, or steps.

    After the last epoch a cosine stays at `eta_min` (the public release lets it rise again). Without warm-up, or with
    one of 0 epochs, the first iteration has the base rate.
    """
    base, warmup = opt.learning_rate, warmup_iterations(opt, iters_per_epoch=iters_per_epoch)
    if step < warmup:
        return base * step / max(warmup - 1, 1)
    if opt.schedule_type == "multistep":
        passed = sum(milestone * iters_per_epoch <= step - warmup for milestone in opt.schedule_steps)
        return base * opt.schedule_gamma**passed
    progress = min((step - warmup) / (opt.epochs * iters_per_epoch), 1.0)
    return opt.eta_min + 0.5 * (base - opt.eta_min) * (1 + math.cos(math.pi * progress))


def warmup_iterations(opt: OptConfig, *, iters_per_epoch: int) -> int:
    """Iterations before the rate has been at its base."""
    return opt.warmup_epochs * iters_per_epoch if opt.warmup else 0


class LearningRate:
    """Sets `learning_rate` in every group of an optimizer, at once and after each iteration.

    Its state is the public checkpoints' `scheduler` dictionary.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, opt: OptConfig, *, iters_per_epoch: int) -> None:
        self._optimizer, self._opt, self._iters_per_epoch = optimizer, opt, iters_per_epoch
        self.num_steps = 0
        """Iterations done."""
        self._apply()

    @property
    def current(self) -> float:
        """The rate of the next iteration."""
        return learning_rate(self.num_steps, self._opt, iters_per_epoch=self._iters_per_epoch)

    def step(self) -> None:
        """An iteration is done."""
        self.num_steps += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        warmup = warmup_iterations(self._opt, iters_per_epoch=self._iters_per_epoch)
        groups = len(self._optimizer.param_groups)
        return {
            "warmup_epochs": warmup,  # in iterations, whatever the name says
            "max_epochs": warmup + self._opt.epochs * self._iters_per_epoch,
            "warmup_start_lr": 0.0,
            "eta_min": self._opt.eta_min,
            "base_lrs": [self._opt.learning_rate] * groups,
            "last_epoch": self.num_steps,
            "_step_count": self.num_steps + 1,
            "_last_lr": [self.current] * groups,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the iterations that `state` counts.

        Raises:
            InputError: `state` is of a schedule of another length, or counts nothing.
        """
        if not isinstance(state.get("last_epoch"), int):
            raise InputError("scheduler", "its state has no 'last_epoch'", "resume from a checkpoint of a training run")
        for key, own in self.state_dict().items():
            if key in ("warmup_epochs", "max_epochs", "base_lrs") and key in state and state[key] != own:
                raise InputError(
                    "scheduler",
                    f"the checkpoint's {key} is {state[key]}, this run's {own} (in iterations)",
                    "resume with the configuration and the videos it was trained with, or start from its weights alone",
                )
        self.num_steps = state["last_epoch"]
        self._apply()

    def _apply(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.current


class MovingAverage:
    """An exponential moving average of a network's weights, which is what is evaluated.

    It starts as an exact copy, so it needs no correction for its beginning.
    """

    def __init__(self, network: nn.Module, *, decay: float = 0.999) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move every entry of the state, buffers too, a little towards the trained network's."""
        current = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.mul_(self.decay).add_(current[name], alpha=1 - self.decay)
            else:
                average.copy_(current[name])


def clip(parameters: Iterable[Tensor], max_norm: float) -> Tensor:  # -> []
    """Scale gradients in place so that their joint L2 norm is at most `max_norm`; 0 or less leaves them alone.

    Returns the norm that they had.
    """
    return nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else math.inf)
