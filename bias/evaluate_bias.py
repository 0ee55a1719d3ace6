"""Is action recognition as good for women as for men, on raw and on anonymized features?

Fresh linear heads learn from the training side of each data set, a few seeds each and a fixed number of epochs, and are
judged once on its test side. NTU-Bias-F trains on 95% videos of men (of women for one action), NTU-Bias-M on the mirror
image, ntu_balanced on as many of half and half, tsh is Toyota Smarthome as it is. The test sides of NTU hold as many
videos of women as of men. Printed and kept in results.json: accuracy by gender, overall, of the worse recognised
gender, the gap between both, the equalised-odds difference beside what luck gives, and what anonymizing changes, with
95% intervals clustered by subject.

Gender means as perceived by annotators; the people in the videos were not asked.

Each head has its own folder below the run's, so an interrupted evaluation continues where it stopped. The same command
with the same inputs prints the stored result again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import MinLen, Predicate

from bias.gender_gap import Seen, compare
from bias.report import report_section
from splavu.anonymizers.apply import Serving
from splavu.anonymizers.loading import weights_hash
from splavu.data.subjects import GENDERS, Subject
from splavu.errors import UserError
from splavu.runtime import checkpoints, cli, environment, params, run_folder
from splavu.runtime.progress import progress_bar
from splavu.runtime.schema import Clips, Count, Draws, NonNegative, OneOf, Positive, Seeds, unique
from splavu.stores import FeatureStore
from study import config
from study.datasets.catalog import WITH_SUBJECTS
from study.datasets.loading import dataset_spec, open_dataset, subjects
from study.models import JudgedFeatures, load_adapter
from study.training.heads import HeadParams, train


@dataclass(frozen=True, kw_only=True)
class BiasParams(JudgedFeatures):
    """Parameters of a bias evaluation; see bias/params_bias.py."""

    datasets: Annotated[tuple[Annotated[str, OneOf(WITH_SUBJECTS)], ...], MinLen(1), Predicate(unique)] = (
        "ntu_bias_f",
        "ntu_bias_m",
        "ntu_balanced",
        "tsh",
    )
    """Rows of the catalogue that have labels of gender (`study.datasets.catalog.WITH_SUBJECTS`)."""
    serving: Serving = "alone"
    """How the anonymizer meets features: 'alone' as released, 'batch' as the published numbers were made."""
    seeds: Seeds = (0, 1, 2)
    """A head each; their hits are averaged."""
    num_epochs: Count = 60
    """Fixed: none of the data sets has a validation split, and nothing is chosen on the test side."""
    batch_size: Count = 128
    learning_rate: Positive = 1e-2
    weight_decay: NonNegative = 0.01
    num_modes: Clips = 5
    """Evenly spaced clips of a test video, whose probabilities are averaged."""
    num_resamples: Draws = 1000
    """Draws of subjects for the intervals, and swaps of genders among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anon and self.saved_fa_model is None:
            raise UserError("saved_fa_model", "is None, but anon = True", "name the checkpoint, or set anon = False")

    @property
    def features(self) -> tuple[str, ...]:
        """What is judged."""
        return ("raw", "anonymized") if self.anon else ("raw",)

    def head(self, dataset: str, features: str, seed: int) -> HeadParams:
        """One head, in its own folder below the run's."""
        anon = features == "anonymized"
        return HeadParams(
            run_id=f"{self.run_id}/{dataset}_{features}_seed{seed}",
            dataset=dataset,
            ft_arch=self.ft_arch,
            seed=seed,
            data_root=self.data_root,
            feature_dim=self.feature_dim,
            anon=anon,
            saved_fa_model=self.saved_fa_model if anon else None,
            num_heads=self.num_heads,
            serving=self.serving,
            num_epochs=self.num_epochs,
            batch_size=self.batch_size,
            val_split=None,
            num_modes=self.num_modes,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class Videos:
    """One data set: whose videos heads learn from, what they are judged on, a hash of everything that they read."""

    train_videos: Mapping[str, int]
    """Gender -> number."""
    test: Seen
    sha256: str


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_bias.py"))
    parser.add_argument("--force", action="store_true", help="train and evaluate again although this result is stored")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, BiasParams, args.set)
    device = environment.pick_device(args.device)
    anonymizer = load_adapter(p)
    videos = {name: read_videos(p, name) for name in p.datasets}

    run = run_folder.RunFolder(config.RUNS, p.run_id)
    inputs = {
        "anonymizer": anonymizer and weights_hash(anonymizer),
        "data": {name: found.sha256 for name, found in videos.items()},
    }
    result, stored = run.cached_result(
        p,
        inputs,
        lambda: evaluate(p, videos, inputs["anonymizer"], device, restart=args.force),
        key="bias",
        table=report_section,
        force=args.force,
    )
    if stored:
        print(f"stored result of {run.path} (--force evaluates again)\n")
    print(report_section(result))
    return 0


