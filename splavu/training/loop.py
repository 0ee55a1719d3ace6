"""One training loop for every script: epochs, validation, checkpoints, resume, a stop on a loss that isn't finite.

An interrupted run resumes and ends with the same bits as an uninterrupted one: randomness is a function of (seed,
epoch), and records past the checkpoint are dropped before they are written again. Among several processes the first one
writes; the number of processes may change when a run is resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from splavu.errors import UserError
from splavu.runtime import checkpoints, signals
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes
from splavu.runtime.environment import only_deterministic_kernels, seed_everything, versions
from splavu.runtime.files import ROOM
from splavu.runtime.params import as_dict
from splavu.runtime.run_folder import RunFolder, summarised
from splavu.training.engine import Engine, EngineParams, NonFiniteLoss
from splavu.training.learners import Learner

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = frozenset({"num_epochs", "num_workers", "val_freq", "checkpoint_freq"})
"""Parameters that may differ when a run is resumed."""


class Trainer:
    """What differs from one training to another; subclasses override."""

    learners: Sequence[Learner]
    score: str | None = None
    """The validation metric by which checkpoints are chosen, higher is better; None trains a fixed number of epochs."""

    def batches(self, epoch: int) -> Iterable[Any]:
        """The batches of an epoch; has a length."""
        raise NotImplementedError

    def objective(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """This process's share of what is minimised, and of each of its terms by name."""
        raise NotImplementedError

    def validate(self) -> Mapping[str, float]:
        """Metrics on validation data."""
        raise NotImplementedError

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """What `validate` gave as something to compare; the largest wins, the earliest of equals."""
        return (metrics[self.score],)

    def end_epoch(self, epoch: int, *, is_last: bool) -> Mapping[str, float]:
        """Called after each epoch, by the first process alone; returns metrics that are only logged."""
        return {}

    def weights(self) -> dict[str, Any]:
        """Weights for a checkpoint, by key."""
        raise NotImplementedError

    def load_weights(self, content: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What resuming needs in addition to weights and learners, as plain values."""
        return {}

    def load_state(self, content: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


def fit(
    trainer: Trainer,
    run: RunFolder,
    params: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    restart: bool = False,
    done: int | None = None,
    processes: Processes = NOT_DISTRIBUTED,
    free_to_change: frozenset[str] = FREE_TO_CHANGE,
) -> dict[str, Any]:
    """Train for `params.num_epochs`, resuming from the run folder's last checkpoint if there is one.

    Writes params.json, versions.json, metrics.jsonl, model_temp.pth every `checkpoint_freq` epochs and
    model_{epoch}_{score}.pth when validation improves (the one before, if this run wrote it, goes).

    Args:
        trainer: The objective, the validation and the networks.
        run: Where everything is written.
        params: With num_epochs, seed and val_freq (epochs between validations; the last epoch always ends with one),
            and `EngineParams` where they aren't the defaults. All of it is recorded.
        inputs: What the run reads apart from its parameters, as plain values: provenance of features, hashes of
            weights. A run isn't resumed on other inputs.
        restart: Start from epoch 0 although there is a checkpoint.
        done: Epochs that the trainer has already done, from a checkpoint of another program; the run folder's is
            ignored then. None is the usual case.
        processes: Those that train together; their device is the trainer's.
        free_to_change: Parameters that may differ from those of the run that is resumed.

    Returns:
        `{"epoch", "score", "checkpoint"}` of the best validation; without validation of the last epoch, score None.

    Raises:
        UserError: A loss or a weight isn't finite, the run folder belongs to other parameters, or another process is
            at work on it.
    """
    engine_params = params if isinstance(params, EngineParams) else EngineParams()
    engine = Engine(engine_params, processes)
    with run.held(room=_room(trainer)) if processes.is_first else nullcontext():
        return _fit(trainer, run, params, engine, inputs or {}, restart, done, free_to_change)


def _fit(
    trainer: Trainer,
    run: RunFolder,
    params: Any,
    engine: Engine,
    inputs: Mapping[str, Any],
    restart: bool,
    done: int | None,
    free_to_change: frozenset[str],
) -> dict[str, Any]:
    """As `fit`, in a run folder that no other process writes to."""
    engine_params, processes = engine.params, engine.processes
    resumable = run.path / checkpoints.RESUMABLE
    described = {"params": as_dict(params), "inputs": dict(inputs)}
    progress: dict[str, Any] = {"next_epoch": 0, "best": None, "written": []}
    if engine_params.deterministic:
        only_deterministic_kernels()
    if resumable.is_file() and not restart and done is None:
        content = checkpoints.read(resumable)
        with checkpoints.understood(resumable):
            for part, now in described.items():
                refuse_other(resumable, content.get(part, {}), now, free_to_change)
            trainer.load_weights(content)
            for holder in (engine, trainer, *trainer.learners):
                holder.load_state(content)
            progress = {**progress, **content["progress"]}
            if not isinstance(progress["next_epoch"], int) or not isinstance(progress["written"], list):
                raise TypeError("its progress is no number and list")
        signals.work_is_kept()
        logger.info("%s: resuming at epoch %d", resumable, progress["next_epoch"])
    else:
        progress["next_epoch"] = done or 0
        if processes.is_first:
            run.record(params)
    if processes.is_first:
        run.rewind(progress["next_epoch"])
    engine.prepare(learner.network for learner in trainer.learners)
    processes.wait()

    with ExitStack() as stack:
        stack.callback(run.close)
        for epoch in range(progress["next_epoch"], params.num_epochs):
            is_last = epoch + 1 == params.num_epochs
            seed_everything(params.seed, epoch)
            try:
                losses = engine.epoch(trainer, epoch, title=f"epoch {epoch + 1}/{params.num_epochs}")
            except NonFiniteLoss as error:
                raise UserError(error.culprit, error.problem, f"{error.remedy}; {_last_good(resumable)}") from error
            _refuse_non_finite(trainer.learners, epoch, resumable)
            metrics = {f"loss/{name}": value for name, value in losses.items()}
            for learner in trainer.learners:
                learner.end_epoch()
            if trainer.score is not None and (is_last or (epoch + 1) % params.val_freq == 0):
                seed_everything(params.seed, epoch, 1)
                validated = dict(trainer.validate())
                metrics |= {f"val/{name}": value for name, value in validated.items()}
                _log(processes, "epoch %d: %s", epoch + 1, summarised(validated))
                rank = list(trainer.rank(validated))
                if progress["best"] is None or rank > progress["best"]["rank"]:
                    name = f"model_{epoch + 1}_{rank[0]:.4f}.pth"
                    progress["best"] = {"epoch": epoch + 1, "score": rank[0], "rank": rank, "checkpoint": name}
                    progress["written"].append(name)
                    if processes.is_first:
                        checkpoints.write(run.path / name, _content(trainer, described, epoch))
            if processes.is_first:
                metrics |= trainer.end_epoch(epoch, is_last=is_last)
                run.log(step=epoch, **metrics)
            progress["next_epoch"] = epoch + 1
            if processes.is_first and (is_last or (epoch + 1) % engine_params.checkpoint_freq == 0):
                resume = {"progress": progress}
                for holder in (engine, trainer, *trainer.learners):
                    resume |= holder.state()
                checkpoints.write(resumable, _content(trainer, described, epoch) | resume)
                signals.work_is_kept()
                _remove_superseded(run, progress)  # only now does nothing need them

    processes.wait()
    best = progress["best"]
    if trainer.score is None:
        best = {"epoch": progress["next_epoch"], "score": None, "checkpoint": checkpoints.RESUMABLE}
    if best is None or not best["epoch"]:
        raise UserError("num_epochs", f"{params.num_epochs} leaves nothing to train", "give at least 1")
    trainer.load_weights(checkpoints.read(run.path / best["checkpoint"]))
    return {"epoch": best["epoch"], "score": best["score"], "checkpoint": str(run.path / best["checkpoint"])}


def _room(trainer: Trainer) -> int:
    """Bytes of the checkpoints that a training keeps: weights, their average, Adam's state, the best ones."""
    weights = [value for learner in trainer.learners for value in learner.network.state_dict().values()]
    return ROOM + 6 * sum(value.numel() * value.element_size() for value in weights)


def _log(processes: Processes, text: str, *values: Any) -> None:
    if processes.is_first:
        logger.info(text, *values)


def _remove_superseded(run: RunFolder, progress: Mapping[str, Any]) -> None:
    """Delete the previous best checkpoints; only files that this run wrote."""
    for name in progress["written"]:
        if name != progress["best"]["checkpoint"]:
            (run.path / name).unlink(missing_ok=True)


def _refuse_non_finite(learners: Sequence[Learner], epoch: int, resumable: Any) -> None:
    """An update may make weights infinite after a finite loss; such weights are never written."""
    for learner in learners:
        weights = [weight for weight in learner.network.state_dict().values() if weight.is_floating_point()]
        largest = torch._foreach_norm(weights, float("inf"))
        if not torch.stack([value.float() for value in largest]).isfinite().all():
            names = (name for name, value in learner.network.state_dict().items() if not _is_finite(value))
            raise UserError(
                f"weight '{next(names)}' of {learner.name}",
                f"isn't finite after epoch {epoch + 1}",
                f"lower the learning rate; {_last_good(resumable)}",
            )


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _last_good(resumable: Any) -> str:
    if not resumable.is_file():
        return "there is no checkpoint yet"
    epoch = checkpoints.read(resumable)["epoch"]
    return f"the last good checkpoint is {resumable}, of epoch {epoch}"


def _content(trainer: Trainer, described: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    return {**trainer.weights(), **described, "epoch": epoch + 1, "versions": versions()}


def refuse_other(path: Any, before: Mapping[str, Any], now: Mapping[str, Any], free: frozenset[str]) -> None:
    """Refuse to resume with other values than before; values may be nested, `free` names them as `section.name`.

    Raises:
        UserError: Names the first value that differs.
    """
    before, now = dict(_flat(before)), dict(_flat(now))
    for name in sorted(before.keys() | now.keys()):
        if name not in free and before.get(name) != now.get(name):
            raise UserError(
                path,
                f"was trained with {name} = {before.get(name)!r}, now it is {now.get(name)!r}",
                "choose another run folder, or start over with --restart",
            )


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
