"""A block of rows in Arrow's columns; what Parquet (and whatever reads into Arrow) hands out."""

from __future__ import annotations

import json
from typing import Any, Optional

from tidemill_runtime.codec.records import Bad


class ArrowRecords:
    """A pyarrow.RecordBatch as `Records`. begin: the first row's number within the split. columns: those that the model
    gets, None for all.
    """

    of_files = False
    item_rows: Optional[list[int]] = None

    def __init__(self, index: int, begin: int, batch: Any, columns: Optional[list[str]] = None) -> None:
        self.object = index
        self.begin = begin
        self.end = begin + batch.num_rows
        self.rows = self.size = batch.num_rows
        self.bad: dict[int, Bad] = {}
        self._batch = batch
        self._columns = columns

    def items(self, first: int, stop: int) -> Any:
        """A slice of the batch; `shapes.convert` knows it."""
        rows = self._batch.slice(first, stop - first)
        return rows if self._columns is None else rows.select(self._columns)

    def fresh(self, first: int, stop: int) -> Any:
        return self.items(first, stop)

    def fields(self, first: int, stop: int) -> list[Any]:
        return list(self._batch.slice(first, stop - first).to_pylist())

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        held = set(self._batch.schema.names)
        rows = self._batch.slice(first, stop - first)
        return [rows.column(name).to_pylist() if name in held else [None] * (stop - first) for name in names]

    def raw(self, row: int) -> bytes:
        return json.dumps(self.fields(row, row + 1)[0], default=str, ensure_ascii=False).encode()

    def cursor(self, row: int) -> tuple[int, int]:
        return self.object, self.begin + row
