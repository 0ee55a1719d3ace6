"""The one way to apply an anonymizer to features: in evaluation mode, without gradients, batch after batch.

`serving` says what a feature is anonymized with. 'alone' is how features are released: each gets the bits that it would
get if it came alone. 'batch' hands `[B, D]` to the anonymizer as it stands: only an anonymizer that attends over the
batch makes a difference of it, and only the paper's own figures are measured that way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splavu.anonymizers.base import Anonymizer, in_tiles

Serving = Literal["alone", "batch"]
ArrayMap = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""[N, D] -> [N, D], rows in order."""

BATCH_SIZE = 1024
"""Rows on the device at once. Only 'batch' depends on it."""


def one_by_one(anonymizer: Anonymizer, features: Tensor) -> Tensor:  # [..., D] -> [..., D]
    """Every feature anonymized as if it came alone, whatever the leading dimensions mean and whatever it attends over.

    An anonymizer that attends over the batch gets batches of one, in effect. Gradients pass.
    """
    rows = features.reshape(-1, features.shape[-1])
    return in_tiles(anonymizer.map_rows, rows).reshape(features.shape)


def apply_to_tensor(
    anonymizer: Anonymizer, features: Tensor, *, serving: Serving = "alone"
) -> Tensor:  # [..., D] -> [..., D]
    """The anonymized features, on the device where features and anonymizer are."""
    with evaluating(anonymizer), torch.no_grad():
        return one_by_one(anonymizer, features) if serving == "alone" else anonymizer(features)


def apply_to_array(
    anonymizer: Anonymizer,
    features: NDArray[np.float32],
    *,
    serving: Serving = "alone",
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:  # [N, D] -> [N, D]
    """The anonymized features.

    Args:
        anonymizer: On `device` already.
        features: float32.
        serving: See the head of this file.
        batch_size: Rows at once; what is mixed, if `serving` is 'batch' and the anonymizer attends over the batch.
        device: Where to compute; the result is in the host's memory.
    """
    batches = torch.from_numpy(np.ascontiguousarray(features)).split(batch_size)
    released = [apply_to_tensor(anonymizer, batch.to(device), serving=serving).cpu() for batch in batches]
    return torch.cat(released).numpy()


def array_map(
    anonymizer: Anonymizer,
    *,
    serving: Serving = "alone",
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
) -> ArrayMap:
    """The anonymizer as a function of arrays; options as of `apply_to_array`. Moves it to `device`."""
    anonymizer.to(device).eval()
    return lambda features: apply_to_array(
        anonymizer, features, serving=serving, batch_size=batch_size, device=device
    )  # fmt: skip


class FrozenAnonymizer(nn.Module):
    """An anonymizer that no longer changes, as a module of tensors: evaluation mode, no gradients.

    Args:
        anonymizer: The trained anonymizer; its parameters stop asking for gradients.
        serving: See the head of this file.
    """

    def __init__(self, anonymizer: Anonymizer, serving: Serving = "alone") -> None:
        super().__init__()
        self.anonymizer = anonymizer.requires_grad_(False).eval()
        self.serving: Serving = serving

    def train(self, mode: bool = True) -> FrozenAnonymizer:
        super().train(False)  # it has no training mode
        return self

    def forward(self, features: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return apply_to_tensor(self.anonymizer, features, serving=self.serving)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """`network` in evaluation mode, and back in the mode it was in."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
