"""Measure what released features reveal to attackers who know everything but the test subjects' labels.

Prints a table and one headline. --out FOLDER writes evidence.json and report.html, a page with all results. Exit code
3: the audit failed one of its own checks, so its numbers prove nothing. Exit code 4: undecided, there are too few test
subjects; where the table of labels shows that, the audit stops before it trains and names the number that is needed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser, within
from splavu.runtime.schema import Count, Few, Seed, Seeds, conformed

NUM_SEEDS = 5
Margin = Annotated[float, Interval(gt=0, lt=0.5)]
EVIDENCE, PAGE = "evidence.json", "report.html"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    stores: dict[str, Any] = {"nargs": "+", "action": "extend", "metavar": "STORE"}
    parser.add_argument("--released", **stores, required=True, help="stores of released features; * is expanded")
    parser.add_argument(
        "--raw", **stores, default=[], help="the raw stores they were made from: needed for the leakage removed"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="CSV: filename, subject, private attributes, optionally split",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        nargs="+",
        action="extend",
        metavar="MAP",
        help="OUT.keys.csv of stores released with --keys secret; --raw, --labels and --groups have the raw keys",
    )
    parser.add_argument("--groups", type=Path, help="CSV filename,group: rows of one group stay on one side")
    parser.add_argument(
        "--attributes", help="comma list of columns, NAME or NAME:binary, NAME:class, NAME:value (default: all of them)"
    )
    parser.add_argument("--aam", type=Path, metavar="CKPT", help="checkpoint of the anonymizer")
    parser.add_argument("--num-heads", type=Few, default=8, help="attention heads, where a checkpoint lacks them")
    parser.add_argument("--quick", action="store_true", help="three fast attackers and one seed: a first look")
    parser.add_argument(
        "--families", help="comma list of attackers; compare figures only with audits by the same attackers"
    )
    parser.add_argument(
        "--attributes-only", action="store_true", help="without linkage, inversion, membership and learning curves"
    )
    parser.add_argument(
        "--margin",
        type=within(Margin),
        default=0.05,
        help="AUC within this of 0.5 counts as chance (0.05)",
    )
    parser.add_argument(
        "--max-train-rows",
        type=Count,
        default=20_000,
        help="attackers are trained on a sample of at most this many rows",
    )
    parser.add_argument(
        "--max-clips",
        type=Count,
        default=64,
        help="at most this many clips per video, evenly spaced (default 64)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for evidence.json and report.html")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="EVIDENCE",
        help="evidence.json of another audit of these features: what leaks more or less since",
    )
    parser.add_argument("--seed", type=Seed, default=0, help="the first seed; it also deals the subjects (default 0)")
    parser.add_argument(
        "--seeds",
        type=Few,
        default=NUM_SEEDS,
        help=f"how many seeds, for random attackers (default {NUM_SEEDS})",
    )
    parser.add_argument(
        "--ignore-names",
        action="store_true",
        help="attack features alone, to compare anonymizers: what keys reveal ends with anonymize --keys secret",
    )
    parser.add_argument("--anyway", action="store_true", help="audit although too few test subjects can decide nothing")
    parser.add_argument("--workers", type=Few, help="processes (default: one per core, at most 8)")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Read, examine, print, and write."""
    from splavu.audit.evidence import MARKS  # here and below: other commands start without scikit-learn
    from splavu.audit.inputs import expanded
    from splavu.audit.report.page import MARKS as PAGE_MARKS
    from splavu.runtime.files import check_target, claimed, files_of

    stores = [*expanded(args.released, "--released"), *expanded(args.raw, "--raw")]
    sources = [
        *stores,
        args.labels,
        args.groups,
        args.against,
        *(args.keys or ()),
        *(() if args.aam is None else files_of(args.aam)),
    ]
    inputs = [path for path in sources if path is not None]
    if args.out is None:
        return _audit(args, inputs)
    with claimed(args.out / EVIDENCE, inputs=inputs, marks=MARKS):
        check_target(args.out / PAGE, inputs=inputs, marks=PAGE_MARKS)
        return _audit(args, inputs)


def _audit(args: argparse.Namespace, inputs: Sequence[Path]) -> int:
    import torch

    from splavu.anonymizers.loading import load_anonymizer
    from splavu.attacks.gates import UNDECIDED
    from splavu.audit.comparison import compared
    from splavu.audit.evidence import plain, read_evidence, write_evidence
    from splavu.audit.gates import power_of_test
    from splavu.audit.inputs import read_inputs
    from splavu.audit.report.page import write_report
    from splavu.audit.report.terminal import summary
    from splavu.audit.run import AuditOptions, examine
    from splavu.data.key_map import read_key_map
    from splavu.data.private_labels import read_private_table
    from splavu.runtime.environment import pick_device

    against = None if args.against is None else (args.against, read_evidence(args.against))
    seeds = conformed(Seeds, tuple(range(args.seed, args.seed + args.seeds)), "--seed")
    table = read_private_table(args.labels, attributes=args.attributes, groups=args.groups)
    others = {role: path for role, path in (("groups", args.groups), ("aam", args.aam)) if path is not None}
    audited = read_inputs(
        args.released,
        table,
        raw=args.raw,
        others=others,
        max_clips=args.max_clips,
        seed=args.seed,
        key_map=read_key_map(*args.keys) if args.keys else None,
        read_names=not args.ignore_names,
    )
    power = power_of_test(audited)
    if not power.decides and not args.anyway:
        print(f"undecided: {power}; --anyway audits all the same")
        return UNDECIDED
    changes = {
        "margin": args.margin,
        "max_train_rows": args.max_train_rows,
        "attributes_only": args.attributes_only,
    }
    if args.families:
        changes["families"] = tuple(name.strip() for name in args.families.split(",") if name.strip())
    options = (
        AuditOptions.quickly(seeds=(args.seed,), **changes) if args.quick else AuditOptions(seeds=seeds, **changes)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # attackers are small; more threads cost more than they give
    try:
        evidence = examine(
            audited,
            options,
            anonymizer=None if args.aam is None else load_anonymizer(args.aam, num_heads=args.num_heads),
            command={"released": args.released, "raw": args.raw, "labels": args.labels.name, "seed": args.seed},
            device=pick_device(args.device),
            workers=args.workers or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1),
        )
    finally:
        torch.set_num_threads(threads)
    if args.out is not None:
        written = write_evidence(args.out / EVIDENCE, evidence, inputs=inputs)
        print(f"evidence: {written}\nreport:   {write_report(args.out / PAGE, read_evidence(written))}\n")
    print(summary(evidence))
    if against is not None:
        found = plain(evidence) | {"valid": evidence.valid}
        print(f"\n{compared(against[0], against[1], found)}")
    return evidence.exit_code