def evaluate(
    p: BiasParams, videos: Mapping[str, Videos], anonymizer: str | None, device: torch.device, *, restart: bool
) -> dict[str, Any]:
    """Train every head, and compare how well they do for women and for men; `anonymizer` is its weights' hash."""
    started = time.perf_counter()
    datasets = {}
    with progress_bar(total=len(videos) * len(p.features) * len(p.seeds), desc="heads", unit="head") as progress:
        for name, found in videos.items():
            predictions = {}
            for features in p.features:
                reads = {"data": found.sha256, "anonymizer": anonymizer if features == "anonymized" else None}
                of_seeds = []
                for seed in p.seeds:
                    of_seeds.append(predict(p.head(name, features, seed), reads, device, restart=restart))
                    progress.update()
                predictions[features] = np.stack(of_seeds)  # [S, V]
            compared = compare(found.test, predictions, num_resamples=p.num_resamples)
            datasets[name] = {**compared, "train_videos": dict(found.train_videos)}
    return {
        "datasets": datasets,
        "gender": "as perceived by annotators",
        "seeds": list(p.seeds),
        "num_resamples": p.num_resamples,
        "served": p.serving if p.anon else None,
        "seconds": round(time.perf_counter() - started, 1),
    }


def predict(head: HeadParams, reads: Mapping[str, Any], device: torch.device, *, restart: bool) -> np.ndarray:  # -> [V]
    """Train a head, or go on training it, and predict the classes of the test videos, in the data set's order.

    A head that was trained on other features or by other parameters is trained again.
    """
    run = run_folder.RunFolder(config.RUNS, head.run_id)
    reads = {**reads, "params": params.as_dict(head)}
    if restart or run.read_json("reads.json") != reads:
        (run.path / checkpoints.RESUMABLE).unlink(missing_ok=True)  # first, in case of an interruption in between
        run.write_json("reads.json", reads)
    _, trainer, test = train(head, device=device)
    probabilities, _ = test.video_probabilities(trainer.served)
    return probabilities.argmax(dim=1).numpy()


def read_videos(p: BiasParams, name: str) -> Videos:
    """Both sides of a data set.

    Raises:
        UserError: A store or a label is missing or damaged, a subject has no gender, or a gender has no test video.
    """
    spec, digest = dataset_spec(name), hashlib.sha256()
    seen: dict[str, list[Subject]] = {}
    for split in ("train", "test"):
        videos = open_dataset(name, split, encoder=p.ft_arch, data_root=p.data_root)
        subject_of = subjects(name, videos.keys, data_root=p.data_root)
        seen[split] = [subject_of[key] for key in videos.keys]
        path = spec.store_path(config.roots(p.data_root)[1], split, p.ft_arch)
        store = FeatureStore(path, feature_dim=videos.feature_dim)
        for key, label, subject in zip(videos.keys, videos.labels, seen[split], strict=True):
            digest.update(f"{split}/{key}/{label}/{subject.name}/{subject.gender}\n".encode())
            digest.update(store[key].tobytes())
    names, genders = (np.array([getattr(subject, of) for subject in seen["test"]]) for of in ("name", "gender"))
    if absent := set(GENDERS) - set(genders):
        raise UserError(path, f"no test video of {name} shows a subject perceived as {min(absent)}", "extract them")
    trained_on = Counter(subject.gender for subject in seen["train"])
    return Videos(
        {gender: trained_on[gender] for gender in GENDERS},
        Seen(videos.labels, names, genders, spec.num_classes),
        digest.hexdigest(),
    )


if __name__ == "__main__":
    cli.run(main)
