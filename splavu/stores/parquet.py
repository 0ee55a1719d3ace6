"""Features in a column of a Parquet file: one feature per row (`list<float>[D]`), or one video (`list<list<float>>`).

Note: other columns are left out. A table of features often names subjects and their labels too, and Parquet keeps
statistics, pandas' index and free metadata of its columns. So a released table has the features' column, the plain
columns that the caller names, provenance, and nothing else.

Needs pyarrow, which is imported when a table is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splavu.errors import UserError, nearest
from splavu.runtime import extras
from splavu.stores.provenance import Attributes, parsed_attributes

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"splavu"
"""Key of the file's metadata: provenance, as JSON."""
CONTENT_KEY = b"splavu_features_sha256"
"""Key of the file's metadata: SHA-256 of all features as little-endian float32, in the order of the rows."""
PART_BYTES = 2**23
"""Bytes of raw features read at once."""


@dataclass(frozen=True)
class TablePart:
    """Consecutive rows of a table."""

    features: np.ndarray  # [N, D] float32
    counts: np.ndarray | None  # [rows] number of features per row; None where a row is one feature
    kept: dict[str, pa.Array]
    """The columns to keep."""


class FeatureTable:
    """A column of features of a Parquet file, read part by part. Pages with a checksum are tested.

    Args:
        path: The file.
        column: The features' column; None takes the only one that holds lists of floats.
        keep: Plain columns (numbers, text, times) to keep.

    Attributes:
        column: The features' column.
        dropped: Columns that are left out.
        attributes: Provenance found in the file.
        num_rows: Number of rows.
        num_parts: Number of `parts`.

    Raises:
        UserError: pyarrow is missing; the file is no Parquet file or has no row; there is no such column, or there are
            several candidates; a column to keep holds no plain values.
    """

    def __init__(self, path: str | os.PathLike[str], *, column: str | None = None, keep: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self._arrow, parquet = import_pyarrow(self.path)
        if not self.path.is_file():
            raise UserError(self.path, "no such Parquet file", "check the path")
        try:
            # Not buffered ahead: a row group may be as large as the file.
            self._file = parquet.ParquetFile(
                self.path, buffer_size=2**20, pre_buffer=False, page_checksum_verification=True
            )
            self.schema: pa.Schema = self._file.schema_arrow
        except (self._arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(self.path, f"not a complete Parquet file ({_line(error)})", "copy it again") from error
        self.column = self._features_column(column)
        for name in keep:
            self._require_plain(name)
        self.keep = [name for name in self.schema.names if name in keep]
        self.dropped = [name for name in self.schema.names if name != self.column and name not in self.keep]
        metadata = self._file.metadata
        self.attributes: Attributes = parsed_attributes(self.path, (metadata.metadata or {}).get(METADATA_KEY, b"{}"))
        self.num_rows: int = metadata.num_rows
        if not self.num_rows:
            raise UserError(self.path, "the table has no rows", "check what wrote it")
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        if sum(group.num_rows for group in groups) != self.num_rows:
            found = f"declares {self.num_rows} rows, its row groups others"
            raise UserError(self.path, found, "copy it again")
        chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
        try:
            num_bytes = sum(
                chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == self.column
            )
        except UnicodeDecodeError as error:
            raise UserError(self.path, f"a column's name is no text ({error})", "copy it again") from error
        self._rows_a_part = max(1, PART_BYTES * self.num_rows // max(1, num_bytes))
        self._rows_of_groups = [group.num_rows for group in groups]
        self._parts_of_groups = [-(-num_rows // self._rows_a_part) for num_rows in self._rows_of_groups]
        self.num_parts = sum(self._parts_of_groups)

    @property
    def holds_videos(self) -> bool:
        """Whether a row is a list of features."""
        return _is_list(self.schema.field(self.column).type.value_type)

    @property
    def width(self) -> int:
        """D, of the first row.

        Raises:
            UserError: That row can't be read.
        """
        return next(self.parts()).features.shape[1]

    def parts(self, start: int = 0) -> Iterator[TablePart]:
        """The parts from number `start` on, in the order of the rows.

        Raises:
            UserError: A page is damaged; a row is empty or null; a value is null or not finite; widths differ.
        """
        first_row = 0
        for group, num_parts in enumerate(self._parts_of_groups):
            if start < num_parts:
                try:
                    for index, rows in enumerate(self._rows_of_group(group)):
                        if index >= start:
                            yield self._part(rows, first_row + index * self._rows_a_part)
                except (self._arrow.ArrowException, OSError, UnicodeDecodeError) as error:
                    raise UserError(
                        self.path, f"row group {group} can't be read ({_line(error)})", "copy the file again"
                    ) from error
            start = max(0, start - num_parts)
            first_row += self._rows_of_groups[group]

    def texts(self, name: str) -> list[str]:
        """The different values of a column that isn't the features', as texts.

        Raises:
            UserError: A page is damaged.
        """
        try:
            found = self._file.read(columns=[name]).column(0).unique()
        except (self._arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(self.path, f"column '{name}' can't be read ({_line(error)})", "copy it again") from error
        return [str(value) for value in found.to_pylist() if value is not None]

    def _rows_of_group(self, group: int) -> Iterator[pa.Table]:
        """The row group in tables of `_rows_a_part` rows, the last one shorter."""
        gathered: list[pa.RecordBatch] = []
        missing = self._rows_a_part
        for batch in self._file.iter_batches(missing, row_groups=[group], columns=[self.column, *self.keep]):
            while batch.num_rows:
                gathered.append(batch.slice(0, missing))
                batch = batch.slice(missing)
                missing -= gathered[-1].num_rows
                if not missing:
                    yield self._arrow.Table.from_batches(gathered)
                    gathered, missing = [], self._rows_a_part
        if gathered:
            yield self._arrow.Table.from_batches(gathered)

    def _part(self, rows: pa.Table, first_row: int) -> TablePart:
        def row_of(index: int) -> int:
            """The row of feature number `index`."""
            return first_row + (index if counts is None else int(np.searchsorted(np.cumsum(counts), index, "right")))

        counts = None
        features = _joined(rows.column(self.column))
        if self.holds_videos:
            counts = self._lengths(features, lambda index: first_row + index)
            features = features.flatten()
        widths = self._lengths(features, row_of)
        if (other := np.flatnonzero(widths != widths[0])).size:
            raise UserError(
                self.path,
                f"row {row_of(int(other[0]))} of '{self.column}' is {widths[other[0]]} wide, others are {widths[0]}",
                "an anonymizer takes one width: split the table",
            )
        values = features.flatten()
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, widths[0])
        if (bad := np.flatnonzero(~np.isfinite(numbers).all(axis=1))).size:  # a null is read as NaN
            raise UserError(
                self.path, f"row {row_of(int(bad[0]))} of '{self.column}' holds values that are not finite", "drop it"
            )
        return TablePart(numbers, counts, {name: _joined(rows.column(name)) for name in self.keep})

    def _lengths(self, lists: pa.Array, row_of: Any) -> np.ndarray:
        import pyarrow.compute

        counted = pyarrow.compute.list_value_length(lists)  # pyright: ignore[reportAttributeAccessIssue]
        lengths = counted.fill_null(0).to_numpy()
        if (empty := np.flatnonzero(lengths == 0)).size:
            raise UserError(self.path, f"row {row_of(int(empty[0]))} of '{self.column}' is null or empty", "drop it")
        return lengths

    def _features_column(self, wanted: str | None) -> str:
        found = [field.name for field in self.schema if _holds_features(field.type)]
        if wanted is not None:
            if wanted not in self.schema.names:
                raise UserError(self.path, f"has no column '{wanted}'", nearest(wanted, self.schema.names))
            if wanted not in found:
                kind = self.schema.field(wanted).type
                raise UserError(
                    self.path, f"column '{wanted}' holds {kind}", "features are lists of floats, or of such"
                )
            return wanted
        if len(found) == 1:
            return found[0]
        problem = f"several columns could be the features: {', '.join(found)}" if found else "no column holds features"
        raise UserError(self.path, problem, "name it with --column; features are lists of floats, or of such")

    def _require_plain(self, name: str) -> None:
        types = self._arrow.types
        if name not in self.schema.names:
            raise UserError(self.path, f"has no column '{name}' to keep", nearest(name, self.schema.names))
        kind = self.schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if name == self.column or types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
            raise UserError(
                self.path, f"column '{name}' holds {kind}: it may be raw features", "keep numbers, text and times only"
            )


def import_pyarrow(culprit: object) -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet.

    Raises:
        UserError: They are not installed.
    """
    wanted = {"extra": "parquet", "why": "Parquet is read and written with it", "culprit": culprit}
    return extras.require("pyarrow", **wanted), extras.require("pyarrow.parquet", **wanted)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes or by its name."""
    if path.is_file():
        with path.open("rb") as file:
            return file.read(4) == b"PAR1" or path.suffix in (".parquet", ".pq")
    return not path.is_dir() and path.suffix in (".parquet", ".pq")


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _holds_features(kind: pa.DataType) -> bool:
    from pyarrow import types

    if not _is_list(kind):
        return False
    inner = kind.value_type
    return types.is_floating(inner.value_type if _is_list(inner) else inner)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow

    joined = column.combine_chunks()
    if isinstance(joined, pyarrow.ChunkedArray):  # of one chunk or none, in some versions
        joined = joined.chunk(0) if joined.num_chunks == 1 else pyarrow.concat_arrays(joined.chunks)
    return joined


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
