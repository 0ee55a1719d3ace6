"""Choose an operating point: which weights, ranks and bit budgets give how much privacy for how much utility.

    splavu sweep                                    # params/params_sweep.py, on the demo's features
    splavu sweep --params my_sweep.py --jobs 4      # after an interruption, the same command continues

Every candidate is trained or fitted for each seed; newly trained attackers and a new linear head are then evaluated on
*validation* subjects. Output: table and curves (sweep.md, sweep.json), the Pareto front, the normalised hypervolume of
each family, and the chosen point as a parameter file (chosen.py): the one that leaks least among those that keep the
action within `most_lost` points of raw features. Baselines are shown and never chosen. Test subjects are not read;
audit the chosen anonymizer on them.
"""

from __future__ import annotations

import argparse

from splavu.runtime import cli
from splavu.runtime.schema import Few
from study import config

PARAMS = "params/params_sweep.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    cli.add_params(parser, config.HERE / PARAMS)
    parser.add_argument("--jobs", type=Few, default=2, help="candidates at a time, one thread each (default 2)")


def run(args: argparse.Namespace) -> int:
    """0: every candidate was measured, and one was chosen. 1: none was, or some could not be made."""
    from study.sweep import command

    return command.run(args)
