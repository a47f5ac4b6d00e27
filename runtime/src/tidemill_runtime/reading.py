"""Which reader reads a format. Used by the worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from tidemill_runtime.faults import FatalError

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Reader
    from tidemill_runtime.contract import InputFormat, Lease

Forced = dict[int, dict[int, int]]
"""By object, blocks that have to be cut as they were: begin → end (cursor offsets)."""


def open_reader(
    lease: Lease,
    form: InputFormat,
    scratch: str,
    forced: Forced,
    shape: str,
    carried: Optional[Sequence[str]],
    record: Any = None,
) -> Reader:
    """What is left of the lease, as blocks of records. Each format's libraries are imported only here.

    shape: what the model takes (`models.shapes`): where that is columnar, records are read into columns if they can be.
    carried: names of input columns that results need besides what the model gets; None for whole records. record: the
    type that the model wants records of, if it says one.
    """
    if form.type == "jsonl":
        from tidemill_runtime.codec.jsonl import jsonl_reader

        return jsonl_reader(lease, form, forced, shape, carried, record)
    if form.type == "text":
        from tidemill_runtime.codec.text import text_reader

        return text_reader(lease, form, forced)
    if form.type == "file":
        from tidemill_runtime.codec.files import FileReader

        return FileReader(lease, form, scratch, forced, shape)
    if form.type == "csv":
        from tidemill_runtime.codec.csv_rows import CsvReader

        return CsvReader(lease, form, forced, shape, carried)
    if form.type == "parquet":
        from tidemill_runtime.codec.parquet import ParquetReader

        return ParquetReader(lease, form, forced, carried)
    raise FatalError("format_mismatch", f"input.type {form.type!r} cannot be read by this runtime")
