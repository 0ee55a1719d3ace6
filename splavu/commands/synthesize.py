"""Render a synthetic world of acting people, in the folder layouts of the real data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from splavu.runtime.cli import ArgumentParser
from splavu.runtime.schema import Few, Probability, Seed


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--out", type=Path, required=True, help="data root to write to")
    parser.add_argument("--seed", type=Seed, default=0, help="the same seed gives the same pixels (default 0)")
    parser.add_argument("--size", choices=("tiny", "quick", "small", "full"), default="small", help="(default small)")
    parser.add_argument(
        "--scene-bias",
        type=Probability,
        default=0.0,
        help="probability that a video's background is the one of its action, 0 to 1 (default 0)",
    )
    parser.add_argument(
        "--sets",
        help="comma list of hmdb51, vispr, thumos14, ucf_crime, casia_b, pa_hmdb51, vp, ntu, tsh, ucf101 "
        "(default: the first two)",
    )
    parser.add_argument("--workers", type=Few, help="processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    """Render what is not there yet, and print the folder."""
    from splavu.synthetic.world import synthesize

    given = {} if args.workers is None else {"workers": args.workers}
    if args.sets:
        given["sets"] = tuple(name.strip() for name in args.sets.split(","))
    print(synthesize(args.out, seed=args.seed, size=args.size, scene_bias=args.scene_bias, **given))
    return 0
