"""What is left of actions that an anonymizer was never shown: `python benchmarks/unseen_actions.py --data data/demo`.

Closed forms are fitted to training people's clips of half of the actions, drawn anew for each seed. Then fresh linear
heads tell the actions of the one half apart, and those of the other, on released clips of the same training people,
tested on the test people. A task is unseen in earnest here: the detectors' videos of the synthetic world show the same
kinds of motion as its actions, and lose little even where nothing was fitted to them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from splavu.anonymizers import AffineAnonymizer, Anonymizer, Chain, IdentityAnonymizer, Quantizer, closed_form
from splavu.anonymizers.closed_form.codes import evenly_split_bits
from splavu.anonymizers.recipe import Examples
from splavu.attacks.rows import AttackData, hold_out
from splavu.audit.run import served_alone
from splavu.reports.markdown import table
from splavu.runtime import cli
from splavu.tuning import linear_probes
from study.datasets.loading import open_dataset, privacy_rows

Fit = Callable[[Examples], Anonymizer]


def _quantizer(bits: int) -> Fit:
    def fit(shown: Examples) -> Anonymizer:
        made = closed_form.discriminant_codes(shown.features, shown.classes, evenly_split_bits(bits))
        return Quantizer.of(made.mean, made.encode, made.decode, made.codebooks)

    return fit


def _eraser(rank: int) -> Fit:
    def fit(shown: Examples) -> Anonymizer:
        made = closed_form.static_eraser(shown.features, shown.static, classes=shown.classes, rank=rank)
        return AffineAnonymizer.of(made.mean, made.encode, made.decode, method="eraser")

    return fit


def _eraser_and_codes(rank: int, bits: int, dims: int) -> Fit:
    def fit(shown: Examples) -> Anonymizer:
        first = _eraser(rank)(shown).eval()
        left = shown.after(first)
        made = closed_form.discriminant_codes(left.features, None, evenly_split_bits(bits), dims=dims)
        codes = Quantizer.of(made.mean, made.encode, made.decode, made.codebooks)
        return Chain(left.features.shape[1], stages=[first, codes])

    return fit


FITS: Mapping[str, Fit] = {
    "raw": lambda shown: IdentityAnonymizer(shown.features.shape[1]),
    "eraser, rank 64": _eraser(64),
    "eraser, rank 96": _eraser(96),
    "eraser, rank 32, then 20 bits of codes": _eraser_and_codes(32, 20, 32),
    "quantizer, 8 bits": _quantizer(8),
    "quantizer, 12 bits": _quantizer(12),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    examples = Examples.of(open_dataset(args.dataset, "train", static_frames=10, **where))
    kinds = np.unique(list(classes.values()))

    found: dict[str, list[tuple[float, float]]] = {name: [] for name in FITS}
    for seed in range(args.seeds):
        shown = np.random.default_rng(seed).permutation(kinds)[: len(kinds) // 2]
        kept = np.isin(examples.classes, shown)
        half = Examples(examples.features[kept], examples.static[kept], examples.classes[kept])
        for name, fit in FITS.items():
            serve = served_alone(fit(half).eval(), "cpu")
            tops = []
            for seen in (True, False):
                rows = [
                    r.take(np.flatnonzero(np.isin([classes[v] for v in r.videos], shown) == seen))
                    for r in (learnt, tested)
                ]
                data = AttackData(*hold_out(rows[0], seed=seed), rows[1]).mapped(serve)
                tops.append(linear_probes.actions(data, classes, 100).value)
            found[name].append((tops[0], tops[1]))
    print(table(("fitted to half of the actions", "these", "the others"), [[n, *map(_cell, zip(*f, strict=True))]
                                                                          for n, f in found.items()]))  # fmt: skip
    print(
        f"top-1, %, mean of {args.seeds} draws of the half [least, most]; {len(np.unique(tested.clusters))} test people"
    )
    return 0


def _cell(values: Sequence[float]) -> str:
    return f"{100 * np.mean(values):.1f} [{100 * min(values):.1f}, {100 * max(values):.1f}]"


if __name__ == "__main__":
    cli.run(main)
