"""Audit every anonymizer of a list and test it on every task, in one table.

    splavu compare --dry-run              # what would be run, and the table so far
    splavu compare --jobs 2               # params/params_compare.py; after an interruption, the same command continues
    splavu compare --quick                # quick audits: a first look

Each anonymizer is trained or fitted by its settings, its features are released and audited as `splavu audit` does, the
same for all; newly trained heads and detectors are tested on them: action recognition (AR), temporal action detection
(TAD), anomaly detection (AD). Raw features are the first row. Output: table.md, table.csv, compare.json and compare.png
in the run folder, beside one folder with its log for each job.

Note: this evaluates on test subjects. Choose an operating point with `splavu sweep`, which does not read them, and
compare what was chosen.
"""

from __future__ import annotations

import argparse

from splavu.runtime import cli
from splavu.runtime.schema import Few
from study import config

PARAMS = "params/params_compare.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    cli.add_params(parser, config.HERE / PARAMS)
    parser.add_argument("--jobs", type=Few, default=1, help="commands at a time, one thread each (default 1)")
    parser.add_argument("--quick", action="store_true", help="quick audits: to see that it runs, not for a decision")
    parser.add_argument("--dry-run", action="store_true", help="list what would be run, and the table so far")


def run(args: argparse.Namespace) -> int:
    """0: every job is done, or --dry-run. 1: some failed, and are listed."""
    from study.compare import command

    return command.run(args)
