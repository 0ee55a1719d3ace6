"""Tables of private labels: what an attacker is after, of whom each video is, and who is trained and tested on.

One reader for every command. A table is CSV with a column `filename`, and may have `subject`, `group`, `split` and
`label`; every other column is a private attribute of one kind:

    binary   0 and 1, yes and no, true and false in the spellings of `BINARY`; -1 and 1; 0, 1 and -1 for unknown (NaN)
    class    one of several: words, or up to `MOST_CLASSES` different whole numbers; 1 and 2 are two classes
    value    any other number, such as an age

Note: a kind is inferred from the cells, so commands print it (`PrivateTable.summary`) and `attributes` can overrule it.
A column that fits no kind is refused by name: what is left out in silence would pass for safe.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from splavu.data.csv_table import check_splits, filled, is_unknown, read_rows, split_of
from splavu.data.keys import match_keys
from splavu.errors import UserError, nearest, printable

logger = logging.getLogger(__name__)

Kind = Literal["binary", "class", "value"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NO_ATTRIBUTES = ("filename", "subject", "group", "split", "label")
"""Columns that say who and where; a task's label is no private attribute though it may be of two classes."""
IF_ASKED = ("action", "num_frames")
"""Columns of the task and of the file: private attributes only where `--attributes` names them."""
NOT_READ = "not read"
"""In place of a kind: a column that `--attributes` doesn't name, or one of `IF_ASKED`."""
BINARY = {"no": 0, "yes": 1, "n": 0, "y": 1, "false": 0, "true": 1, "f": 0, "t": 1}
"""Spelling in lower case -> 0 or 1, besides the numbers 0 and 1; what -1 says, `_binary` decides."""
MOST_CLASSES = 10
"""Different whole numbers that are taken for classes; a column of more of them holds values."""


@dataclass(frozen=True)
class PrivateLabels:
    """What an attacker wants to know of the videos of a store, by key."""

    attributes: tuple[str, ...]
    """Names of the A binary columns."""
    values: Mapping[str, NDArray[np.float32]]
    """Key -> [A] of 0, 1 and NaN for unknown."""
    subjects: Mapping[str, str]
    """Key -> the subject (or the film, where subjects have no names): what a split may not cut through; empty where the
    labels don't say."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Key -> 'train', 'val' or 'test'; empty where the labels don't say."""


@dataclass(frozen=True)
class PrivateColumn:
    """One private attribute of N videos."""

    name: str
    kind: Kind
    values: NDArray[np.float64]
    """[N]: 0 and 1, the place in `classes`, or the number; NaN for unknown."""
    classes: tuple[str, ...] = ()
    """Names of the classes, sorted; of kind 'class' only."""

    @property
    def record(self) -> dict[str, Any]:
        """Kind and counts, as evidence and checkpoints keep them."""
        known = self.values[~np.isnan(self.values)]
        found: dict[str, Any] = {"name": self.name, "kind": self.kind, "unknown": len(self.values) - len(known)}
        if self.kind == "binary":
            return found | {"no": int((known == 0).sum()), "yes": int((known == 1).sum())}
        if self.kind == "class":
            return found | {"classes": len(self.classes)}
        return found | {"lowest": float(known.min()), "highest": float(known.max())}


