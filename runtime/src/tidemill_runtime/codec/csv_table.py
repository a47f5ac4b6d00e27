"""What the beginning of a CSV object says of all of it: the header, the columns' types, where the first row begins; and
how lines become rows. Used by `csv_rows` and `csv_frames`.

The same beginning is read whatever range of the object is, so that every range gives the same values.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from tidemill_runtime.codec.lines import LineBlocks, LongLine, RawBlock
from tidemill_runtime.codec.records import Bad
from tidemill_runtime.codec.text import split_lines
from tidemill_runtime.faults import FatalError
from tidemill_runtime.source import open_source

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, InputObject

SAMPLE_BYTES = 64 * 1024
"""How much of an object's beginning decides on the types of its columns."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")  # "007" and telephone numbers are text
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_NO_NUMBER = re.compile(r"nan|[+-]?inf(inity)?", re.IGNORECASE)
_EXACT = 2**53
"""Whole numbers up to it are floats without loss."""
_KEPT_TABLES = 16

Row = Union[list[str], Bad]

_tables: dict[tuple[int, str, str], Table] = {}
"""Those of the last objects: an object that is cut into many ranges is not opened twice for each."""


class Table(NamedTuple):
    """body: where the first row begins, in bytes. numbers: the parser of each column, or None where it is text."""

    names: list[str]
    numbers: list[Optional[Callable[[str], Any]]]
    body: int


def table_of(listed: InputObject, form: InputFormat) -> Table:
    """The table of an object; of one that is not empty. Raises FatalError(format_mismatch)."""
    key = (listed.ordinal, listed.name, listed.etag)
    if key not in _tables:
        if len(_tables) == _KEPT_TABLES:
            _tables.clear()
        _tables[key] = _read(listed, form)
    return _tables[key]


def rows_of(lines: list[bytes], form: InputFormat) -> Iterator[tuple[Row, int, int]]:
    """(fields or why there are none, first line, line after the last) of each row; no fields for a blank line.

    The line after the last is len(lines) + 1 for a row that does not end with the lines: it goes on inside quotes.
    """
    text = [line.decode(form.encoding, "surrogateescape") for line in lines]
    text.append("\n")  # becomes a part of the last row if that is not over
    dialect: dict[str, Any] = {
        "delimiter": form.delimiter,
        "quotechar": form.quote or None,
        "quoting": csv.QUOTE_MINIMAL if form.quote else csv.QUOTE_NONE,
    }
    rows = csv.reader(text, **dialect)
    at = 0
    while at < len(lines):
        try:
            fields: Row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            fields = Bad("decode_error", "Error", str(error))
        if rows.line_num > len(lines) and isinstance(fields, list):
            fields = next(csv.reader(text[at:-1], **dialect))  # without the line that is none of its own
        yield fields, at, rows.line_num
        at = rows.line_num


def _read(listed: InputObject, form: InputFormat) -> Table:
    source = open_source(listed, 0, form.compression)
    lines = LineBlocks(source, position=0, longest=form.max_record_bytes, block_bytes=SAMPLE_BYTES)
    try:
        for block in lines:
            if isinstance(block, LongLine):
                raise FatalError("format_mismatch", f"the first line of {listed.name} is too long to be a CSV header")
            found = split_lines(block.data)
            rows = [(row, last) for row, _, last in rows_of(found, form) if isinstance(row, list) and row]
            if rows and rows[0][1] > len(found) and not lines.at_end:
                lines.give_back(block.begin)  # the header itself has not ended yet
                continue
            return _table(listed, form, block, found, [each for each in rows if each[1] <= len(found)] or rows)
        return Table([], [], 0)
    finally:
        source.close()


def _table(
    listed: InputObject, form: InputFormat, block: RawBlock, lines: list[bytes], rows: list[tuple[list[str], int]]
) -> Table:
    """rows: the sample's, each with the line after its last."""
    if not rows:
        return Table([], [], block.begin)
    if not form.header:
        names = [str(number) for number in range(len(rows[0][0]))]
        return Table(names, _numbers([row for row, _ in rows], len(names)), block.begin)
    names, last = rows[0][0], min(rows[0][1], len(lines))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FatalError(
            "format_mismatch",
            f"the header of {listed.name} names {', '.join(map(repr, twice))} more than once; "
            "if the file has no header, set format.header to false",
            evidence=str(names)[:1000],
        )
    missing = [name for name in form.columns or () if name not in names]
    if missing:
        raise FatalError("format_mismatch", f"{listed.name} has no column {', '.join(missing)}", str(names)[:1000])
    body = block.begin + sum(map(len, lines[:last]))
    return Table(names, _numbers([row for row, _ in rows[1:]], len(names)), body)


def _numbers(rows: list[list[str]], width: int) -> list[Optional[Callable[[str], Any]]]:
    """The parser of each column: int or float where every value of the sample is one (or empty), None for text."""
    columns = [[row[place] for row in rows if len(row) == width and row[place]] for place in range(width)]
    return [_parser(values) for values in columns]


def _parser(values: list[str]) -> Optional[Callable[[str], Any]]:
    """Identifiers of many digits are never floats: those that are no integers of 64 bits are text."""
    numbers = [value for value in values if not _NO_NUMBER.fullmatch(value)]
    if not numbers or not all(map(_FLOAT.match, numbers)):
        return None
    if all(map(_INTEGER.match, numbers)):
        if len(numbers) < len(values):
            return float if all(abs(int(value)) <= _EXACT for value in numbers) else None
        return int if all(-(2**63) <= int(value) < 2**63 for value in values) else None
    if any(len(value) > 1 and value[0] == "0" and value.isdigit() for value in numbers):
        return None
    return float
