"""Critics: networks that estimate what an anonymized clip still reveals of its video's still frames, beyond the action.

The privacy term is then their estimate: a lower bound of the mutual information of clip and frame given the class. The
bound is as good as the critics, so they have batches, optimizer and steps of their own, they are several, and one of
them is regularly re-initialised: an anonymizer can evade a critic by drifting where that one is blind.

Note: a critic that finds no information proves nothing. It is the objective; privacy is measured by a newly trained
attacker (`python -m splavu audit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes
from splavu.runtime.environment import derived_seed
from splavu.training.contrastive import class_residuals, conditional_infonce
from splavu.training.learners import Learner, adamw

SMALLEST_DEVIATION = 1e-3
"""Dimensions whose standard deviation is less than this share of the mean one aren't scaled up to the others: a critic
would learn their rounding errors."""


class DualEncoderCritic(nn.Module):
    """Scores every clip with every still frame: `[B, D], [B, D] -> [B, B]`, the product of two embeddings."""

    def __init__(self, feature_dim: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.clips, self.pictures = (
            nn.Sequential(nn.Linear(feature_dim, hidden), nn.GELU(), nn.Linear(hidden, embedding)) for _ in range(2)
        )

    def forward(self, clips: Tensor, pictures: Tensor) -> Tensor:
        clips, pictures = self.clips(clips), self.pictures(pictures)
        return clips @ pictures.T / clips.shape[1] ** 0.5


class CriticEnsemble(nn.Module):
    """M critics: `[B, D], [B, D], [B] -> [M]`, each one's estimate of the information in nats."""

    def __init__(self, feature_dim: int, num_critics: int, *, hidden: int, embedding: int) -> None:
        super().__init__()
        self.options = (feature_dim, hidden, embedding)
        self.members = nn.ModuleList(DualEncoderCritic(*self.options) for _ in range(num_critics))

    def forward(self, clips: Tensor, pictures: Tensor, classes: Tensor) -> Tensor:
        with torch.autocast(clips.device.type, enabled=False):
            clips, pictures = (standardised(rows.float(), classes) for rows in (clips, pictures))
            scores = (member(clips, pictures) for member in self.members)
            return torch.stack([conditional_infonce(each, classes) for each in scores])


@dataclass
class Critic(Learner):
    """An ensemble with its optimizer. It is updated by `update`, before the engine's step, which leaves it alone."""

    num_steps: int = 5
    """Updates before each update of the anonymizer, each on another batch."""
    reset_every: int = 10
    """Epochs after which one of the critics, in turn, is re-initialised; 0: never."""
    seed: int = 0
    num_epochs: int = field(default=0, init=False)
    """Epochs trained so far."""

    @classmethod
    def of(
        cls,
        feature_dim: int,
        *,
        num_critics: int = 2,
        num_steps: int = 5,
        reset_every: int = 10,
        learning_rate: float = 1e-3,
        seed: int = 0,
        hidden: int = 256,
        embedding: int = 64,
        device: torch.device | str = "cpu",
    ) -> Critic:
        """New critics of features D wide; the weights depend on `seed` alone, not on the global generator."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, 0))
            network = CriticEnsemble(feature_dim, num_critics, hidden=hidden, embedding=embedding).to(device)
        optimizer = adamw(network.parameters(), lr=learning_rate, weight_decay=1e-4)
        return cls("critic", network, optimizer, num_steps=num_steps, reset_every=reset_every, seed=seed)

    def update(self, clips: Tensor, static: Tensor, classes: Tensor, processes: Processes = NOT_DISTRIBUTED) -> Tensor:
        """One step towards a higher estimate. Returns the estimate before it, averaged over critics, [].

        Args:
            clips: [B, D] anonymized, without gradient; of all processes.
            static: [B, D] raw still frames of the same videos.
            classes: [B] actions.
            processes: Those that train together; each has the whole batch.
        """
        information = self.network(clips.detach(), static, classes)  # [M]
        (-information.sum() / processes.count).backward()
        processes.add_gradients(self.network.parameters())
        super().step()
        return information.detach().mean()

    def information(self, clips: Tensor, static: Tensor, classes: Tensor) -> Tensor:  # [B, D], [B, D], [B] -> []
        """The critics' mean estimate in nats; its gradient reaches the clips and no critic."""
        self.network.requires_grad_(False)
        try:
            return self.network(clips, static, classes).mean()
        finally:
            self.network.requires_grad_(True)

    def step(self, scaler: GradScaler | None = None) -> None:
        """Nothing: the engine's step is for the anonymizer's loss."""

    def end_epoch(self) -> None:
        super().end_epoch()
        self.num_epochs += 1
        if self.reset_every and self.num_epochs % self.reset_every == 0:
            self._reinitialise(self.num_epochs // self.reset_every)

    def _reinitialise(self, number: int) -> None:
        """Give new weights to the critic whose turn it is, and drop the optimizer's state for it."""
        member = self.network.members[(number - 1) % len(self.network.members)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, number))
            member.load_state_dict(DualEncoderCritic(*self.network.options).state_dict())
        for parameter in member.parameters():
            self.optimizer.state.pop(parameter, None)

    def state(self) -> dict[str, Any]:
        return super().state() | {f"epochs_{self.name}": self.num_epochs}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.num_epochs = state[f"epochs_{self.name}"]


def standardised(rows: Tensor, classes: Tensor) -> Tensor:  # [B, D], [B] -> [B, D]
    """Rows centred on their class's mean and divided by each dimension's standard deviation around it.

    An attacker would standardise too, so shrinking a dimension hides nothing. No gradient flows through the deviations.
    """
    residuals = class_residuals(rows, classes)
    deviation = residuals.detach().square().mean(dim=0).sqrt()
    smallest = (SMALLEST_DEVIATION * deviation.mean()).clamp_min(torch.finfo(rows.dtype).tiny)
    return residuals / deviation.maximum(smallest)