@dataclass(frozen=True)
class PrivateTable:
    """A table as it was read: N rows in their order."""

    path: Path
    names: tuple[str, ...]
    """[N] file names as they stand there; each once."""
    columns: tuple[PrivateColumn, ...]
    """In the order of the file, or as asked for."""
    subjects: tuple[str, ...] | None
    """[N] of the groups file, the column `subject` or the column `group`; None without any."""
    splits: tuple[str, ...] | None
    """[N] 'train', 'val' or 'test'; None without the column."""
    skipped: tuple[str, ...] = ()
    """Other columns of attributes, which weren't asked for."""
    unasked: tuple[str, ...] = ()
    """Those of `skipped` that are left out unless they are asked for (`IF_ASKED`), where nothing was asked for."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The binary columns."""
        return tuple(column.name for column in self.columns if column.kind == "binary")

    @property
    def records(self) -> list[dict[str, Any]]:
        """What every column of attributes was read as, as evidence and checkpoints keep it."""
        return [column.record for column in self.columns] + [{"name": name, "kind": NOT_READ} for name in self.skipped]

    def summary(self, verb: str) -> str:
        """`summary` of the records, after the name of the file."""
        return f"{self.path.name}: {summary(self.records, verb)}"

    def report(self, verb: str, *, by_user: bool = True) -> None:
        """Log the `summary`: as a warning, where a column is left out that the user didn't choose to leave out.

        Args:
            verb: Of `summary`.
            by_user: Whether the attributes that were asked for, if any, are the user's choice.
        """
        left_out = self.unasked if by_user else self.skipped
        is_whole = not left_out and all(column.kind == "binary" for column in self.columns)
        logger.log(logging.INFO if is_whole else logging.WARNING, "%s", self.summary(verb))

    def require_binary(self, command: str) -> None:
        """Refuse a table without a binary column."""
        if not self.attributes:
            read = ", ".join(f"'{column.name}' is of kind {column.kind}" for column in self.columns)
            remedy = f"{command} takes columns of 0 and 1, yes and no; --attributes NAME:binary decides"
            raise UserError(self.path, f"has no binary attribute ({read or 'no other column'})", remedy)

    def require_subjects(self, remedy: str = "add it: a split is by subject") -> None:
        """Refuse a table that doesn't say who is who."""
        if self.subjects is None:
            raise UserError(self.path, "has no column 'subject'", remedy)

    def rows_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Key -> row, of those of the keys that have one (`keys.match_keys`), in the order of the keys.

        Raises:
            UserError: Two rows mean one key, or one row two.
        """
        place = {name: number for number, name in enumerate(self.names)}
        return {key: place[name] for key, name in match_keys(self.names, keys, source=self.path).items()}

    def of(self, keys: Iterable[str]) -> PrivateLabels:
        """The binary attributes of the keys that `rows_of` finds; raises what it does."""
        row = self.rows_of(keys)
        binary = [column.values for column in self.columns if column.kind == "binary"]
        values = np.array(binary, np.float32).reshape(len(binary), len(self.names)).T  # [N, A]
        return PrivateLabels(
            self.attributes,
            {key: values[number] for key, number in row.items()},
            {} if self.subjects is None else {key: self.subjects[number] for key, number in row.items()},
            {} if self.splits is None else {key: self.splits[number] for key, number in row.items()},
        )


def summary(records: Iterable[Mapping[str, Any]], verb: str, *, taken: Collection[str] = ("binary",)) -> str:
    """One line on what was read as what, such as `binary: gender (3 unknown); class, not erased: action (5 classes)`.

    Args:
        records: `PrivateTable.records`.
        verb: What the command does to columns of the kinds `taken`, and to no other: 'attacked', 'erased'.
        taken: Kinds.
    """
    named: dict[str, list[str]] = {}
    for record in records:
        details = []
        if count := record.get("classes"):
            details.append(f"{count} class{'es' * (count > 1)}")
        if unknown := record.get("unknown"):
            details.append(f"{unknown} unknown")
        shown = record["name"] + (f" ({', '.join(details)})" if details else "")
        named.setdefault(record["kind"], []).append(shown)
    return "; ".join(
        f"{kind if kind in (*taken, NOT_READ) else f'{kind}, not {verb}'}: {', '.join(named[kind])}"
        for kind in (*KINDS, NOT_READ)
        if kind in named
    )


def read_private_table(
    path: str | Path, *, attributes: Sequence[str] | str | None = None, groups: str | Path | None = None
) -> PrivateTable:
    """The table at `path`, every attribute with its kind.

    Args:
        path: CSV file with a column `filename`.
        attributes: Read these columns only, each a name or NAME:kind; a string is a comma list. None reads all but
            `NO_ATTRIBUTES` and `IF_ASKED`.
        groups: CSV file `filename,group`: who (or which cluster of videos) each is of, over the column `subject`.

    Raises:
        UserError: A damaged table; a column that was asked for and isn't there, or isn't of the kind asked for, or that
            fits no kind; a row without its subject, group or split; a subject in two splits.
    """
    return private_table(read_rows(path), path, attributes=attributes, groups=groups)


def private_table(
    rows: Sequence[Mapping[str, str]],
    path: str | Path,
    *,
    attributes: Sequence[str] | str | None = None,
    groups: str | Path | None = None,
) -> PrivateTable:
    """The same of rows that are read already; `path` is what errors blame."""
    path, header = Path(path), tuple(rows[0])
    names = tuple(row["filename"] for row in rows)
    if "" in header:
        raise UserError(path, "has a column without a name", "name it or take it out (pandas: to_csv(index=False))")
    known = tuple(name for name in header if name not in NO_ATTRIBUTES)
    unasked: dict[str, Kind | None] = dict.fromkeys(name for name in known if name not in IF_ASKED)
    wanted = unasked if attributes is None else _wanted(attributes, header, path)
    columns = []
    for name, kind in wanted.items():
        cells = [row[name].strip() for row in rows]
        columns.append(_column(name, cells, kind or _kind(name, cells, path), names, path))
    subjects = _subjects(rows, groups, path)
    splits = None
    if "split" in header:
        splits = tuple(split_of(row["split"], row["filename"], path) for row in rows)
        if subjects is not None:
            check_splits(dict(zip(names, subjects, strict=True)), dict(zip(names, splits, strict=True)), path)
    skipped = tuple(name for name in known if name not in wanted)
    return PrivateTable(path, names, tuple(columns), subjects, splits, skipped, skipped if attributes is None else ())


def _wanted(attributes: Sequence[str] | str, header: Sequence[str], path: Path) -> dict[str, Kind | None]:
    """Column -> the kind asked for, or None."""
    listed = attributes.split(",") if isinstance(attributes, str) else attributes
    wanted: dict[str, Kind | None] = {}
    for item in map(str.strip, listed):
        name, colon, kind = item.rpartition(":")
        if item in header or not colon:
            name, kind = item, None
        elif kind not in KINDS:
            raise UserError("--attributes", f"'{item}' has the kind '{kind}'", f"known: {', '.join(KINDS)}")
        if name not in header:
            raise UserError(path, f"has no column '{name}'", nearest(name, header))
        if name in wanted:
            raise UserError("--attributes", f"duplicate column '{name}'", "name each column once")
        wanted[name] = cast(Kind | None, kind)
    return wanted


def _kind(name: str, cells: Sequence[str], path: Path) -> Kind:
    """What a column is, by its cells."""
    known = [cell for cell in cells if not is_unknown(cell)]
    if not known:
        problem = f"column '{name}' holds nothing but unknown"
        raise UserError(path, problem, "fill it in, take it out, or name the columns you want with --attributes")
    distinct = set(known)
    if None not in _binary(distinct).values():
        return "binary"
    numbers = [number for cell in distinct if (number := _number(cell)) is not None]
    if len(numbers) == len(distinct):
        whole = all(number.is_integer() for number in numbers)
        return "class" if whole and len(set(numbers)) <= MOST_CLASSES else "value"
    if len({cell.lower() for cell in distinct}) < len(known):
        return "class"
    problem = f"column '{name}' fits no kind: {len(known)} cells such as '{known[0]}', all different"
    remedy = f"take it out, say '{name}:class', or name the columns you want with --attributes"
    raise UserError(path, problem, remedy)


def _column(name: str, cells: Sequence[str], kind: Kind, names: Sequence[str], path: Path) -> PrivateColumn:
    """The column read as of `kind`."""
    held = {cell.lower(): cell for cell in reversed(cells) if not is_unknown(cell)}
    number_of: Mapping[str, float | None]
    classes: tuple[str, ...] = ()
    if kind == "class":
        number_of, classes = _classes(held)
    else:
        number_of = _binary(held) if kind == "binary" else {cell: _number(cell) for cell in held}
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if not is_unknown(cell):
            number = number_of[cell.lower()]
            if number is None:
                expected = {"binary": "0, 1, yes, no, or empty for unknown", "value": "a number"}[kind]
                remedy = f"mend the cell, or leave the column out with --attributes, or say '{name}:class'"
                raise UserError(path, f"'{names[row]}' has {name} = '{cell}', expected {expected}", remedy)
            values[row] = number
    if np.isnan(values).all():
        raise UserError(path, f"column '{name}' holds nothing but unknown", "fill it in, or take it out")
    return PrivateColumn(name, kind, values, classes)


def _classes(cells: Mapping[str, str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Cell in lower case -> the place of its class, and the names of the classes; 1 and 1.0 are one."""
    numbers = {lower: _number(lower) for lower in cells}
    meaning: Mapping[str, Any] = {lower: lower for lower in cells} if None in numbers.values() else numbers
    names: dict[Any, str] = {meaning[lower]: printable(cell) for lower, cell in cells.items()}
    places = {value: float(place) for place, value in enumerate(sorted(names))}
    return {lower: places[meaning[lower]] for lower in cells}, tuple(names[value] for value in sorted(names))


