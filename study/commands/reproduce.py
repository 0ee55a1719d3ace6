"""Run a table of the paper on the data that is there, and print our numbers beside the published ones.

    splavu reproduce table9 --dry-run          # what it needs, what is there, what is missing
    splavu reproduce table9 --jobs 4           # runs it; after an interruption, the same command continues
    splavu reproduce table1 --data data/demo --quick

Every number comes from the scripts of this repository; each keeps its run folder and log below
saved_models/reproduce/TABLE/ (TABLE-quick with --quick), beside table.md and table.csv. A number says what it was
measured on: features of the synthetic world are no claim about the paper's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from splavu.runtime.schema import Few
from study.reproduce.published_numbers import TABLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("table", metavar="TABLE", help=f"one of {', '.join(TABLES)}")
    parser.add_argument(
        "--data", type=Path, metavar="ROOT", help="data root, its stores in features/ (default: config.py)"
    )
    parser.add_argument("--jobs", type=Few, default=1, help="commands at a time, one thread each (default 1)")
    parser.add_argument("--quick", action="store_true", help="a few epochs: to see that it runs, not for its numbers")
    parser.add_argument(
        "--dry-run", action="store_true", help="list cells and commands, what they need, what is missing"
    )
    parser.add_argument("--columns", default="", help="comma list of columns to run (default: all)")


def run(args: argparse.Namespace) -> int:
    """0: every cell has its number. 1: some are missing or failed, and are listed."""
    from study.reproduce import command

    return command.run(args)
