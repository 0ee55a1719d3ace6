"""Train a network on a list of videos of which only "normal" or "abnormal" is known.

    python mgfn/train.py --rgb-list LIST --features FOLDER

The epoch is chosen on a validation part of the training videos. Where a test list is given its figures are logged too,
and the best of them is kept as what the literature reports; it chooses nothing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mgfn.checkpoints import RESUMABLE, read_checkpoint, read_network, write_checkpoint
from mgfn.data.batches import balanced_batches
from mgfn.data.sets import TestSet, TrainingSet, anonymizer_of, open_test_set, open_training_set
from mgfn.errors import InputError, leave
from mgfn.frame_scores import HEADLINES, report
from mgfn.losses import Objective, training_terms
from mgfn.model import MGFN, build_model
from mgfn.option import Options, parse
from mgfn.runs import Run, pick_device, seed_everything, start
from mgfn.scoring import score_all, video_figures

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = frozenset(
    {"max_epoch", "workers", "device", "output", "plots", "videos", "restart", "quiet", "comment"}
)
"""Options that may differ between a run and its continuation."""


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    model: MGFN
    """With the chosen weights."""
    checkpoint: Path
    chosen: dict[str, float]
    """`epoch` (from 1) and, where a validation part chose it, `auc` and `bce` of its videos."""
    best_test: dict[str, float] | None
    """Best test figure over the epochs, `epoch` and the overall figures; None if the test set wasn't looked at."""


