"""Report what is there of each data set, what is missing, and where it belongs.

    splavu check-data                          # all data sets, at the roots of config.py
    splavu check-data hmdb51 folder:gym --data ROOT --features ROOT --encoder videoMAE

A data set is usable if its label files can be read and either all labelled videos are there (then extract features) or
the feature stores of an encoder hold exactly the labelled videos. With --encoder, it must be that encoder's stores.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="data set, or folder:NAME for your own videos; an unknown name lists those known (default: all)",
    )
    parser.add_argument("--data", type=Path, metavar="ROOT", help="holds one folder per data set (default: config.py)")
    parser.add_argument("--features", type=Path, metavar="ROOT", help="holds the feature stores (default: config.py)")
    parser.add_argument("--encoder", metavar="NAME", help="whose stores there must be (default: any or none)")


def run(args: argparse.Namespace) -> int:
    """0: all usable. 1: something is missing and listed."""
    from study.check_data import command

    return command.run(args)
