"""The one reader of CSV tables with a row per video: cells as text, and every damage named.

Note: no row and no column may be in a table twice. Readers that keep the last of the two use labels that no one chose.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from splavu.data.keys import file_key
from splavu.errors import UserError, printable

Row = Mapping[str, str]
"""Column -> cell, as it stands in the file."""

UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown", "?"})
"""What people write in a cell that they can't fill, in lower case."""
SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}
"""Cell of a column `split`, in lower case -> the split."""


def read_text(path: str | Path, *, opaque: bool = False) -> str:
    """The text of a label file, without a byte order mark; line ends are as in the file.

    Args:
        path: The file.
        opaque: It holds names of files, which need not be UTF-8: other bytes are read as the file system's are (as
            surrogates, PEP 383).

    Raises:
        UserError: There is no such file, it can't be read, or it is no text in UTF-8.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(path, "no such label file", "check the path; docs/data.md has the layout of each data set")
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape" if opaque else "strict")
    except OSError as error:
        raise UserError(path, f"can't be read ({error.strerror})", "give a file that you may read") from error
    except UnicodeDecodeError as error:
        raise UserError(path, "is no text in UTF-8", "save it as UTF-8, or use the published label file") from error
    if "\0" in text:  # of UTF-16 every second byte, for one
        raise UserError(path, "is no text in UTF-8: it holds a NUL", "save it as UTF-8")
    return text


def lines_of(text: str) -> list[str]:
    """The lines of a text, whose names may hold what `str.splitlines` takes for a line end (such as U+2028)."""
    return text.replace("\r\n", "\n").split("\n")


def read_rows(path: str | Path, columns: Sequence[str] = ("filename",)) -> list[Row]:
    """The rows of a CSV file whose header has `columns`; the first of them names the video.

    Spaces around the names in the header are dropped, and what can't be printed in them is escaped; cells are kept.

    Raises:
        UserError: No CSV file, a column that is missing or there twice, no row, a row of another length, a row that
            names no file, or a file on two rows.
    """
    reader = csv.reader(io.StringIO(read_text(path, opaque=True), newline=""), strict=True)
    try:
        header, *rows = [cells for cells in reader if cells] or [[]]
    except csv.Error as error:
        raise UserError(path, f"is no CSV file ({error}, line {reader.line_num})", "is a quote left open?") from error
    if not all(map(_is_text, header)):
        raise UserError(path, "has a header that isn't UTF-8", "save it as UTF-8")
    header = [printable(name.strip()) for name in header]
    if twice := [name for place, name in enumerate(header) if name in header[:place]]:
        raise UserError(path, f"duplicate column '{twice[0]}'", "keep one of the two, or rename it")
    if missing := [name for name in columns if name not in header]:
        raise UserError(
            path, f"has columns {', '.join(header) or '(none)'} but not '{missing[0]}'", _header_remedy(header)
        )
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
        if foreign := [
            column for column, cell in zip(header, cells, strict=True) if cell != name and not _is_text(cell)
        ]:
            raise UserError(path, f"'{name}' has a {foreign[0]} that isn't UTF-8", "save the file as UTF-8")
        seen.add(name)
    return [dict(zip(header, cells, strict=True)) for cells in rows]


def _is_text(cell: str) -> bool:
    """Whether it holds no byte that isn't UTF-8."""
    return cell.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in cell)


def _header_remedy(header: Sequence[str]) -> str:
    is_other = len(header) == 1 and any(separator in header[0] for separator in (";", r"\t", "|"))
    return "separate the columns by commas" if is_other else "mend the header"


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
