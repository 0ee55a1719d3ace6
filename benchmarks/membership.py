"""Who an anonymizer was fitted to, by the distance to its codes: `python benchmarks/membership.py --data data/demo`.

An attacker has raw clips and the checkpoint. A clip that was fitted to lies nearer to its code than a stranger's where
codes remember it. Each chain is fitted to the training subjects and judged on them against the validation and test
subjects: by the distance in the quantizer's own directions, and by the distance of the whole erased feature. Then the
same chain is fitted to those others: an AUC that stays is a difference of the subjects, not membership.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from splavu import metrics
from splavu.anonymizers import Anonymizer, Quantizer, apply_to_array
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.guarantees import budget_of
from splavu.anonymizers.pipeline import build_pipeline, parse
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli
from study.datasets.loading import known_subjects, open_dataset

RECOMMENDED = "eraser(rank=32)+quantizer(bits=20, space=features, dims=32{})"
CHAINS: Mapping[str, str] = {
    "recommended, floor 1 (k-means)": RECOMMENDED.format(", min_subjects=1"),
    "k-means, floor 5": RECOMMENDED.format("").replace("bits=20", "codes=(1024, 1024)"),
    "k-means, floor 25": RECOMMENDED.format(", min_subjects=25").replace("bits=20", "codes=(1024, 1024)"),
    "recommended, floor 5": RECOMMENDED.format(""),
    "recommended, floor 25": RECOMMENDED.format(", min_subjects=25"),
    "8 bits for actions, floor 1": "quantizer(bits=8, min_subjects=1)",
    "8 bits for actions, floor 5": "quantizer(bits=8)",
    "eraser alone": "eraser(rank=32)",
}


class Distances(NamedTuple):
    """Of each clip from what stands for it, [N]."""

    own: NDArray[np.float64]
    """In the quantizer's directions."""
    whole: NDArray[np.float64]
    """Of all D numbers, as they go into the quantizer."""


def code_distances(made: Anonymizer, raw: NDArray[np.float32]) -> Distances:  # [N, D]
    """How far clips lie from their codes; without a quantizer, from the mean of the fitted clips."""
    stages = list(getattr(made, "stages", [made]))
    before = raw
    for stage in stages:
        if isinstance(stage, Quantizer):
            encode = stage.encode.double().numpy()
            change = apply_to_array(stage, before).astype(np.float64) - before
            left = (before - stage.mean.double().numpy()) @ encode.T
            for column, book in zip(stage.codes(torch.from_numpy(before)).T, stage.codebooks, strict=True):
                left = left - book.detach().double().numpy()[column.numpy()]
            return Distances(np.linalg.norm(left, axis=1), np.linalg.norm(change, axis=1))
        before = apply_to_array(stage, before)
    from_mean = np.linalg.norm(before - stages[-1].mean.double().numpy(), axis=1)
    return Distances(from_mean, from_mean)


def auc_of_members(members: NDArray, others: NDArray, whose: tuple[NDArray, NDArray] | None = None) -> float:
    """AUC of "near is a member" over clips; with the subjects of both, over the subjects' mean distances."""
    if whose is not None:
        members, others = (_means(values, names) for values, names in zip((members, others), whose, strict=True))
    labels = np.repeat([1, 0], [len(members), len(others)])
    return float(metrics.auc(labels, -np.concatenate([members, others])))


def _means(values: NDArray, names: NDArray) -> NDArray:
    _, index = np.unique(names, return_inverse=True)
    return np.bincount(index, values) / np.bincount(index)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/demo", help="data root, its stores in features/ (default data/demo)")
    parser.add_argument("--dataset", default="hmdb51", help="with private_labels.csv, which says who is who")
    parser.add_argument("--encoder", default="demo")
    args = parser.parse_args(argv)
    root = str(Path(args.data).resolve())
    torch.set_num_threads(1)
    parts = []
    for split in ("train", "val", "test"):
        dataset = open_dataset(args.dataset, split, encoder=args.encoder, data_root=root, static_frames=10)
        subjects = known_subjects(args.dataset, dataset.keys, data_root=root)
        parts.append(FitData.of(dataset, subjects=subjects))
    fitted, others = parts[0], joined(parts[1:])
    rows = []
    for name, chain in CHAINS.items():
        made, control = (build_pipeline(parse(chain), data).eval() for data in (fitted, others))
        near = [code_distances(made, data.features) for data in (fitted, others)]
        never = [code_distances(control, data.features) for data in (fitted, others)]
        whose = (fitted.subjects, others.subjects)
        cells = [
            f"{auc_of_members(*one, by):.2f} ({auc_of_members(*other, by):.2f})"
            for one, other in zip(zip(*near, strict=True), zip(*never, strict=True), strict=True)
            for by in (None, whose)
        ]
        bits = budget_of(made.architecture)
        rows.append([name, "-" if bits is None else f"{bits:.1f}", *cells])
    header = ("AUC of membership", "bits", "own, clip", "own, person", "whole, clip", "whole, person")
    print(markdown_table(header, rows))
    counts = [f"{len(data.features)} clips of {len(np.unique(data.subjects))} subjects" for data in (fitted, others)]
    print(f"fitted to {counts[0]}, against {counts[1]}; in brackets the same question where it was fitted to those")
    return 0


def joined(parts: Sequence[FitData]) -> FitData:
    """All clips; videos keep numbers of their own."""
    names = ("features", "static", "classes", "subjects")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    start = np.cumsum([0, *(part.videos.max() + 1 for part in parts)])
    return FitData(videos=np.concatenate([part.videos + at for part, at in zip(parts, start, strict=False)]), **columns)


if __name__ == "__main__":
    cli.run(main)
