"""Gather run folders into report.md, with tables and figures."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("run", metavar="FOLDER", type=Path, help="holds the run folders, such as saved_models/demo")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="data root, to show frames of its videos")


def run(args: argparse.Namespace) -> int:
    """Write the report, and print its table."""
    from splavu.reports.run_report import write_report

    report = write_report(args.run, data=args.data)
    print(f"{report.table}\nreport: {report.path}")
    return 0
