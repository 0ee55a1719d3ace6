"""What the names of NTU RGB+D, Casia-B and VP videos say, as a table for those whose names are hashes.

Such sets have no label file: subject, action and view are in the names. A table `SET_names.csv` in the set's folder
says the same of renamed videos, `filename` being the released key, and is taken where it is there.

Note: the table gives away what it says. For a release, take the columns out that nobody may know; a reader names the
one that it misses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from splavu.data.csv_table import Row, read_rows
from splavu.data.splits import CASIA_B_REPETITIONS, CasiaName, NtuName, casia_name, film_of, ntu_name
from splavu.errors import UserError

Said = TypeVar("Said")


class VpName(NamedTuple):
    """What the key `ACTION/NAME.avi` of a VP set says."""

    action: str
    film: str
    """Of equal clips: they show the same subjects."""


@dataclass(frozen=True)
class NameRule(Generic[Said]):
    """How the names of a set are read, and written as columns of a table."""

    columns: tuple[str, ...]
    """Besides `filename`."""
    parse: Callable[[str], Said]
    """A raw name -> what it says."""
    cells: Callable[[Said], tuple[object, ...]]
    """The same in the order of `columns`."""
    of_row: Callable[[Row], Said]
    """A row of the table -> what the name said; raises ValueError."""
    numbered: str | None = None
    """A column whose values are parts of the raw names: 1, 2, ... are written in their place."""

    def table(self, released_of: Mapping[str, str]) -> list[tuple[str, ...]]:
        """The table's rows, the header first.

        Args:
            released_of: Raw name -> released key, in the order of the rows.

        Raises:
            UserError: A raw name isn't of the rule's form.
        """
        rows = [dict(zip(self.columns, self.cells(self.parse(raw)), strict=True)) for raw in released_of]
        if self.numbered is not None:
            number: dict[object, int] = {}
            for row in rows:
                row[self.numbered] = number.setdefault(row[self.numbered], len(number) + 1)
        cells = [tuple(map(str, row.values())) for row in rows]
        keys = released_of.values()
        return [("filename", *self.columns), *((key, *row) for key, row in zip(keys, cells, strict=True))]

    def read(self, keys: Iterable[str], table: str | Path) -> dict[str, Said]:
        """Key -> what its name says: by the table, in its order, then of keys without a row by their names, sorted.

        Raises:
            UserError: The table is damaged, or a key has neither a row nor a name of the rule's form.
        """
        keys, found = set(keys), {}
        if Path(table).is_file():
            for row in read_rows(table, ("filename", *self.columns)):
                if (key := row["filename"]) in keys:
                    try:
                        found[key] = self.of_row(row)
                    except (ValueError, KeyError) as error:
                        raise UserError(table, f"the row of '{key}' is damaged ({error})", "mend it") from error
        return found | {key: self.parse(key) for key in sorted(keys.difference(found))}


def _ntu(row: Row) -> NtuName:
    return ntu_name(f"S001C{int(row['view']):03d}{row['subject']}R001A{int(row['action']):03d}")


def _casia(row: Row) -> CasiaName:
    if row["action"] not in CASIA_B_REPETITIONS:
        raise ValueError(f"unknown walk '{row['action']}'")
    return casia_name(f"{row['subject']}-{row['action']}-{int(row['repetition']):02d}-{int(row['view']):03d}")


_VP = NameRule(
    ("action", "film"),
    lambda key: VpName(key.rpartition("/")[0], film_of(key)),
    lambda said: said,
    lambda row: VpName(row["action"], row["film"]),
    numbered="film",
)

NAME_RULES: Mapping[str, NameRule[Any]] = {
    "ntu": NameRule(
        ("subject", "action", "view"), ntu_name, lambda said: (said.subject, said.action, said.camera), _ntu
    ),
    "casia_b": NameRule(
        ("subject", "action", "repetition", "view"),
        casia_name,
        lambda said: (said.subject, said.walk, said.repetition, said.view),
        _casia,
    ),
    "vp_hmdb": _VP,
    "vp_ucf": _VP,
}
"""The data sets whose names are labels. Actions of NTU count from 1, as in its names; Casia-B's are the walks."""


def table_name(name: str) -> str:
    """The file of a set's table, in the folder of its label files."""
    return f"{name}_names.csv"
