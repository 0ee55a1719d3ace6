"""Runs a table of the paper and sets ours beside the published numbers (`study.commands.reproduce`)."""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from splavu.errors import UserError, nearest
from splavu.metrics.estimates import Interval
from splavu.reports.markdown import markdown_table
from splavu.runtime.files import claimed, write_text
from splavu.runtime.records import as_written, read_record
from splavu.runtime.run_folder import START_AGAIN
from study import config
from study.check_data.inventory import Places
from study.experiments.jobs import Job
from study.experiments.runner import UNRELIABLE, Outcome, finished, run_all, stamps, surroundings
from study.reproduce.plan import COLUMNS, Cell, Grid
from study.reproduce.published_numbers import TABLES, PublishedTable


def run(args: argparse.Namespace) -> int:
    """0: every cell has its number. 1: some are missing or failed, and listed. Bad input raises UserError (2)."""
    if args.table not in TABLES:
        raise UserError("table", f"'{args.table}' is unknown", nearest(args.table, TABLES))
    published = chosen(TABLES[args.table], args.columns)

    root = None if args.data is None else args.data.resolve()
    data, features = (Path(config.DATA), Path(config.FEATURES)) if root is None else (root, root / "features")
    run_root = Path(config.RUNS).resolve()
    folder = run_root / "reproduce" / (f"{args.table}-quick" if args.quick else args.table)
    places = Places(data.resolve(), features.resolve(), None)
    grid = Grid(published, places, folder, run_root, quick=args.quick)
    jobs, cells = grid.built
    environment = surroundings(places.data, places.features)
    if args.dry_run:
        made = stamps(jobs, environment)
        outcomes = {job.name: finished(job, folder, made[job.name]) or Outcome("not run") for job in jobs}
        print(listing(jobs, cells, outcomes))
    else:
        with claimed(folder, is_folder=True):
            outcomes = run_all(jobs, folder, environment, at_once=args.jobs, device=args.device, quiet=args.quiet)
    values = {id(cell): value_of(cell, outcomes, jobs, folder) for cell in cells}
    text = report_section(args.table, published, cells, values, outcomes)
    if args.quick:
        text += "\n\nQuick: a few epochs of everything show that it runs. Don't compare the numbers."
    print(text)
    if args.dry_run:
        return 1 if any(cell.missing for cell in cells) else 0
    print(f"\ntable: {keep(args.table, folder, text, cells, values, outcomes)}")
    wanted = [cell for cell in cells if cell.job or cell.missing]
    return 1 if any(values[id(cell)] is None for cell in wanted) else 0


def chosen(published: PublishedTable, columns: str) -> PublishedTable:
    """The table with the columns asked for."""
    names = tuple(name.strip() for name in columns.split(",") if name.strip()) or published.columns
    for name in names:
        if name not in published.columns:
            raise UserError("--columns", f"'{name}' is none of this table's", nearest(name, published.columns))
    return PublishedTable(published.title, names, published.rows, published.note)


def keep(
    name: str,
    folder: Path,
    text: str,
    cells: Sequence[Cell],
    values: Mapping[int, Interval | None],
    outcomes: Mapping[str, Outcome],
) -> Path:
    """table.md and table.csv."""
    write_text(folder / "table.csv", as_csv(name, cells, values, outcomes))
    return write_text(folder / "table.md", text + "\n")


def value_of(cell: Cell, outcomes: Mapping[str, Outcome], jobs: Sequence[Job], folder: Path) -> Interval | None:
    """Ours, from the result that the cell's job left."""
    if cell.job is None or outcomes[cell.job].state not in ("done", *UNRELIABLE.values()):
        return None
    result = next(job.result for job in jobs if job.name == cell.job)
    path = folder / cell.job / result
    with as_written(path, START_AGAIN):
        return cell.read(read_record(path, START_AGAIN))


