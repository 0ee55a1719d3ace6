"""Choose an operating point for one's own store: which method, rank and bits keep the actions and reveal least.

Every closed form that the files allow is fitted to some of the subjects and measured on the others, in turn. Prints the
frontier of use and leakage and the point with the least leakage within --lose points of use, with the commands that
fit it. --out FOLDER gets tune.csv (every point, with intervals), tune.png, chosen.toml (fa_arch for parameter files)
and fit.sh (the printed commands).

Note: give training subjects only; a column `split` is obeyed. At least 9 subjects are needed, and 40 or more make
intervals that can decide. Exit code 1: no point is worth making.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from splavu.commands import fit
from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser, within
from splavu.runtime.files import claimed, write_text
from splavu.runtime.schema import Few, Seed

Lose = Annotated[float, Interval(ge=0, le=100)]


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    stores = {"nargs": "+", "action": "extend", "metavar": "STORE", "type": Path}
    parser.add_argument("--raw", **stores, required=True, help="raw features of training subjects; may be repeated")
    parser.add_argument("--labels", type=Path, required=True, help="CSV filename,label: the actions")
    parser.add_argument("--private", type=Path, help="CSV: filename, private attributes to be attacked")
    parser.add_argument("--attributes", help="comma list of its columns (default: all)")
    parser.add_argument(
        "--subjects", type=Path, metavar="CSV", help="CSV filename,subject (default: the column of --private)"
    )
    parser.add_argument("--static", **stores, default=[], help="static features of the same videos: allows the eraser")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for what comes out")
    parser.add_argument(
        "--lose", type=within(Lose), default=2.0, metavar="N", help="points of use that may be lost (default 2)"
    )
    parser.add_argument("--methods", help="comma list of closed forms to keep to (default: all that the files allow)")
    parser.add_argument("--seed", type=Seed, default=0, help="of folds and attackers (default 0)")
    parser.add_argument("--workers", type=Few, help="processes (default: one a processor, 8 at most)")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, choose, print and write. 0: a point was chosen. 1: none is worth making."""
    from splavu.reports.plotting import check_drawing  # --help needs none of it
    from splavu.tuning import candidates, curve, figure, tune_report

    check_drawing()
    args.method = "tune"
    files = {"raw": args.raw, "static": args.static, "labels": [args.labels]}
    files |= {flag: [path] for flag in ("private", "subjects") if (path := getattr(args, flag)) is not None}
    inputs = [path for paths in files.values() for path in paths]
    with claimed(args.out, inputs=inputs, is_folder=True):
        data, _ = fit.read_training(args)
        wanted = None if args.methods is None else _methods(args.methods)
        chains = candidates.chains(data, wanted)
        found = curve.tune(data, chains, seed=args.seed, workers=args.workers or min(8, len(os.sched_getaffinity(0))))
        best = tune_report.chosen(found, args.lose)
        commands: list[str] = []
        if best is not None:
            name = str(args.out / "chosen")
            commands = list(candidates.fit_commands(best.name, files=files, flag_of=fit.FLAG_OF, out=name))
        text = tune_report.text(found, args.lose, commands)
        write_text(args.out / "tune.csv", tune_report.as_csv(found, args.lose), inputs=inputs)
        drawn = [one for one in found.points if not math.isnan(one.worst.value)]
        figure.trade_offs(
            drawn, args.out / "tune.png", chosen=None if best is None else best.name, most_lost=args.lose / 100
        )
        for file, content in (
            ("chosen.toml", "" if best is None else f'fa_arch = "{best.name}"\n'),
            ("fit.sh", "\n".join(["set -e", *commands]) + "\n"),
        ):
            if best is None:
                (args.out / file).unlink(missing_ok=True)  # of an earlier run
            else:
                write_text(args.out / file, content, inputs=inputs)
    print(text)
    print(f"\n{args.out / 'tune.csv'}, {args.out / 'tune.png'}")
    return 0 if best is not None else 1


def _methods(text: str) -> list[str]:
    from splavu.anonymizers.closed_form.methods import METHODS
    from splavu.errors import nearest

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in METHODS:
            raise UserError("--methods", f"'{name}' is not a closed form", nearest(name, METHODS))
    return names
