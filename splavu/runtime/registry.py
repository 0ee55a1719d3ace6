"""Tables of named rows that other installed packages extend: what a name in params or on the command line can mean.

A package adds a row by an entry point, in its own `pyproject.toml`:

    [project.entry-points."splavu.encoders"]
    my-encoder = "my_package.rows:MY_ENCODER"
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Generic, TypeVar

from splavu.errors import UserError, one_line

Row = TypeVar("Row")


class Registry(Mapping[str, Row], Generic[Row]):
    """Name -> row: the library's own rows, then those of installed packages.

    A name of the library is looked up without reading any metadata. The names of the entry points are read once, when
    another name is looked up or the names are listed; a package is imported when its row is asked for.

    Args:
        rows: The library's own rows; no package can replace one.
        group: The group of the entry points.
        kind: What every row is an instance of.
        aliases: Former name -> name; looked up, not listed.

    Raises:
        UserError: On lookup, a package's row can't be imported or is something else.
    """

    def __init__(
        self, rows: Mapping[str, Row], *, group: str, kind: type[Row], aliases: Mapping[str, str] | None = None
    ) -> None:
        self._rows, self._group, self._kind, self._aliases = dict(rows), group, kind, dict(aliases or {})

    def canonical(self, name: str) -> str:
        """The name of today."""
        return self._aliases.get(name, name)

    @functools.cached_property
    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        own = self._rows.keys() | self._aliases.keys()
        return {entry.name: entry for entry in metadata.entry_points(group=self._group) if entry.name not in own}

    def __getitem__(self, name: str) -> Row:
        name = self.canonical(name)
        if name not in self._rows:
            self._rows[name] = self._imported(self._entry_points[name])
        return self._rows[name]

    def _imported(self, entry: metadata.EntryPoint) -> Row:
        culprit, remedy = f"entry point '{entry.name}' of {self._group}", "mend or uninstall the package that brings it"
        try:
            row = entry.load()
        except Exception as error:  # whatever a foreign package does when it is imported
            raise UserError(culprit, f"{entry.value} can't be imported ({one_line(error)})", remedy) from error
        if not isinstance(row, self._kind):
            raise UserError(culprit, f"{entry.value} is no {self._kind.__name__}", remedy)
        return row

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._aliases or name in self._entry_points

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys((*self._rows, *self._entry_points))

    def __len__(self) -> int:
        return len(self._rows.keys() | self._entry_points.keys())