def listing(jobs: Sequence[Job], cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> str:
    """What isn't there, file by file, and what would be run."""
    absent: dict[str, dict[str, None]] = {}
    for cell in cells:
        for name, files in cell.missing.items():
            absent.setdefault(name, {}).update(dict.fromkeys(files))
    lines = []
    for name, files in absent.items():
        lines += [f"missing: {name}", *(f"  {file}" for file in files)]
    lines.append("python -m splavu check-data says more of each\n" if absent else "nothing is missing\n")
    lines += [f"{len(jobs)} jobs, {sum(o.state == 'not run' for o in outcomes.values())} to run"]
    for job in jobs:
        after = f" (after {', '.join(job.after)})" if job.after else ""
        lines.append(f"\n{job.name}: {outcomes[job.name].state.replace('not run', 'to run')}{after}")
        lines += [f"  python {' '.join(command)}" for command in job.commands]
    return "\n".join([*lines, ""])


def report_section(
    name: str,
    published: PublishedTable,
    cells: Sequence[Cell],
    values: Mapping[int, Interval | None],
    outcomes: Mapping[str, Outcome],
) -> str:
    """Ours beside the published numbers; letters tell what ours were measured on, numbers why there is none."""
    measured: dict[str, str] = {}
    absent: dict[str, str] = {}
    header = [name]
    for column in published.columns:
        header += [COLUMNS[column].title, "published"]
    rows = []
    for row in published.rows:
        line = [row.name]
        for cell in (c for c in cells if c.row is row):
            value = values[id(cell)]
            if value is not None:
                told = measured_on(cell, outcomes)
                letter = measured.setdefault(told, _letter(len(measured)))
                line.append(f"{shown(value)} [{letter}]")
            elif not cell.job and not cell.missing:
                line.append("")
            else:
                reason = why_not(cell, outcomes)
                line.append(f"- ({absent.setdefault(reason, str(len(absent) + 1))})")
            line.append(f"{row.numbers[cell.column]:.2f}" if cell.column in row.numbers else "not given")
        rows.append(line)
    lines = [
        f"## {name}: {published.title}\n",
        "Per cent, ours and the published number beside it.\n",
        markdown_table(header, rows),
    ]
    lines += [f"[{letter}] measured on {told}" for told, letter in measured.items()]
    lines += [f"({number}) no number: {reason}" for reason, number in absent.items()]
    if published.note:
        lines += ["", published.note]
    if any(cell.origin == "synthetic" for cell in cells if values[id(cell)] is not None):
        lines += [
            "",
            "Features of the synthetic world say nothing about the paper's: only the order of rows can be compared.",
        ]
    return "\n".join(lines)


def shown(value: Interval) -> str:
    """Per cent, with its interval."""
    interval = "" if not value.has_ends else f" ({100 * value.low:.1f} to {100 * value.high:.1f})"
    return f"{100 * value.value:.2f}{interval}"


def measured_on(cell: Cell, outcomes: Mapping[str, Outcome]) -> str:
    """Data set, encoder, whether real, and what they stand in for."""
    said = f"{cell.on}, {cell.origin}"
    if cell.stands_in:
        said += f"; in place of {cell.stands_in}"
    why = {"gate failed": "; ITS GATE FAILED, not to be relied on", "undecided": "; UNDECIDED: too few test subjects"}
    return said + why.get(outcomes[cell.job].state, "")


def why_not(cell: Cell, outcomes: Mapping[str, Outcome]) -> str:
    if cell.missing:
        return f"missing: {', '.join(cell.missing)}"
    outcome = outcomes[cell.job]
    return f"{outcome.state}: {outcome.detail}" if outcome.detail else f"{outcome.state} yet"


def as_csv(
    name: str, cells: Sequence[Cell], values: Mapping[int, Interval | None], outcomes: Mapping[str, Outcome]
) -> str:
    """A line a cell, in per cent."""
    columns = (
        "table",
        "row",
        "column",
        "ours",
        "low",
        "high",
        "published",
        "data",
        "origin",
        "in_place_of",
        "job",
        "state",
    )
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(columns)
    for cell in cells:
        value = values[id(cell)]
        figures = [math.nan] * 3 if value is None else [value.value, value.low, value.high]
        state = outcomes[cell.job].state if cell.job else "missing" if cell.missing else "none"
        ours = ["" if math.isnan(figure) else f"{100 * figure:.4f}" for figure in figures]
        published = cell.row.numbers.get(cell.column, "not given")
        about = (cell.on, cell.origin, cell.stands_in, cell.job or "", state)
        writer.writerow((name, cell.row.name, cell.column, *ours, published, *about))
    return lines.getvalue()


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else f"z{place - 25}"