def _binary(cells: Iterable[str]) -> dict[str, float | None]:
    """Cell -> 0 or 1; None where it is neither. -1 says no where the only other number is 1, and else unknown (NaN)."""
    numbers = {cell: _number(cell) for cell in cells}
    has_minus = set(numbers.values()) - {None} == {-1.0, 1.0}
    allowed = {-1.0: 0.0 if has_minus else math.nan, 0.0: 0.0, 1.0: 1.0}
    return {
        cell: BINARY.get(cell.lower()) if number is None else allowed.get(number) for cell, number in numbers.items()
    }


def _number(cell: str) -> float | None:
    """A finite number in digits, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None  # float() takes 1_0


def _subjects(rows: Sequence[Mapping[str, str]], groups: str | Path | None, path: Path) -> tuple[str, ...] | None:
    """Who each row is of; None where nothing says."""
    if groups is not None:
        table = read_rows(groups, ("filename", "group"))
        filled_in = filled(table, "group", groups, remedy="give each file its group")
        group_of = {row["filename"]: group for row, group in zip(table, filled_in, strict=True)}
        names = [row["filename"] for row in rows]
        name_in_groups = match_keys(group_of, names, source=groups)
        if absent := [name for name in names if name not in name_in_groups]:
            raise UserError(groups, f"'{absent[0]}' has no group", f"{len(absent)} files of {path} lack one")
        return tuple(group_of[name_in_groups[name]] for name in names)
    for column in ("subject", "group"):
        if column in rows[0]:
            return tuple(filled(rows, column, path, remedy="fill them in"))
    return None
