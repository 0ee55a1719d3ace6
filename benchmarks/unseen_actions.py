"""What is left of actions that an anonymizer was never shown: `python benchmarks/unseen_actions.py --data data/demo`.

Closed forms are fitted to training people's clips of half of the actions, drawn again for each seed. Then newly trained
linear heads classify the actions of the one half, and those of the other, on released clips of the same training
people, tested on the test people. Here a task is really unseen: the detectors' videos of the synthetic world show the
same kinds of motion as its actions, and lose little even where nothing was fitted to them.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from splavu.anonymizers import IdentityAnonymizer, array_map
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.pipeline import build_pipeline, parse
from splavu.attacks.rows import AttackData, hold_out
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli
from splavu.tuning import linear_probes
from study.datasets.loading import open_dataset, privacy_rows

CHAINS: Mapping[str, str | None] = {
    "raw": None,
    "eraser, rank 64": "eraser(rank=64)",
    "eraser, rank 96": "eraser(rank=96)",
    "eraser, rank 32, then 20 bits of codes": "eraser(rank=32)+quantizer(bits=20, space=features, dims=32)",
    "quantizer, 8 bits": "quantizer(bits=8)",
    "quantizer, 12 bits": "quantizer(bits=12)",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/demo", help="data root, its stores in features/ (default data/demo)")
    parser.add_argument("--dataset", default="hmdb51", help="with private_labels.csv, which says who is who")
    parser.add_argument("--encoder", default="demo")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the half that is shown")
    args = parser.parse_args(argv)
    root = str(Path(args.data).resolve())
    torch.set_num_threads(1)
    where = {"encoder": args.encoder, "data_root": root}

    opened = {split: open_dataset(args.dataset, split, **where) for split in ("train", "test")}
    classes = {key: int(label) for d in opened.values() for key, label in zip(d.keys, d.labels, strict=True)}
    learnt, tested = (privacy_rows(args.dataset, split, "temporal", **where)[0] for split in ("train", "test"))
    every = FitData.of(open_dataset(args.dataset, "train", static_frames=10, **where))
    kinds = np.unique(list(classes.values()))

    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CHAINS}
    for seed in range(args.seeds):
        shown = np.random.default_rng(seed).permutation(kinds)[: len(kinds) // 2]
        half = every.take(np.isin(every.classes, shown))
        for name, chain in CHAINS.items():
            raw = IdentityAnonymizer(half.features.shape[1])
            serve = array_map(raw if chain is None else build_pipeline(parse(chain), half))
            tops = []
            for seen in (True, False):
                rows = [
                    r.take(np.flatnonzero(np.isin([classes[v] for v in r.videos], shown) == seen))
                    for r in (learnt, tested)
                ]
                data = AttackData(*hold_out(rows[0], seed=seed), rows[1]).mapped(serve)
                tops.append(linear_probes.actions(data, classes, 100).value)
            found[name].append((tops[0], tops[1]))
    header = ("fitted to half of the actions", "these", "the others")
    print(markdown_table(header, [[n, *map(_cell, zip(*f, strict=True))] for n, f in found.items()]))
    print(
        f"top-1, %, mean of {args.seeds} draws of the half [least, most]; {len(np.unique(tested.clusters))} test people"
    )
    return 0


def _cell(values: Sequence[float]) -> str:
    return f"{100 * np.mean(values):.1f} [{100 * min(values):.1f}, {100 * max(values):.1f}]"


if __name__ == "__main__":
    cli.run(main)
