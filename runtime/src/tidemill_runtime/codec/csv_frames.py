"""Blocks of CSV as columns: several times quicker than row by row, and never with other values. Used by `csv_rows`.

A block becomes a frame only if each line is surely a row and each value what `csv_table` makes of it: no quotes, as
many delimiters as there have to be, and nothing that is not of its column's type. Every other block is read by rows.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Optional

import polars

from tidemill_runtime.codec.frames import FRAME_BYTES, Layout, count_of
from tidemill_runtime.faults import log

if TYPE_CHECKING:
    from tidemill_runtime.codec.csv_table import Table
    from tidemill_runtime.contract import InputFormat

__all__ = ["FRAME_BYTES", "layout_of", "parsed", "usable"]

_PARSED = {"int": polars.Int64, "float": polars.Float64, "text": polars.String}


def layout_of(table: Table, form: InputFormat, carried: Optional[list[str]]) -> Layout:
    """The columns that are parsed: the model's, and those that results need; carried: None for all."""
    model = form.columns or table.names
    wanted = set(table.names) if carried is None else {*model, *carried}
    types = {
        name: "int" if number is int else "float" if number is float else "text"
        for name, number in zip(table.names, table.numbers)
        if name in wanted
    }
    return Layout(types, model, whole=False, carried=carried or ())


def parsed(data: bytes, table: Table, layout: Layout, form: InputFormat) -> Optional[polars.DataFrame]:
    """The frame of a block of whole lines, with the layout's columns; None if it is not sure to be the same as rows."""
    width = len(table.names)
    quote, delimiter = form.quote.encode(), form.delimiter.encode()
    if (quote and quote in data) or b"\0" in data:
        return None
    if b"\r" in data and count_of(data, b"\r") != count_of(data, b"\r\n"):
        return None
    lines = count_of(data, b"\n") + (not data.endswith(b"\n"))
    if count_of(data, delimiter) != lines * (width - 1):
        return None
    try:
        frame = polars.read_csv(
            data,
            has_header=False,
            separator=form.delimiter,
            quote_char=None,
            schema={name: _PARSED[layout.types.get(name, "text")] for name in table.names},
            columns=[place for place, name in enumerate(table.names) if name in layout.types],
        )
    except (polars.exceptions.PolarsError, ValueError):
        return None  # a value that is not of its type, bytes that are not UTF-8, too many fields
    if frame.height != lines:
        return None
    if width == 1 and frame.null_count().row(0) != (0,):
        return None  # blank lines, which are no rows
    texts = [name for name in frame.columns if layout.types[name] == "text"]
    return frame.with_columns(polars.col(texts).fill_null("")) if texts else frame


@functools.lru_cache(maxsize=1)
def usable() -> bool:
    """Whether this release of polars reads values as Python does, as the one that this was made with."""
    from tidemill_runtime.codec.csv_table import Table  # this module is imported by the one that imports that
    from tidemill_runtime.contract import InputFormat

    form = InputFormat("csv")
    table = Table(["i", "f", "t"], [int, float, None], 0)
    layout = layout_of(table, form, None)
    good = b"1,1,a\n-5,.5,\n,, b \n+7,1e3,\xc3\xa9\r\n007,5.,'x\n"
    rows = [(1, 1.0, "a"), (-5, 0.5, ""), (None, None, " b "), (7, 1000.0, "é"), (7, 5.0, "'x")]
    wrong = [
        b"1.0,1,a",
        b"1e3,1,a",
        b"x,1,a",
        b"9223372036854775808,1,a",
        b"1,x,a",
        b"1,0x1,a",
        b"1,1_0,a",
        b"1,1,\xff",
    ]
    wrong += [b"1,1", b"1,1,a,b", b"", b"   ", b'1,1,"a"', b"1,1,a\rb", b"1,1,a\0"]
    found = parsed(good, table, layout, form)
    refused = all(parsed(good + line + b"\n", table, layout, form) is None for line in wrong)
    if refused and found is not None and found.rows() == rows:
        return True
    log(f"polars {polars.__version__} reads CSV in a way that is not known: rows are read one by one")
    return False
