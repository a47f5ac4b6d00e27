"""A block of rows in Arrow's columns; what Parquet (and whatever reads into Arrow) hands out."""

from __future__ import annotations

import json
from typing import Any, Optional

from tidemill_runtime.codec.records import Bad


class ArrowRecords:
    """A pyarrow.RecordBatch as `Records`. begin: the first row's number within the split."""

    of_files = False
    item_rows: Optional[list[int]] = None

    def __init__(self, index: int, begin: int, batch: Any) -> None:
        self.object = index
        self.begin = begin
        self.end = begin + batch.num_rows
        self.rows = self.size = batch.num_rows
        self.bad: dict[int, Bad] = {}
        self._batch = batch

    def items(self, first: int, stop: int) -> Any:
        """A slice of the batch; `shapes.convert` knows it."""
        return self._batch.slice(first, stop - first)

    def fresh(self, first: int, stop: int) -> Any:
        return self.items(first, stop)

    def fields(self, first: int, stop: int) -> list[Any]:
        return list(self.items(first, stop).to_pylist())

    def raw(self, row: int) -> bytes:
        return json.dumps(self.fields(row, row + 1)[0], default=str, ensure_ascii=False).encode()

    def cursor(self, row: int) -> tuple[int, int]:
        return self.object, self.begin + row
