"""Critics: networks that learn what an anonymized clip still tells of its video's still pictures, beyond the action.

The privacy term is then what they find: a lower bound of the mutual information of clip and picture given the class.
It is as good as the critics are, so they have batches, optimizer and steps of their own, they are several, and now and
then one of them begins anew: an anonymizer can outlast one critic by drifting where that one is blind.

What a reader would get wrong: a critic that finds nothing proves nothing. It is the objective, not the judge; the judge
is a fresh attacker (`python -m splavu audit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from splavu.runtime.distributed import SINGLE, Processes
from splavu.runtime.environment import derived_seed
from splavu.training.learners import Learner
from splavu.training.objectives import class_residuals, within_class_information
from splavu.training.optimizers import adamw

SMALLEST_SPREAD = 1e-3
"""Dimensions that spread less than this share of the mean are not blown up to the size of others: a critic would learn
their rounding."""


class Towers(nn.Module):
    """Scores every clip with every picture: `[B, D], [B, D] -> [B, B]`, the product of two embeddings."""

    def __init__(self, feature_dim: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.clips, self.pictures = (
            nn.Sequential(nn.Linear(feature_dim, hidden), nn.GELU(), nn.Linear(hidden, embedding)) for _ in range(2)
        )

    def forward(self, clips: Tensor, pictures: Tensor) -> Tensor:
        clips, pictures = self.clips(clips), self.pictures(pictures)
        return clips @ pictures.T / clips.shape[1] ** 0.5


class Ensemble(nn.Module):
    """Several critics: `[B, D], [B, D], [B] -> [M]`, the nats that each of them finds."""

    def __init__(self, feature_dim: int, num_critics: int, *, hidden: int, embedding: int) -> None:
        super().__init__()
        self.options = (feature_dim, hidden, embedding)
        self.members = nn.ModuleList(Towers(*self.options) for _ in range(num_critics))

    def forward(self, clips: Tensor, pictures: Tensor, classes: Tensor) -> Tensor:
        with torch.autocast(clips.device.type, enabled=False):
            clips, pictures = (standardised(rows.float(), classes) for rows in (clips, pictures))
            scores = (member(clips, pictures) for member in self.members)
            return torch.stack([within_class_information(each, classes) for each in scores])


@dataclass
class Critic(Learner):
    """An ensemble with an optimizer of its own. The engine's steps leave it alone: it has taken its own by then."""

    num_steps: int = 5
    """Updates before each update of the anonymizer, each on a batch of its own."""
    reset_every: int = 10
    """Epochs after which one of the critics begins anew, in turn; 0 lets all of them grow old."""
    seed: int = 0
    num_epochs: int = field(default=0, init=False)
    """That it has seen."""

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
        """Fresh critics of features D wide; the same ones whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, 0))
            network = Ensemble(feature_dim, num_critics, hidden=hidden, embedding=embedding).to(device)
        optimizer = adamw(network.parameters(), lr=learning_rate, weight_decay=1e-4)
        return cls("critic", network, optimizer, num_steps=num_steps, reset_every=reset_every, seed=seed)

    def learn(self, clips: Tensor, static: Tensor, classes: Tensor, processes: Processes = SINGLE) -> Tensor:
        """One update: tell each clip's picture from others of its class better. Returns what was found before, [].

        Args:
            clips: [B, D] anonymized, without gradient; of all processes.
            static: [B, D] raw still pictures of the same videos.
            classes: [B] actions.
            processes: Those that train together; each has the whole batch.
        """
        found = self.network(clips.detach(), static, classes)  # [M]
        (-found.sum() / processes.count).backward()
        processes.add_gradients(self.network.parameters())
        super().step()
        return found.detach().mean()

    def information(self, clips: Tensor, static: Tensor, classes: Tensor) -> Tensor:  # [B, D], [B, D], [B] -> []
        """What the critics find, in nats, averaged; its gradient reaches the clips and no critic."""
        self.network.requires_grad_(False)
        try:
            return self.network(clips, static, classes).mean()
        finally:
            self.network.requires_grad_(True)

    def step(self, scaler: GradScaler | None = None) -> None:
        """Nothing: what the engine steps for is the anonymizer's loss."""

    def end_epoch(self) -> None:
        super().end_epoch()
        self.num_epochs += 1
        if self.reset_every and self.num_epochs % self.reset_every == 0:
            self._begin_anew(self.num_epochs // self.reset_every)

    def _begin_anew(self, number: int) -> None:
        """Replace the critic whose turn it is, with what the optimizer remembers of it."""
        member = self.network.members[(number - 1) % len(self.network.members)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, number))
            member.load_state_dict(Towers(*self.network.options).state_dict())
        for parameter in member.parameters():
            self.optimizer.state.pop(parameter, None)

    def state(self) -> dict[str, Any]:
        return super().state() | {f"epochs_{self.name}": self.num_epochs}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.num_epochs = state[f"epochs_{self.name}"]


def standardised(rows: Tensor, classes: Tensor) -> Tensor:  # [B, D], [B] -> [B, D]
    """Less the mean of the class, and in units of what is left in each dimension, as an attacker would: shrinking a
    dimension hides nothing. The units carry no gradient."""
    residuals = class_residuals(rows, classes)
    spread = residuals.detach().square().mean(dim=0).sqrt()
    smallest = (SMALLEST_SPREAD * spread.mean()).clamp_min(torch.finfo(rows.dtype).tiny)
    return residuals / spread.maximum(smallest)