def train(
    options: Options, run: Run, training_set: TrainingSet, test_set: TestSet | None, device: torch.device
) -> Trained:
    """Train for `options.max_epoch` epochs, going on from the run folder's last checkpoint if there is one.

    Writes options.json, versions.json, metrics.jsonl, TensorBoard files, model_temp.pth after each epoch and
    model_EPOCH_AUC.pth when validation improves (the one before goes, if this run wrote it).

    Raises:
        InputError: A loss isn't finite, or the run folder belongs to other options.
    """
    objective = Objective(variant=options.variant, clustering=options.clustering, dropout=options.dropout_rate)
    seed_everything(options.seed, 0)
    model = _initial_network(options, training_set.feature_size).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate(0), weight_decay=5e-4)
    progress: dict[str, Any] = {"next_epoch": 0, "best": None, "best_test": None, "written": []}
    if (run.path / RESUMABLE).is_file() and not options.restart:
        content = read_checkpoint(run.path / RESUMABLE)
        _refuse_other(run.path / RESUMABLE, content["options"], dataclasses.asdict(options))
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        progress = content["progress"]
        logger.info("%s: going on after epoch %d", run.path / RESUMABLE, progress["next_epoch"])
    else:
        run.record(options)
    run.rewind(progress["next_epoch"])

    try:
        for epoch in range(progress["next_epoch"], options.max_epoch):
            seed_everything(options.seed, epoch + 1)
            for group in optimizer.param_groups:
                group["lr"] = options.rate(epoch)
            losses = _train_epoch(model, optimizer, training_set, objective, options, epoch, device)
            metrics = {f"loss/{name}": value for name, value in losses.items()}
            is_last = epoch + 1 == options.max_epoch
            if options.validation_share == 0:
                found, better = {}, is_last
            elif is_last or (epoch + 1) % options.val_freq == 0:
                found = video_figures(model, training_set.validation(), training_set.validation_is_abnormal)
                better = progress["best"] is None or _rank(found) > _rank(progress["best"])
            else:
                found, better = {}, False
            metrics |= {f"val/{name}": value for name, value in found.items()}
            if better:
                auc = f"_{found['auc']:.4f}" if found else ""
                progress["best"] = {"epoch": epoch + 1, "checkpoint": f"model_{epoch + 1}{auc}.pth", **found}
                progress["written"].append(progress["best"]["checkpoint"])
                write_checkpoint(run.path / progress["best"]["checkpoint"], model, options, epoch=epoch + 1)
            if test_set is not None and options.test_freq and (is_last or (epoch + 1) % options.test_freq == 0):
                overall = report(test_set.truth.scored(score_all(model, test_set)))["overall"]
                tested = {name: getattr(overall, name) for name in ("roc_auc", "pr_auc", "average_precision")}
                metrics |= {f"test/{name}": value for name, value in tested.items()}
                name, _ = HEADLINES[options.datasetname]
                if progress["best_test"] is None or tested[name] > progress["best_test"][name]:
                    progress["best_test"] = {"epoch": epoch + 1, **tested}
            run.log(epoch, metrics)
            logger.info("epoch %d: %s", epoch + 1, "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
            progress["next_epoch"] = epoch + 1
            write_checkpoint(
                run.path / RESUMABLE,
                model,
                options,
                epoch=epoch + 1,
                optimizer=optimizer.state_dict(),
                progress=progress,
            )
            for name in set(progress["written"]) - {(progress["best"] or {}).get("checkpoint")}:
                (run.path / name).unlink(missing_ok=True)  # only now does nothing need them any more
    finally:
        run.close()
    chosen = dict(progress["best"])
    checkpoint = run.path / chosen.pop("checkpoint")
    return Trained(read_network(checkpoint).to(device), checkpoint, chosen, progress["best_test"])


def _train_epoch(
    model: MGFN,
    optimizer: torch.optim.Optimizer,
    training_set: TrainingSet,
    objective: Objective,
    options: Options,
    epoch: int,
    device: torch.device,
) -> dict[str, float]:
    """Mean of each loss term over one epoch."""
    model.train()
    sums: dict[str, Tensor] = {}
    batches = list(
        balanced_batches(training_set.is_abnormal, batch_size=options.batch_size, seed=options.seed, epoch=epoch)
    )
    for indices in tqdm(batches, desc=f"epoch {epoch + 1}/{options.max_epoch}", leave=False):
        batch = torch.stack([training_set.items[index] for index in indices]).to(device)
        labels = torch.from_numpy(training_set.is_abnormal[indices])
        found = training_terms(model, batch, labels, objective)
        optimizer.zero_grad(set_to_none=True)
        found["total"].backward()
        optimizer.step()
        for name, value in found.items():
            sums[name] = sums.get(name, 0) + value.detach()
        # On a GPU every look at a loss waits for the device, so there it's looked at once an epoch.
        if device.type == "cpu":
            _refuse_non_finite(sums, epoch)
    _refuse_non_finite(sums, epoch)
    return {name: float(value) / len(batches) for name, value in sums.items()}


def _initial_network(options: Options, feature_size: int) -> MGFN:
    if options.pretrained_ckpt is not None:
        model = read_network(options.pretrained_ckpt, mag_ratio=options.mag_ratio)
        if model.architecture.feature_size != feature_size:
            problem = f"takes features {model.architecture.feature_size} wide, these are {feature_size}"
            raise InputError(options.pretrained_ckpt, problem, "give weights for this encoder")
        return model
    return build_model(
        feature_size,
        dims=options.widths,
        depths=(options.depths1, options.depths2, options.depths3),
        types=(options.mgfn_type1, options.mgfn_type2, options.mgfn_type3),
        mag_ratio=options.mag_ratio,
    )


def _rank(found: Mapping[str, float]) -> tuple[float, float]:
    """Higher is better; few videos give few different AUCs, so ties go to the better calibrated epoch."""
    return found["auc"], -found["bce"]


def _refuse_non_finite(sums: Mapping[str, Tensor], epoch: int) -> None:
    for name, value in sums.items():
        if not torch.isfinite(value):
            problem = f"is {float(value)} in epoch {epoch + 1}"
            raise InputError(
                f"loss term '{name}'", problem, "lower --lr; the last checkpoint is from before this epoch"
            )


def _refuse_other(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted((before.keys() | now.keys()) - FREE_TO_CHANGE):
        if before.get(name) != now.get(name):
            raise InputError(
                path,
                f"was trained with {name} = {before.get(name)!r}, now it is {now.get(name)!r}",
                "choose another --model-name, or begin anew with --restart",
            )


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv, description=__doc__.splitlines()[0])
    start(options)
    trained, _ = run_training(options)
    print(f"trained: {trained.checkpoint}")


def run_training(options: Options) -> tuple[Trained, TestSet | None]:
    """Open what the options name, train, and say how the epoch was chosen."""
    device = pick_device(options.device)
    anonymize = anonymizer_of(options, device)
    # Everything the run will read is opened before it begins to train.
    test_set = open_test_set(options, feature_size=options.feature_size, anonymize=anonymize) if options.gt else None
    training_set = open_training_set(options, anonymize=anonymize)
    if test_set is not None and test_set.videos.feature_size != training_set.feature_size:
        problem = (
            f"test features are {test_set.videos.feature_size} wide, training features {training_set.feature_size}"
        )
        raise InputError(options.test_rgb_list, problem, "use one encoder's features")
    return train(options, Run(options), training_set, test_set, device), test_set


if __name__ == "__main__":
    leave(main)
