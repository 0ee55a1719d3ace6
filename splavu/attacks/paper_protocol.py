"""The paper protocol: the privacy evaluation of Fioresi et al. 2026, to compare with the paper's numbers.

Note: a low cMAP here is no proof of privacy. The head's logits are bounded by 1, an anonymizer that attends over the
batch is evaluated on mixtures, and the epoch is picked on the test set. Every result says so.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from splavu import metrics
from splavu.attacks.rows import Rows, json_values, rounded
from splavu.metrics.protocols import PROTOCOLS
from splavu.runtime.distributed import Processes
from splavu.runtime.progress import progress_bar
from splavu.training.engine import Engine, EngineParams
from splavu.training.heads import PrivacyHead
from splavu.training.learners import Learner


@dataclass(frozen=True)
class PaperHeadRecipe:
    """How the privacy head is trained; the paper's choices by default."""

    num_epochs: int = 100
    batch_size: int = 1024
    """Rows an anonymizer sees at once, in training and in the test."""
    learning_rate: float = 1e-3
    """Of AdamW; divided by 5 on a plateau of the test loss."""
    patience: int = 10
    """Epochs without a better test loss that make a plateau (the paper gives no number)."""
    normalise: bool = True
    """L2-normalise the head's outputs, which bounds its logits by 1."""


