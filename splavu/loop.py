"""One training loop for every script: epochs, validation, checkpoints, resume, a stop on a loss that isn't finite.

A run goes on where it was killed and ends with the same bits as if it hadn't been: randomness is a function of
(seed, epoch), and `model_temp.pth` is written after each epoch, before its line in metrics.jsonl could be doubled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from splavu import checkpoints
from splavu.errors import UserError
from splavu.params import as_dict
from splavu.runs import RunFolder, summarised
from splavu.runtime import seed_everything, versions
from splavu.tasks import Learner

logger = logging.getLogger(__name__)

STEPS_BETWEEN_CHECKS = 50
"""On a GPU every look at a loss waits for the device, so it's looked at this rarely; on the CPU at each step."""

FREE_TO_CHANGE = frozenset({"num_epochs", "num_workers", "val_freq"})
"""Parameters that may differ between a run and its continuation."""


class Trainer(Protocol):
    """What differs from script to script."""

    learners: Sequence[Learner]
    score: str | None
    """The validation metric by which checkpoints are chosen, higher is better; None trains a fixed number of epochs."""

    def batches(self, epoch: int) -> Iterable[Any]: ...

    def step(self, batch: Any) -> Mapping[str, Tensor]:
        """One update; returns the loss terms, detached."""
        ...

    def validate(self) -> Mapping[str, float]: ...

    def weights(self) -> dict[str, Any]:
        """What a checkpoint holds, under the published keys."""
        ...

    def load_weights(self, content: Mapping[str, Any]) -> None: ...


def fit(
    trainer: Trainer,
    run: RunFolder,
    params: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    restart: bool = False,
) -> dict[str, Any]:
    """Train for `params.num_epochs`, going on from the run folder's last checkpoint if there is one.

    Writes params.json, versions.json, metrics.jsonl, model_temp.pth after each epoch and model_{epoch}_{score}.pth when
    validation improves (the one before, if this run wrote it, goes).

    Args:
        trainer: The step, the validation and the networks.
        run: Where everything is written.
        params: Has num_epochs, val_freq, seed; all of it is recorded.
        inputs: What the run reads beside its parameters, as plain values: provenance of features, hashes of weights. A
            run isn't continued on other inputs.
        restart: Begin anew although there is a checkpoint.

    Returns:
        `{"epoch", "score", "checkpoint"}` of the best validation; without validation of the last epoch, score None.

    Raises:
        UserError: A loss isn't finite, or the run folder belongs to other parameters.
    """
    resumable = run.path / checkpoints.RESUMABLE
    described = {"params": as_dict(params), "inputs": dict(inputs or {})}
    progress: dict[str, Any] = {"next_epoch": 0, "best": None, "written": []}
    if resumable.is_file() and not restart:
        content = checkpoints.read(resumable)
        for part, now in described.items():
            _refuse_other(resumable, content.get(part, {}), now)
        trainer.load_weights(content)
        for learner in trainer.learners:
            learner.load_state(content)
        progress = content["progress"]
        logger.info("%s: going on at epoch %d", resumable, progress["next_epoch"])
    else:
        run.record(params)
    run.rewind(progress["next_epoch"])

    with ExitStack() as stack:
        stack.callback(run.close)
        for epoch in range(progress["next_epoch"], params.num_epochs):
            seed_everything(params.seed, epoch)
            metrics = {f"loss/{name}": value for name, value in _train_epoch(trainer, epoch, params.num_epochs).items()}
            for learner in trainer.learners:
                learner.end_epoch()
            due = (epoch + 1) % params.val_freq == 0 or epoch + 1 == params.num_epochs
            if due and trainer.score is not None:
                seed_everything(params.seed, epoch, 1)
                validated = dict(trainer.validate())
                metrics |= {f"val/{name}": value for name, value in validated.items()}
                score, best = validated[trainer.score], progress["best"]
                logger.info("epoch %d: %s", epoch + 1, summarised(validated))
                if best is None or score > best["score"]:
                    name = f"model_{epoch + 1}_{score:.4f}.pth"
                    progress["best"] = {"epoch": epoch + 1, "score": score, "checkpoint": name}
                    progress["written"].append(name)
                    checkpoints.write(run.path / name, _content(trainer, described, epoch))
            run.log(step=epoch, **metrics)
            progress["next_epoch"] = epoch + 1
            resume = {"progress": progress}
            for learner in trainer.learners:
                resume |= learner.state()
            checkpoints.write(resumable, _content(trainer, described, epoch) | resume)
            _remove_superseded(run, progress)  # only now does nothing need them any more

    best = progress["best"]
    if trainer.score is None:
        best = {"epoch": progress["next_epoch"], "score": None, "checkpoint": checkpoints.RESUMABLE}
    if best is None or not best["epoch"]:
        raise UserError("num_epochs", f"{params.num_epochs} leaves nothing to train", "give at least 1")
    trainer.load_weights(checkpoints.read(run.path / best["checkpoint"]))
    return {**best, "checkpoint": str(run.path / best["checkpoint"])}


def _remove_superseded(run: RunFolder, progress: Mapping[str, Any]) -> None:
    """Delete the best checkpoints of before; only files that this run wrote."""
    for name in progress["written"]:
        if name != progress["best"]["checkpoint"]:
            (run.path / name).unlink(missing_ok=True)


def _train_epoch(trainer: Trainer, epoch: int, num_epochs: int) -> dict[str, float]:
    """Mean of each loss term over one epoch."""
    for learner in trainer.learners:
        learner.network.train()
    sums: dict[str, Tensor] = {}
    num_steps = 0
    batches = tqdm(trainer.batches(epoch), desc=f"epoch {epoch + 1}/{num_epochs}", leave=False)
    for num_steps, batch in enumerate(batches, start=1):
        for name, value in trainer.step(batch).items():
            sums[name] = sums.get(name, 0) + value.detach()
        if num_steps % STEPS_BETWEEN_CHECKS == 0 or all(value.device.type == "cpu" for value in sums.values()):
            _refuse_non_finite(sums, epoch)
    _refuse_non_finite(sums, epoch)
    return {name: float(value) / num_steps for name, value in sums.items()}


def _refuse_non_finite(sums: Mapping[str, Tensor], epoch: int) -> None:
    for name, value in sums.items():
        if not torch.isfinite(value):
            raise UserError(
                f"loss term '{name}'",
                f"is {float(value)} in epoch {epoch + 1}",
                "lower the learning rate or its weight; the last checkpoint is from before this epoch",
            )


def _content(trainer: Trainer, described: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    return {**trainer.weights(), **described, "epoch": epoch + 1, "versions": versions()}


def _refuse_other(path: Any, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if name not in FREE_TO_CHANGE and before.get(name) != now.get(name):
            raise UserError(
                path,
                f"was trained with {name} = {before.get(name)!r}, now it is {now.get(name)!r}",
                "choose another run_id, or start anew with --restart",
            )
