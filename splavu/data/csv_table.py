"""The one reader of CSV tables with a row per video: cells as text, and every damage named.

Note: no row and no column may be in a table twice. Readers that keep the last of the two use labels that no one chose.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from splavu.data.keys import file_key
from splavu.errors import UserError

Row = Mapping[str, str]
"""Column -> cell, as it stands in the file."""

UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown", "?"})
"""What people write in a cell that they can't fill, in lower case."""
SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}
"""Cell of a column `split`, in lower case -> the split."""


def read_text(path: str | Path) -> str:
    """The text of a label file, without a byte order mark.

    Raises:
        UserError: There is no such file, or it is no text.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such label file", "see the README for the layout of each data set")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(path, "is no text file", "use the published label file") from error


def read_rows(path: str | Path, columns: Sequence[str] = ("filename",)) -> list[Row]:
    """The rows of a CSV file whose header has `columns`; the first of them names the video.

    Spaces around the names in the header are dropped, those in cells are kept.

    Raises:
        UserError: No CSV file, a column that is missing or there twice, no row, a row of another length, a row that
            names no file, or a file on two rows.
    """
    reader = csv.reader(io.StringIO(read_text(path)))
    try:
        header, *rows = [cells for cells in reader if cells] or [[]]
    except csv.Error as error:
        raise UserError(path, f"is no CSV file ({error}, line {reader.line_num})", "is a quote left open?") from error
    header = [name.strip() for name in header]
    if twice := [name for place, name in enumerate(header) if name in header[:place]]:
        raise UserError(path, f"duplicate column '{twice[0]}'", "keep one of the two, or rename it")
    if missing := [name for name in columns if name not in header]:
        raise UserError(path, f"has columns {', '.join(header) or '(none)'} but not '{missing[0]}'", "mend the header")
    if not rows:
        raise UserError(path, "has a header but no row", "write at least one label")
    place, seen = header.index(columns[0]), set()
    for number, cells in enumerate(rows, start=1):
        name = cells[place] if place < len(cells) else ""
        if len(cells) != len(header):
            problem = f"row {number} ('{name}') has not the header's {len(header)} cells"
            raise UserError(path, problem, 'mend the row; a text with commas stands in quotes "..."')
        if not file_key(name):
            raise UserError(path, f"row {number} names no file ('{name}')", "mend the row")
        if name in seen:
            raise UserError(path, f"duplicate key '{name}'", "keep one row a file")
        seen.add(name)
    return [dict(zip(header, cells, strict=True)) for cells in rows]


def by_key(rows: Iterable[Row], path: str | Path) -> dict[str, Row]:
    """Rows with a column `filename` by the key that extraction gives the file.

    Raises:
        UserError: Two files have the same key.
    """
    keyed: dict[str, Row] = {}
    for row in rows:
        if (key := file_key(row["filename"])) in keyed:
            problem = f"duplicate key '{key}', of '{keyed[key]['filename']}' and of '{row['filename']}'"
            raise UserError(path, problem, "rename one of the files")
        keyed[key] = row
    return keyed


def is_unknown(cell: str) -> bool:
    """Whether a cell is empty or says that nothing is known."""
    return cell.strip().lower() in UNKNOWN


def filled(rows: Iterable[Row], column: str, path: str | Path, *, remedy: str) -> list[str]:
    """The cells of a column that says who or where, without the spaces around them.

    Raises:
        UserError: Some are empty or unknown; one is named, and how many there are.
    """
    rows = list(rows)
    cells = [row[column].strip() for row in rows]
    if blank := [row["filename"] for row, cell in zip(rows, cells, strict=True) if is_unknown(cell)]:
        problem = f"{len(blank)} of {len(cells)} rows have no {column}, such as '{blank[0]}'"
        raise UserError(path, problem, remedy)
    return cells


def split_of(cell: str, name: str, path: str | Path) -> str:
    """'train', 'val' or 'test', as a cell of a column `split` says.

    Raises:
        UserError: It says something else.
    """
    if (split := SPLITS.get(cell.strip().lower())) is None:
        raise UserError(path, f"'{name}' is in split '{cell}'", "known: train, val, test")
    return split


def check_splits(subjects: Mapping[str, str], splits: Mapping[str, str], path: str | Path) -> None:
    """Refuse a subject in two splits: an attacker or a head would recognise the subject. Both by row."""
    first: dict[str, str] = {}
    for name, split in splits.items():
        subject = subjects[name]
        if first.setdefault(subject, split) != split:
            problem = f"subject '{subject}' is in {first[subject]} and in {split}"
            raise UserError(path, problem, "give each subject one split, or leave the column out")
