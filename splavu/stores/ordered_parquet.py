"""A Parquet table written part by part and assembled at the end, since its footer comes last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splavu.errors import UserError
from splavu.runtime.files import replacing
from splavu.stores.ordered import OrderedWriter
from splavu.stores.parquet import CONTENT_KEY, METADATA_KEY, FeatureTable, TablePart, import_pyarrow
from splavu.stores.provenance import parsed_attributes, refuse_conflict

if TYPE_CHECKING:
    import pyarrow as pa

PARTS_A_GROUP = 4
"""Parts per row group of the finished table."""


class TableInOrder(OrderedWriter[TablePart]):
    """An `OrderedWriter` of the parts of a `FeatureTable` with other features.

    Lists stay lists of the same kind, of float32; pages get checksums.

    Args:
        source: The table whose parts are written, in its order.
        order: [rows] the rows of the source in the order of the finished table; None keeps theirs.
        texts: Kept columns that come as texts, whatever they are in the source.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: FeatureTable,
        order: np.ndarray | None = None,
        texts: Collection[str] = (),
        attributes: Mapping[str, str | int | float],
        origin: str,
    ) -> None:
        super().__init__(path, num_items=source.num_parts, attributes=attributes, origin=origin)
        self._source, self._order, self._texts = source, order, texts
        self._arrow, self._parquet = import_pyarrow(path)
        names = [name for name in source.schema.names if name == source.column or name in source.keep]
        self._fields = [self._arrow.field(name, self._kind(name)) for name in names]

    def _check_finished(self) -> bool:
        try:
            found = self._parquet.read_metadata(self.path)
        except (self._arrow.ArrowException, OSError) as error:
            raise UserError(self.path, "is not a complete Parquet file", "write elsewhere, or move it away") from error
        attributes = parsed_attributes(self.path, (found.metadata or {}).get(METADATA_KEY, b"{}"))
        refuse_conflict(self.path, attributes, self.attributes)
        names = [field.name for field in self._fields]
        has_items = found.schema.to_arrow_schema().names == names and found.num_rows == self._source.num_rows
        return has_items and self._is_made_from_origin(attributes)

    def _put(self, index: int, item: TablePart) -> tuple[int, bytes]:
        columns = {**item.kept, self._source.column: self._lists(item)}
        rows = self._arrow.table([columns[field.name] for field in self._fields], schema=self._schema())
        sink = self._arrow.BufferOutputStream()
        with self._arrow.ipc.new_file(sink, rows.schema) as file:
            file.write_table(rows)
        content = sink.getvalue()
        self._place(index).write_bytes(content)
        return len(content), hashlib.sha256(content).digest()

    def _complete(self) -> None:
        content = hashlib.sha256()
        column = self._source.column
        others = [field.name for field in self._fields if field.name != column]
        options = {"use_dictionary": others, "write_statistics": others, "write_page_checksum": True}
        whole = self._journal.path / "table.parquet"
        with replacing(whole) as temporary, self._parquet.ParquetWriter(temporary, self._schema(), **options) as table:
            for rows in self._groups() if self._order is None else self._groups_in_order(self._order):
                for chunk in rows.column(column).chunks:
                    content.update(_values(chunk))
                table.write_table(rows, row_group_size=rows.num_rows)
            table.add_key_value_metadata({CONTENT_KEY: content.hexdigest()})
        whole.replace(self.path)

    def _groups(self) -> Iterator[pa.Table]:
        """The row groups of the finished table."""
        for first in range(0, self.num_items, PARTS_A_GROUP):
            some = range(first, min(first + PARTS_A_GROUP, self.num_items))
            yield self._arrow.concat_tables([self._read(index) for index in some])

    def _groups_in_order(self, order: np.ndarray) -> Iterator[pa.Table]:  # [rows]
        """The row groups where rows are permuted: each takes its rows out of all parts."""
        parts = [self._read(index) for index in range(self.num_items)]  # mapped, not read
        starts = np.cumsum([0, *(part.num_rows for part in parts)])
        size = -(-len(order) * PARTS_A_GROUP // self.num_items)
        for first in range(0, len(order), size):
            wanted = order[first : first + size]
            sorting = np.argsort(wanted)
            edges = np.searchsorted(wanted[sorting], starts)
            some = [
                part.take(wanted[sorting[low:high]] - start)
                for part, start, low, high in zip(parts, starts, edges[:-1], edges[1:], strict=False)
                if high > low
            ]
            yield self._arrow.concat_tables(some).combine_chunks().take(np.argsort(sorting))

    def _place(self, index: int) -> Path:
        return self._journal.path / f"part-{index:06d}.arrow"

    def _read(self, index: int) -> pa.Table:
        with self._arrow.memory_map(str(self._place(index))) as file:
            return self._arrow.ipc.open_file(file).read_all()

    def _schema(self) -> pa.Schema:
        return self._arrow.schema(self._fields, {METADATA_KEY: json.dumps(self.attributes, sort_keys=True)})

    def _kind(self, name: str) -> pa.DataType:
        kind = self._arrow.string() if name in self._texts else self._source.schema.field(name).type
        return _of_floats(kind, self._arrow) if name == self._source.column else kind

    def _lists(self, item: TablePart) -> pa.Array:
        """The features in the source's layout: lists of floats, or lists of such lists."""
        kind = self._arrow.field("", self._kind(self._source.column)).type
        values = self._arrow.array(item.features.reshape(-1), self._arrow.float32())
        if item.counts is None:
            return self._nested(kind, values, np.full(len(item.features), item.features.shape[1]))
        inner = self._nested(kind.value_type, values, np.full(len(item.features), item.features.shape[1]))
        return self._nested(kind, inner, item.counts)

    def _nested(self, kind: pa.DataType, values: pa.Array, lengths: np.ndarray) -> pa.Array:
        if self._arrow.types.is_fixed_size_list(kind):
            return self._arrow.FixedSizeListArray.from_arrays(values, type=kind)
        is_large = self._arrow.types.is_large_list(kind)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64 if is_large else np.int32)
        array = self._arrow.LargeListArray if is_large else self._arrow.ListArray
        return array.from_arrays(self._arrow.array(offsets), values, type=kind)


def _of_floats(kind: pa.DataType, arrow: Any) -> pa.DataType:
    """The same nested list type with float32 values."""
    types = arrow.types
    if types.is_floating(kind):
        return arrow.float32()
    inner = _of_floats(kind.value_type, arrow)
    if types.is_fixed_size_list(kind):
        return arrow.list_(inner, kind.list_size)
    return arrow.large_list(inner) if types.is_large_list(kind) else arrow.list_(inner)


def _values(lists: pa.Array) -> np.ndarray:
    values = lists.flatten()
    while hasattr(values, "flatten") and values.type.num_fields:
        values = values.flatten()
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False), dtype="<f4")
