"""What closed-form anonymizers hide and keep, on one table: `python benchmarks/erasure.py --data data/demo`.

Each row is a `python -m splavu fit` of the training people's clips. Then, on what it releases, all fresh:

top-1       logistic regression on the action, scores averaged over a video's clips
excess      cMAP over chance of the private attributes, in points: logistic regression and an MLP, trained on training
            people; validation people tune both and choose between them for each attribute. A clip alone, and a video
            (mean score of its clips). Chance is the prevalence, so that a little above 0 is luck
rank-1      of a clip's nearest clip in another video, whether it is of the same person: discriminant analysis of the
            training people, cosine, among test people
change      squared change of the features over their variance

`--rounding` measures something else: an eraser of rank 96 as a D x D matrix in float32, and through D - r numbers as
`AffineAnonymizer` does it. What is released is projected on the directions that should be empty, brought to variance 1
and attacked.

Validation people are judged beside test people: choose by the first, report the second. The two attackers are a quick
look, `python -m splavu audit` is the judgement. Needs the synthetic world's HMDB51 (bash run_demo.sh --full makes it).
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from splavu import metrics
from splavu.anonymizers import Anonymizer, IdentityAnonymizer, one_by_one
from splavu.anonymizers.loading import load_anonymizer
from splavu.attackers import LogisticAttacker, MLPAttacker
from splavu.commands import fit
from splavu.data.datasets import read_side_table
from splavu.data.labels import VISPR_ATTRIBUTES, read_csv_labels
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli
from splavu.stores import open_features

SPLITS = ("train", "val", "test")
ERASE = "eraser --static {static} --labels {labels} --rank {rank}"
PRIVATE = "--private {private} --attributes {attributes}"
RANKS = (4, 8, 16, 32, 64, 96, 128)
CODES = (42, 84, 168, 1024)


@dataclass(frozen=True)
class People:
    """Clips of one group of people, a row each."""

    features: NDArray[np.float32]  # [N, D]
    actions: NDArray[np.int64]  # [N]
    private: NDArray[np.float32]  # [N, A]
    person: NDArray[np.str_]  # [N]
    video: NDArray[np.str_]  # [N]


@dataclass(frozen=True)
class Verdict:
    """Of one group, in per cent."""

    top1: float
    clip: float
    video: float
    interval: tuple[float, float]
    """Of `clip`, 95 %, people resampled."""


def read_people(data: Path) -> dict[str, People]:
    """Training, validation and test people of the synthetic HMDB51."""
    people = {}
    for split in SPLITS:
        actions = read_csv_labels(data / "hmdb51" / f"hmdb51_{split}_labels.csv")
        store = open_features(data / "features" / f"features_hmdb_{split}_demo.h5")
        clips = {key: store[key] for key in store}
        known = read_side_table(data / "hmdb51" / "private_labels.csv", list(clips))
        owners = [key for key, rows in clips.items() for _ in rows]
        people[split] = People(
            np.concatenate(list(clips.values())),
            np.array([actions[key] for key in owners]),
            np.stack([known.values[key] for key in owners]),
            np.array([known.subjects[key] for key in owners]),
            np.array(owners),
        )
    return people


def fits() -> list[tuple[str, list[str]]]:
    """(name, command lines of `splavu fit`, each after the one before) of every row of the table."""
    rows: list[tuple[str, list[str]]] = [("raw", [])]
    rows += [(f"eraser, rank {rank}", [ERASE.replace("{rank}", str(rank))]) for rank in RANKS]
    rows += [
        (f"quadratic eraser, rank {rank}", [ERASE.replace("{rank}", f"{rank} --lift quadratic")]) for rank in RANKS[3:]
    ]
    rows += [("eraser, rank 32, no labels", ["eraser --static {static} --rank 32"])]
    rows += [("LEACE of the attributes", [f"leace {PRIVATE}"]), ("orthogonal", [f"orthogonal {PRIVATE}"])]
    rows += [(f"INLP, {rounds} rounds", [f"inlp {PRIVATE} --rounds {rounds}"]) for rounds in (2, 8)]
    rows += [(f"PCA, {keep} kept", [f"pca --keep {keep}"]) for keep in (16, 64)]
    rows += [(f"random, {keep} kept", [f"random --keep {keep}"]) for keep in (16, 64)]
    rows += [(f"noise, sd {sd}", [f"noise --sd {sd} --seed 0"]) for sd in (1, 2)]
    rows += [("noise, sd 1, whitened", ["noise --sd 1 --units whitened --seed 0"])]
    rows += [(f"{codes} codes", [f"quantizer --labels {{labels}} --codes {codes}"]) for codes in CODES]
    for rank, codes in ((32, 84), (96, 84), (96, 1024)):
        erase = ERASE.replace("{rank}", str(rank))
        rows += [(f"eraser {rank}, then {codes} codes", [erase, f"quantizer --labels {{labels}} --codes {codes}"])]
    rows += [("eraser 96, then noise, sd 0.5", [ERASE.replace("{rank}", "96"), "noise --sd 0.5 --seed 0"])]
    return rows


def fitted(commands: Sequence[str], data: Path, folder: Path, width: int) -> Anonymizer:
    """The anonymizer that `splavu fit` makes by these command lines, one after the other."""
    files = {
        "static": data / "features" / "features_hmdb_train_demo_fb10.h5",
        "labels": data / "hmdb51" / "hmdb51_train_labels.csv",
        "private": data / "hmdb51" / "private_labels.csv",
        "attributes": ",".join(VISPR_ATTRIBUTES),
    }
    parser = cli.ArgumentParser()
    fit.add_arguments(parser)
    made: list[str] = []
    for command in commands:
        words = [word.format(**files) for word in command.split()]
        words += ["--raw", str(data / "features" / "features_hmdb_train_demo.h5")]
        words += ["--out", str(folder / f"{len(made)}.pth"), *(["--after", made[-1]] if made else [])]
        fit.fit(parser.parse_args(words))
        made.append(str(folder / f"{len(made)}.pth"))
    return load_anonymizer(made[-1]) if made else IdentityAnonymizer(width)


def judged(train: People, validation: People, test: People) -> dict[str, Verdict]:
    """What attackers and a head for the actions make of validation and test people."""
    attackers = [LogisticAttacker(), MLPAttacker()]
    for attacker in attackers:
        attacker.fit(train.features, train.private, (validation.features, validation.private))
    scores = {
        name: np.stack([attacker.scores(people.features) for attacker in attackers])  # [attackers, N, A]
        for name, people in (("val", validation), ("test", test))
    }
    best = np.argmax([metrics.average_precisions(validation.private, one) for one in scores["val"]], axis=0)  # [A]
    head = action_head(train, validation)
    verdicts = {}
    for name, people in (("val", validation), ("test", test)):
        chosen = np.stack([scores[name][a, :, i] for i, a in enumerate(best)], axis=1)  # [N, A]
        resamples = metrics.cluster_resamples(people.person, num_resamples=400)
        drawn = metrics.resampled_average_precisions(people.private, chosen, resamples)
        drawn = metrics.mean_known(drawn - metrics.resampled_prevalences(people.private, resamples))
        firsts, of_video = np.unique(people.video, return_index=True)[1], by_video(chosen, people.video)
        low, high = metrics.percentile_interval(drawn)
        verdicts[name] = Verdict(
            100 * metrics.top1(people.actions[firsts], by_video(head(people.features), people.video)),
            100 * excess(people.private, chosen),
            100 * excess(people.private[firsts], of_video),
            (100 * low, 100 * high),
        )
    return verdicts


def action_head(train: People, validation: People):  # -> [N, D] -> [N, C]
    """Logistic regression, its penalty chosen on validation people; returns class probabilities."""
    scaler = StandardScaler().fit(train.features)
    made = [
        LogisticRegression(C=penalty, max_iter=300).fit(scaler.transform(train.features), train.actions)
        for penalty in (0.01, 0.1, 1.0)
    ]
    best = max(made, key=lambda one: one.score(scaler.transform(validation.features), validation.actions))
    return lambda features: best.predict_proba(scaler.transform(features))


def excess(private: NDArray, scores: NDArray) -> float:  # [N, A], [N, A]
    """cMAP less the prevalence."""
    return float(metrics.mean_known(metrics.average_precisions(private, scores) - metrics.prevalences(private)))


def by_video(values: NDArray, video: NDArray) -> NDArray:  # [N, Q], [N] -> [V, Q]
    """Means over the clips of each video, videos sorted."""
    _, index, counts = np.unique(video, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, index, values)
    return sums / counts[:, None]


def rank1(train: People, test: People) -> tuple[float, float]:
    """(rank-1, chance) of finding a person's clip in another of their videos, in per cent."""
    dims = min(40, train.features.shape[1] - 1)
    scaler = StandardScaler().fit(train.features)
    metric = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.3, n_components=dims)
    seen = metric.fit(scaler.transform(train.features), train.person).transform(scaler.transform(test.features))
    seen = seen / (np.linalg.norm(seen, axis=1, keepdims=True) + 1e-9)
    same_video = test.video[:, None] == test.video
    same_person = test.person[:, None] == test.person
    # Rounded, and ties shared: among few codes most clips are equally near to many.
    likeness = np.where(same_video, -np.inf, np.round(seen @ seen.T, 9))
    nearest = likeness == likeness.max(axis=1, keepdims=True)
    found = (nearest & same_person).sum(axis=1) / nearest.sum(axis=1)
    chance = (same_person & ~same_video).sum(axis=1) / (~same_video).sum(axis=1)
    return 100 * float(found.mean()), 100 * float(chance.mean())


