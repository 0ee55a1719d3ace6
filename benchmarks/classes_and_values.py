"""What a release reveals of classes and numbers: `python benchmarks/classes_and_values.py --data data/demo --aam CKPT`.

The set HMDB51 of the synthetic world has columns that are no 0 and 1: the background (a class), and of every subject
the stature, gait amplitude, arm swing, cadence and favourite hue (values). A quick audit attacks them by yes/no
questions, on raw features and on what the checkpoint makes of them, one feature at a time; names are not read. By unit:

AP            mean over an attribute's questions, less chance, in points
p             adjusted for the number of attributes; of a value by AP and Spearman's correlation together
beside        of a value Spearman's correlation with the mean of the answers, of a class balanced accuracy; 95 %
              intervals over test subjects
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from splavu.anonymizers.apply import array_map
from splavu.anonymizers.loading import load_anonymizer
from splavu.audit.evidence import AttributeResult
from splavu.audit.inputs import read_inputs
from splavu.audit.run import AuditOptions, examine
from splavu.data.private_labels import read_private_table
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli

SPLITS = ("train", "val", "test")


def cells(one: AttributeResult | None) -> list[str]:
    """AP above chance, and what stands beside it."""
    if one is None:
        return ["-", "-", "-"]
    found = [f"{100 * (one.ap.value - one.ap.chance):.1f}", f"{one.p_holm:.3f}"]
    beside = one.beside[-1].estimate if one.beside else None
    return [*found, "-" if beside is None else f"{beside.value:.2f} [{beside.low:.2f}, {beside.high:.2f}]"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the synthetic world, with features/")
    parser.add_argument("--aam", type=Path, required=True, help="checkpoint of the anonymizer")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    stores = [args.data / "features" / f"features_hmdb_{split}_demo.h5" for split in SPLITS]
    table = read_private_table(args.data / "hmdb51" / "private_labels.csv")
    inputs = read_inputs(stores, table)
    serve = array_map(load_anonymizer(args.aam))
    inputs = dataclasses.replace(inputs, raw=inputs.released, released=inputs.released.mapped(serve), keys={})
    evidence = examine(inputs, AuditOptions.quickly(attributes_only=True, num_resamples=1000, num_swaps=1000))
    lines = []
    for unit, found in evidence.strongest.items():
        raw = {one.name: one for one in evidence.raw[unit].attributes}
        for one in found.attributes:
            if one.kind != "binary":
                lines.append([one.name, one.kind, unit, *cells(raw.get(one.name)), *cells(one)])
    header = ["attribute", "kind", "unit", "raw AP", "p", "raw beside", "released AP", "p", "released beside"]
    print(markdown_table(header, lines))
    return 0


if __name__ == "__main__":
    cli.run(main)
