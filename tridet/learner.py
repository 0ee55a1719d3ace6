"""TriDet as something that a training engine steps: optimizer, learning rate, clipping, average, loss normaliser.

The learning rate changes with each update, so their number has to be known: `plan` for a co-training,
`schedule_as_configured` for a training of the detector alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from splavu.errors import UserError
from splavu.training.learners import Learner
from tridet.detector import TriDet
from tridet.errors import InputError
from tridet.optim import LearningRate, MovingAverage, build_optimizer
from tridet.schema import Config


class DetectorLearner(Learner):
    """A learner with TriDet's schedule and its running loss normaliser, which the published weights don't hold."""

    @property
    def config(self) -> Config:
        return self.network.config

    def plan(self, *, num_epochs: int, steps_per_epoch: int) -> None:
        """TriDet's schedule, stretched over a whole co-training; the warm-up keeps its share of it."""
        opt = self.config.opt
        warmup = opt.warmup_epochs if opt.warmup else 0
        warmup = round(num_epochs * warmup / (warmup + opt.epochs))
        epochs = max(num_epochs - warmup, 1)
        steps = tuple(round(step * epochs / opt.epochs) for step in opt.schedule_steps)
        stretched = replace(opt, warmup_epochs=warmup, epochs=epochs, schedule_steps=steps)
        self.schedule = LearningRate(self.optimizer, stretched, iters_per_epoch=steps_per_epoch)

    def schedule_as_configured(self, *, updates_per_epoch: int) -> None:
        """TriDet's schedule, over the epochs of its configuration."""
        self.schedule = LearningRate(self.optimizer, self.config.opt, iters_per_epoch=updates_per_epoch)

    def state(self) -> dict[str, Any]:
        return super().state() | {f"loss_normaliser_{self.name}": self.network.loss_normaliser}

    def load_state(self, state: dict[str, Any]) -> None:
        try:
            super().load_state(state)
        except InputError as error:
            problem = f"the detector's learning rate was planned for another length ({error.problem})"
            raise UserError("num_epochs", problem, "keep it and the videos, or start again with --restart") from error
        self.network.loss_normaliser = state[f"loss_normaliser_{self.name}"]


def detector_learner(network: TriDet, *, name: str) -> DetectorLearner:
    """All that the network's configuration says of its training but the schedule."""
    config = network.config
    norm = config.train_cfg.clip_grad_l2norm
    return DetectorLearner(
        name,
        network,
        build_optimizer(network, config.opt),
        clip_norm=norm if norm > 0 else None,
        average=MovingAverage(network, decay=config.opt.ema_decay),
        schedule_every="step",
    )