def through_rounding(people: dict[str, People], data: Path, folder: Path) -> str:
    """Excess of cMAP from what float32 lets through of the directions that an eraser removes."""
    eraser = fitted([ERASE.replace("{rank}", "96")], data, folder, people["train"].features.shape[1]).eval()
    weight, bias = eraser.weight.float(), eraser.bias.float()
    left, values, _ = np.linalg.svd(eraser.weight.numpy())
    empty = left[:, values < 0.5]  # [D, r]
    lines = []
    for name, release in (("D x D in float32", lambda rows: rows @ weight.T + bias), ("D - r numbers", eraser)):
        shown = {}
        for split, group in people.items():
            with torch.inference_mode():
                released = release(torch.from_numpy(group.features)).numpy().astype(np.float64)
            rest = (released - eraser.center.numpy()) @ empty
            mean, scale = shown.setdefault("scale", (rest.mean(axis=0), rest.std(axis=0)))
            shown[split] = ((rest - mean) / scale).astype(np.float32)
        labels = {split: group.private for split, group in people.items()}
        attacker = LogisticAttacker().fit(shown["train"], labels["train"], (shown["val"], labels["val"]))
        gained = 100 * excess(labels["test"], attacker.scores(shown["test"]))
        lines.append([name, f"{shown['scale'][1].mean():.1e}", f"{gained:.1f}"])
    return markdown_table(["", "left there", "excess"], lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="root of the synthetic world")
    parser.add_argument("--rounding", action="store_true", help="what float32 lets through of an eraser, and no more")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    people = read_people(args.data)
    if args.rounding:
        with tempfile.TemporaryDirectory() as folder:
            print(through_rounding(people, args.data, Path(folder)))
        return 0
    sizes = ", ".join(f"{split} {len(np.unique(group.person))}" for split, group in people.items())
    chance = rank1(people["train"], people["test"])[1]
    print(f"people: {sizes}; chance: cMAP {100 * metrics.prevalences(people['test'].private).mean():.1f}, ", end="")
    print(f"rank-1 {chance:.1f}", flush=True)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name, commands in fits():
            if args.only not in name:
                continue
            started = time.process_time()
            width = people["train"].features.shape[1]
            anonymizer = fitted(commands, args.data, Path(folder), width).eval()
            seconds = time.process_time() - started
            with torch.inference_mode():
                released = {
                    split: People(
                        one_by_one(anonymizer, torch.from_numpy(group.features)).numpy(),
                        group.actions,
                        group.private,
                        group.person,
                        group.video,
                    )
                    for split, group in people.items()
                }
            before, after = people["test"].features, released["test"].features
            verdicts = judged(*released.values())
            val, test = verdicts["val"], verdicts["test"]
            line = [name, f"{val.top1:.1f}", f"{val.clip:.1f}", f"{test.top1:.1f}"]
            line += [f"{test.clip:.1f} [{test.interval[0]:.0f}, {test.interval[1]:.0f}]"]
            line += [f"{test.video:.1f}", f"{rank1(released['train'], released['test'])[0]:.1f}"]
            change = np.square(after - before).sum() / np.square(before - before.mean(axis=0)).sum()
            lines.append([*line, f"{100 * change:.0f}", f"{seconds:.1f}"])
            print(" | ".join(lines[-1]), flush=True)
    header = ["", "val top-1", "val excess", "top-1", "excess", "of a video", "rank-1", "change %", "fit s"]
    print(markdown_table(header, lines))
    return 0


if __name__ == "__main__":
    cli.run(main)
