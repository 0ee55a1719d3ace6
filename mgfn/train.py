"""Train a network on a list of videos of which only "normal" or "abnormal" is known.

    python mgfn/train.py --rgb-list LIST --features FOLDER

The epoch is chosen on a validation part of the training videos. Where a test list is given its figures are logged too,
and the best of them is kept as what the literature reports; it chooses nothing.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mgfn.command_line import parse
from mgfn.data.batches import balanced_batches
from mgfn.data.sets import TestSet, TrainingSet, anonymizer_of, open_test_set, open_training_set
from mgfn.errors import InputError
from mgfn.frame_scores import HEADLINES, report
from mgfn.losses import Objective, training_terms
from mgfn.model import MGFN
from mgfn.option import Options
from mgfn.runs import pick_device, start
from mgfn.scoring import score_all, video_figures
from mgfn.task import load_network
from splavu.errors import as_user_errors
from splavu.runtime import cli
from splavu.runtime.checkpoints import load_into, state_of
from splavu.runtime.distributed import Processes, refuse_several_processes
from splavu.runtime.environment import seed_everything, versions
from splavu.runtime.params import as_dict
from splavu.runtime.run_folder import RunFolder
from splavu.stores import FeatureFolder
from splavu.training import loop
from splavu.training.engine import EngineParams
from splavu.training.learners import Learner, moving_average, networks_of

FREE_TO_CHANGE = loop.FREE_TO_CHANGE.union(
    ("max_epoch", "workers", "device", "output", "plots", "videos", "restart", "quiet", "comment")
)
"""Options that may differ between a run and its continuation."""


@dataclass(frozen=True)
class TrainingOptions(Options, EngineParams):
    """MGFN's options, and how steps are computed."""

    @property
    def num_epochs(self) -> int:
        return self.max_epoch


class AnomalyTrainer(loop.Trainer):
    """Trains a network on pooled videos of both kinds.

    Args:
        options: Of the network, the losses and the schedule.
        training_set: Its validation videos, if it has any, choose the epoch.
        test_set: Looked at on the way, and chooses nothing; may be None.
        device: Where the network computes.
    """

    def __init__(
        self, options: TrainingOptions, training_set: TrainingSet, test_set: TestSet | None, device: torch.device
    ) -> None:
        self.options, self.training_set, self.test_set, self.device = options, training_set, test_set, device
        self.losses = Objective(variant=options.variant, clustering=options.clustering, dropout=options.dropout_rate)
        seed_everything(options.seed)
        network = load_network(options, training_set.feature_size, options.pretrained_ckpt).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=1.0, weight_decay=5e-4)
        self.learner = Learner(
            "mgfn",
            network,
            optimizer,
            schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, options.rate),  # times the 1.0 above
            clip_norm=options.clip_norm,
            average=moving_average(network, options.ema_decay),
        )
        self.learners = [self.learner]
        self.score = "auc" if options.validation_share else None
        self.best_test: dict[str, float] | None = None
        """The best test figures over the epochs and their `epoch`, from 1; None if the test set wasn't looked at."""

    @property
    def evaluated(self) -> MGFN:
        """The network to test: after training the one that was chosen."""
        return self.learner.evaluated

    def batches(self, epoch: int) -> list[list[int]]:
        """Indices of the videos of each step."""
        size, seed = self.options.batch_size, self.options.seed
        return list(balanced_batches(self.training_set.is_abnormal, batch_size=size, seed=seed, epoch=epoch))

    def objective(self, indices: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        batch = torch.stack([self.training_set.items[index] for index in indices]).to(self.device)
        labels = torch.from_numpy(self.training_set.is_abnormal[indices])
        terms = training_terms(self.learner.network, batch, labels, self.losses)
        return terms.pop("total"), terms

    def validate(self) -> dict[str, float]:
        videos, is_abnormal = self.training_set.validation(), self.training_set.validation_is_abnormal
        return video_figures(self.evaluated, videos, is_abnormal)

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """Few videos give few different AUCs, so ties go to the better calibrated epoch."""
        return metrics["auc"], -metrics["bce"]

    def end_epoch(self, epoch: int, *, is_last: bool) -> dict[str, float]:
        """Test, if it's time to."""
        freq = self.options.test_freq
        if self.test_set is None or not freq or not (is_last or (epoch + 1) % freq == 0):
            return {}
        overall = report(self.test_set.truth.scored(score_all(self.evaluated, self.test_set)))["overall"]
        tested = {name: getattr(overall, name) for name in ("roc_auc", "pr_auc", "average_precision")}
        name, _ = HEADLINES[self.options.datasetname]
        if self.best_test is None or tested[name] > self.best_test[name]:
            self.best_test = {"epoch": epoch + 1, **tested}
        return {f"test/{name}": value for name, value in tested.items()}

    def weights(self) -> dict[str, Any]:
        states = {key: network.state_dict() for key, network in self._networks().items()}
        return {"architecture": dataclasses.asdict(self.learner.network.architecture), **states}

    def load_weights(self, content: Mapping[str, Any]) -> None:
        for key, network in self._networks().items():
            load_into(network, state_of(content, key, "checkpoint"), "checkpoint")

    def _networks(self) -> dict[str, nn.Module]:
        return networks_of({"model": self.learner})

    def state(self) -> dict[str, Any]:
        return {"best_test": self.best_test}

    def load_state(self, content: Mapping[str, Any]) -> None:
        self.best_test = content["best_test"]


class Run(RunFolder):
    """The folder `output/model_name`; its parameters lie in options.json."""

    def __init__(self, options: Options) -> None:
        super().__init__(options.output, options.model_name)

    def record(self, params: Options) -> None:
        self.write_json("options.json", as_dict(params))
        self.write_json("versions.json", versions())


def train(options: TrainingOptions) -> tuple[dict[str, Any], AnomalyTrainer]:
    """Open what the options name and train (or go on training) in the run folder: `loop.fit`'s result and trainer.

    Raises:
        InputError: Something is wrong with the options or the data.
        UserError: A loss isn't finite, or the run folder belongs to other options.
    """
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
    trainer = AnomalyTrainer(options, training_set, test_set, device)
    chosen = loop.fit(
        trainer,
        Run(options),
        options,
        inputs={"features": dict(FeatureFolder(options.features).attributes)},
        restart=options.restart,
        processes=Processes(device),
        free_to_change=FREE_TO_CHANGE,
    )
    return chosen, trainer


@as_user_errors(InputError)
def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv, description=__doc__.splitlines()[0], kind=TrainingOptions)
    start(options)
    refuse_several_processes("mgfn/train.py")
    chosen, _ = train(options)
    print(f"trained: {chosen['checkpoint']}")


if __name__ == "__main__":
    cli.run(main)