def evaluate_by_paper_protocol(
    train: Rows,
    test: Rows,
    anonymize: Callable[[Tensor], Tensor] | None,  # [B, D] -> [B, D]
    *,
    attributes: Sequence[str],
    seeds: Sequence[int] = (0,),
    recipe: PaperHeadRecipe | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """The paper's privacy evaluation, on raw and on anonymized features.

    Each epoch draws one row (view) of every training video or image, in random order; test rows come in file order. The
    reported epoch is the one with the best test cMAP; the last epoch stands beside it.

    Args:
        train: Several rows per video, one of which is drawn in each epoch.
        test: Evaluated row by row.
        anonymize: Gets whole batches, and may mix their rows; None evaluates raw features only.
        attributes: Names of the A columns of the labels.
        seeds: Results are means over seeds.
        recipe: How the head is trained.
        device: Where heads compute.

    Returns:
        JSON values; precisions are between 0 and 1. `raw` and `anonymized` hold `ap` by attribute, `cmap` and
        `last_epoch_cmap`.
    """
    recipe = recipe or PaperHeadRecipe()
    started = time.perf_counter()
    served = {"raw": None} if anonymize is None else {"raw": None, "anonymized": anonymize}
    share = metrics.prevalences(test.labels)
    representations: dict[str, Any] = {}
    num_epochs = len(served) * len(seeds) * recipe.num_epochs
    with progress_bar(total=num_epochs, desc="privacy head", unit="epoch", dynamic_ncols=True) as progress:
        for name, function in served.items():
            curves = []
            for seed in seeds:
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    curves.append(_curve(train, test, function, recipe, seed, torch.device(device), progress))
            best = [int(np.nanargmax(np.nan_to_num(metrics.mean_known(curve), nan=-1.0))) for curve in curves]
            precision = np.mean([curve[epoch] for curve, epoch in zip(curves, best, strict=True)], axis=0)
            representations[name] = {
                "ap": dict(zip(attributes, precision.tolist(), strict=True)),
                "cmap": float(metrics.mean_known(precision)),
                "last_epoch_cmap": float(np.mean([metrics.mean_known(curve[-1]) for curve in curves])),
                "best_epochs": [epoch + 1 for epoch in best],
            }
    return json_values(
        {
            "protocol": dataclasses.asdict(PROTOCOLS["paper"]),
            "valid": True,
            "raw_only": anonymize is None,
            "attributes": list(attributes),
            "chance": dict(zip(attributes, share.tolist(), strict=True)),
            "chance_cmap": float(metrics.mean_known(share)),
            **representations,
            "seeds": list(seeds),
            "recipe": dataclasses.asdict(recipe),
            "rows": {"train": len(train), "test": len(test)},
            "seconds": round(time.perf_counter() - started, 1),
        }
    )


def _curve(
    train: Rows,
    test: Rows,
    anonymize: Callable[[Tensor], Tensor] | None,
    recipe: PaperHeadRecipe,
    seed: int,
    device: torch.device,
    progress: tqdm,
) -> np.ndarray:  # [epochs, A]
    """Test average precision after each epoch of one head."""
    head = PrivacyHead(train.features.shape[1], train.labels.shape[1], normalise=recipe.normalise).to(device)
    serve = (lambda batch: batch) if anonymize is None else anonymize
    in_order = torch.as_tensor(test.features, dtype=torch.float32).split(recipe.batch_size)
    with torch.no_grad():
        held_out = torch.cat([serve(batch.to(device)) for batch in in_order])
    held_out_labels = torch.as_tensor(test.labels, dtype=torch.float32, device=device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=recipe.patience)
    steps = _Views(Learner("privacy", head, optimizer), train, serve, recipe.batch_size, seed, device)
    engine = Engine(EngineParams(), Processes(device))
    curve = []
    for epoch in range(recipe.num_epochs):
        engine.epoch(steps, epoch, title=None)
        head.eval()
        with torch.no_grad():
            logits = head(held_out)
            schedule.step(float(_known_log_loss(logits, held_out_labels)))
        curve.append(metrics.average_precisions(test.labels, logits.cpu().numpy()))
        progress.update()
    return np.array(curve)


class _Views:
    """The steps of an epoch of the head (`splavu.training.engine.Steps`): a row of every video."""

    def __init__(
        self,
        learner: Learner,
        train: Rows,
        serve: Callable[[Tensor], Tensor],
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.learners = [learner]
        self._serve, self._batch_size, self._device = serve, batch_size, device
        self._features, self._labels = (
            torch.as_tensor(array, dtype=torch.float32) for array in (train.features, train.labels)
        )
        self._draw = _view_drawer(train.videos, seed)

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        return torch.as_tensor(self._draw()).split(self._batch_size)  # draws go on from epoch to epoch

    def objective(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # [B] -> []
        with torch.no_grad():
            served = self._serve(self._features[rows].to(self._device))
        logits = self.learners[0].network(served)
        return _known_log_loss(logits, self._labels[rows].to(self._device)), {}


def _view_drawer(videos: np.ndarray, seed: int) -> Callable[[], np.ndarray]:  # -> [V] rows, one a video, shuffled
    index = np.unique(videos, return_inverse=True)[1]
    order = np.argsort(index, kind="stable")
    size = np.bincount(index)
    first = np.cumsum(size) - size
    generator = np.random.default_rng(seed)
    return lambda: generator.permutation(order[first + (generator.random(len(size)) * size).astype(np.int64)])


def _known_log_loss(logits: Tensor, labels: Tensor) -> Tensor:  # [B, A], [B, A] -> []
    """Mean over known labels; 0 where none is."""
    known = ~labels.isnan()
    total = functional.binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum")
    return total / known.sum().clamp_min(1)


def format_table(result: Mapping[str, Any]) -> str:
    """The result for a terminal, per cent, with its warning."""
    raw = result["raw"]
    released = result.get("anonymized")
    lines = ["paper protocol", f"  {'attribute':<21}  {'raw AP':>7}  {'anonymized AP':>13}  {'chance':>6}"]

    def line(name: str, value: float | None, other: float | None, chance: float | None) -> str:
        served = rounded(other, 100, 1) if released else "none"
        return f"  {name:<21}  {rounded(value, 100, 1):>7}  {served:>13}  {rounded(chance, 100, 1):>6}"

    for name in result["attributes"]:
        lines.append(line(name, raw["ap"][name], released and released["ap"][name], result["chance"][name]))
    lines.append(line("mean (cMAP)", raw["cmap"], released and released["cmap"], result["chance_cmap"]))
    last = released and released["last_epoch_cmap"]
    lines.append(line("  at the last epoch", raw["last_epoch_cmap"], last, result["chance_cmap"]))
    return "\n".join([*lines, "", f"warning: {result['protocol']['warning']}", f"{result['seconds']:.0f} s"])
