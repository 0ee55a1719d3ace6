"""Turn the evidence.json of an audit into report.html, a page that needs no other file and no network."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("evidence", type=Path, metavar="EVIDENCE.json", help="written by `splavu audit --out`")
    parser.add_argument("--against", type=Path, metavar="EVIDENCE.json", help="of another audit: print what changed")
    parser.add_argument("--out", type=Path, metavar="REPORT.html", help="(default: report.html beside the evidence)")


def run(args: argparse.Namespace) -> int:
    """Write the page, and print where it is."""
    from jinja2 import UndefinedError

    from splavu.audit.comparison import compared
    from splavu.audit.evidence import read_evidence
    from splavu.audit.report.page import MARKS, report
    from splavu.runtime.files import claimed, write_text
    from splavu.runtime.records import as_written

    target = args.out or args.evidence.with_name("report.html")
    inputs = [args.evidence, *([] if args.against is None else [args.against])]
    with claimed(target, inputs=inputs, marks=MARKS):
        evidence = read_evidence(args.evidence)
        comparison = None if args.against is None else compared(args.against, read_evidence(args.against), evidence)
        with as_written(args.evidence, "run the audit again"):
            try:
                page = report(evidence)
            except UndefinedError as error:  # Jinja's, for a value of another kind
                raise ValueError(error) from error
        print(f"report: {write_text(target, page, inputs=inputs)}")
        if comparison is not None:
            print(comparison)
    return 0
