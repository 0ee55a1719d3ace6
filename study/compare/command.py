"""Makes, audits and tests every anonymizer of a list (`study.commands.compare`)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from splavu.reports.plotting import check_drawing
from splavu.runtime import environment as runtime
from splavu.runtime import params, run_folder
from splavu.runtime.files import write_text
from study import config
from study.compare.figure import planes
from study.compare.plan import CompareParams, Comparison, Entry
from study.compare.results import ComparisonRow, rows_of
from study.compare.table import as_csv, as_json, comparison_table, notes
from study.experiments.jobs import Job
from study.experiments.runner import Outcome, finished, run_all, stamps, surroundings


def run(args: argparse.Namespace) -> int:
    """0: every job is done, or --dry-run. 1: some failed, and are listed. Bad input raises UserError (2)."""
    if not args.dry_run:
        check_drawing()
    p = params.load(args.params, CompareParams, args.set)
    comparison = Comparison(p, Path(config.RUNS).resolve(), quick=args.quick)
    jobs, entries = comparison.built
    environment = surroundings()
    if args.dry_run:
        made = stamps(jobs, environment)
        outcomes = {job.name: finished(job, comparison.runs, made[job.name]) or Outcome("not run") for job in jobs}
        print(listing(jobs, outcomes))
    else:
        with run_folder.RunFolder(comparison.run_root, p.run_id).held():
            outcomes = run_all(
                jobs, comparison.runs, environment, at_once=args.jobs, device=args.device, quiet=args.quiet
            )
    rows = rows_of(entries, comparison, outcomes, device=runtime.pick_device(args.device))
    text = page(rows, entries, comparison, outcomes)
    print(text)
    if args.dry_run:
        return 0
    print(f"\ntable: {keep(text, rows, entries, comparison, outcomes)}")
    return 1 if any(outcome.state in ("failed", "not run") for outcome in outcomes.values()) else 0


def listing(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> str:
    """What would be run, the more urgent first."""
    lines = [f"{len(jobs)} jobs, {sum(outcome.state == 'not run' for outcome in outcomes.values())} to run"]
    for job in jobs:
        after = f" (after {', '.join(job.after)})" if job.after else ""
        lines.append(f"\n{job.name}: {outcomes[job.name].state.replace('not run', 'to run')}{after}")
        lines += [f"  python {' '.join(command)}" for command in job.commands]
    return "\n".join([*lines, ""])


def page(
    rows: Sequence[ComparisonRow], entries: Sequence[Entry], comparison: Comparison, outcomes: Mapping[str, Outcome]
) -> str:
    """Table and notes."""
    said = "\n".join(f"- {note}" for note in notes(rows, entries, comparison, outcomes))
    return f"## Anonymizers compared\n\n{comparison_table(rows, comparison)}\n{said}"


def keep(
    text: str,
    rows: Sequence[ComparisonRow],
    entries: Sequence[Entry],
    comparison: Comparison,
    outcomes: Mapping[str, Outcome],
) -> Path:
    """Write the table, its CSV, everything as JSON, and the figure where there is something to show."""
    run = run_folder.RunFolder(comparison.run_root, comparison.p.run_id)
    run.write_json("compare.json", as_json(rows, entries, comparison, outcomes))
    write_text(run.path / "table.csv", as_csv(rows, comparison.tasks))
    figure = planes(rows, comparison.tasks, run.path / "compare.png")
    shown = "" if figure is None else f"\n\n![What is left to attackers against what tasks lose]({figure.name})"
    return write_text(run.path / "table.md", f"{text}{shown}\n")
