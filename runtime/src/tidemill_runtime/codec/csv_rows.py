"""CSV and TSV: a record is a row, handed over as a dict by the header's names. Used by the worker.

The header and the columns' types come from the object's beginning, whatever range of it is read, so that every range
gives the same values. A value that does not fit its column's type stays text: the model decides.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from tidemill_runtime.codec.lines import LineBlocks, LongLine, RawBlock
from tidemill_runtime.codec.records import Bad, columns_of
from tidemill_runtime.codec.text import split_lines, too_long
from tidemill_runtime.faults import FatalError
from tidemill_runtime.source import Source, open_source

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, InputObject, Lease

SAMPLE_BYTES = 64 * 1024
"""How much of an object's beginning decides on the types of its columns."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")  # "007" and telephone numbers are text
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")

Row = Union[list[str], Bad]


class Table(NamedTuple):
    """What an object's beginning says. body: where its first row begins, in bytes. numbers: the parser of each column
    or None.
    """

    names: list[str]
    numbers: list[Optional[Callable[[str], Any]]]
    body: int


class CsvReader:
    """The rows of a lease's objects."""

    def __init__(self, lease: Lease, form: InputFormat, forced: dict[int, dict[int, int]]) -> None:
        self._lease = lease
        self._forced = forced
        self._source: Optional[Source] = None
        self.form = form
        csv.field_size_limit(form.max_record_bytes)
        if not _ends_lines_in_one_byte(form.encoding):
            raise FatalError(
                "format_mismatch",
                f"CSV in {form.encoding} cannot be cut into lines; convert it to UTF-8",
                form.encoding,
            )

    def blocks(self) -> Iterator[CsvRecords]:
        lease = self._lease
        for index in range(lease.cursor.object, len(lease.objects)):
            if lease.objects[index].size:
                yield from self._object(index, lease.cursor.offset if index == lease.cursor.object else 0)

    def check(self) -> None:
        if self._source is not None:
            self._source.check()

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _object(self, index: int, offset: int) -> Iterator[CsvRecords]:
        lease, listed = self._lease, self._lease.objects[index]
        table = self._table(listed)
        base = max(0, lease.start) if lease.stop >= 0 else 0
        stop = lease.stop if 0 <= lease.stop < listed.size else None
        position = base + offset
        partial = position > table.body and offset == 0
        position = max(position - 1 if partial else position, table.body)
        self._source = open_source(listed, position, self.form.compression)
        whole = base == 0 and stop is None
        lines = LineBlocks(
            self._source,
            position=position,
            stop=stop,
            partial=partial,
            longest=self.form.max_record_bytes,
            forced={base + begin: base + end for begin, end in self._forced.get(index, {}).items()},
            quote=self.form.quote.encode() if whole and self.form.quote else None,
        )
        for block in lines:
            yield CsvRecords(self, table, index, base, block)
        self.check()
        self.close()

    def _table(self, listed: InputObject) -> Table:
        source = open_source(listed, 0, self.form.compression)
        quote = self.form.quote.encode() if self.form.quote else None
        lines = LineBlocks(
            source, position=0, longest=self.form.max_record_bytes, block_bytes=SAMPLE_BYTES, quote=quote
        )
        try:
            block = next(iter(lines), None)
            if block is None:
                return Table([], [], 0)
            if isinstance(block, LongLine):
                raise FatalError("format_mismatch", f"the first line of {listed.name} is too long to be a CSV header")
            return self._sampled(listed, block)
        finally:
            source.close()

    def _sampled(self, listed: InputObject, block: RawBlock) -> Table:
        lines = split_lines(block.data)
        rows = [(row, last) for row, _, last in self.parse(lines) if isinstance(row, list) and row]
        if not rows:
            return Table([], [], block.begin)
        if not self.form.header:
            names = [str(number) for number in range(len(rows[0][0]))]
            return Table(names, _numbers([row for row, _ in rows], len(names)), block.begin)
        names, last = rows[0]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FatalError(
                "format_mismatch",
                f"the header of {listed.name} names {', '.join(map(repr, twice))} more than once; "
                "if the file has no header, set format.header to false",
                evidence=str(names)[:1000],
            )
        missing = [name for name in self.form.columns or () if name not in names]
        if missing:
            raise FatalError("format_mismatch", f"{listed.name} has no column {', '.join(missing)}", str(names)[:1000])
        body = block.begin + sum(map(len, lines[:last]))
        return Table(names, _numbers([row for row, _ in rows[1:]], len(names)), body)

    def parse(self, lines: list[bytes]) -> Iterator[tuple[Row, int, int]]:
        """(fields or why there are none, first line, line after the last) of each row; no fields for a blank line."""
        text = [line.decode(self.form.encoding, "surrogateescape") for line in lines]
        at = 0
        while at < len(text):
            rows = csv.reader(
                text[at:],
                delimiter=self.form.delimiter,
                quotechar=self.form.quote or None,
                quoting=csv.QUOTE_MINIMAL if self.form.quote else csv.QUOTE_NONE,
            )
            start = at
            try:
                for fields in rows:
                    last = start + rows.line_num
                    yield fields, at, last
                    at = last
            except csv.Error as error:
                last = max(at + 1, start + rows.line_num)
                yield Bad("decode_error", "Error", str(error)), at, last
                at = last


class CsvRecords:
    """A block of rows; see `Records`."""

    of_files = False

    def __init__(
        self, reader: CsvReader, table: Table, index: int, base: int, block: Union[RawBlock, LongLine]
    ) -> None:
        self.object = index
        self.begin = block.begin - base
        self.end = block.end - base
        self.bad: dict[int, Bad] = {}
        self.item_rows: Optional[list[int]] = []
        self._table = table
        self._columns = None if reader.form.columns is None else set(reader.form.columns)
        self._values: list[list[str]] = []
        self._last_lines: list[int] = []
        if isinstance(block, LongLine):
            self._lines = [block.head]
            self._last_lines = [1]
            self.bad[0] = too_long(block.end - block.begin, reader.form.max_record_bytes, block.head)
        else:
            self._lines = split_lines(block.data)
            self._read(reader)
        self.rows = len(self._last_lines)
        self.size = len(self._values)
        if self.size == self.rows:
            self.item_rows = None
        self._items = self.fresh(0, self.size)

    def items(self, first: int, stop: int) -> list[Any]:
        return self._items[first:stop]

    def fresh(self, first: int, stop: int) -> list[Any]:
        return self._dicts(first, stop, self._columns)

    def _dicts(self, first: int, stop: int, chosen: Optional[set[str]]) -> list[Any]:
        columns = [
            (place, name, number)
            for place, (name, number) in enumerate(zip(self._table.names, self._table.numbers))
            if chosen is None or name in chosen
        ]
        return [
            {
                name: values[place] if number is None else _number(values[place], number)
                for place, name, number in columns
            }
            for values in self._values[first:stop]
        ]

    def fields(self, first: int, stop: int) -> list[Any]:
        return self._dicts(first, stop, None)

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        return columns_of(self._dicts(first, stop, set(names)), names)

    def raw(self, row: int) -> bytes:
        first = self._last_lines[row - 1] if row else 0
        return b"".join(self._lines[first : self._last_lines[row]]).rstrip(b"\r\n")

    def cursor(self, row: int) -> tuple[int, int]:
        if row == self.rows:
            return self.object, self.end
        first = self._last_lines[row - 1] if row else 0
        return self.object, self.begin + sum(map(len, self._lines[:first]))

    def _read(self, reader: CsvReader) -> None:
        assert self.item_rows is not None
        width, most = len(self._table.names), reader.form.max_record_bytes
        for row, (fields, first, last) in enumerate(reader.parse(self._lines)):
            self._last_lines.append(last)
            size = sum(map(len, self._lines[first:last])) if last - first > 1 else len(self._lines[first])
            if size > most + 2:
                self.bad[row] = too_long(size, most, None)
            elif isinstance(fields, Bad):
                self.bad[row] = fields
            elif not fields or (width > 1 and len(fields) == 1 and not fields[0].strip()):
                continue
            elif len(fields) != width:
                self.bad[row] = Bad(
                    "decode_error", "WrongWidth", f"the row has {len(fields)} fields, the header {width}"
                )
            elif any(map(_undecodable, fields)):
                self.bad[row] = Bad("decode_error", "UnicodeDecodeError", f"the row is not {reader.form.encoding}")
            else:
                self._values.append(fields)
                self.item_rows.append(row)


def _ends_lines_in_one_byte(encoding: str) -> bool:
    try:
        return b'a"\n'.decode(encoding) == 'a"\n'
    except (UnicodeDecodeError, LookupError):
        return False


def _undecodable(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= each <= "\udcff" for each in text)


def _numbers(rows: list[list[str]], width: int) -> list[Optional[Callable[[str], Any]]]:
    """The parser of each column: int or float where every value of the sample is one (or empty), None for text."""
    columns = [[row[place] for row in rows if len(row) == width and row[place]] for place in range(width)]
    return [_parser(values) for values in columns]


def _parser(values: list[str]) -> Optional[Callable[[str], Any]]:
    if not values:
        return None
    if all(map(_INTEGER.match, values)):
        return int
    if all(map(_FLOAT.match, values)) and not any(
        len(value) > 1 and value[0] == "0" and value.isdigit() for value in values
    ):
        return float
    return None


def _number(value: str, number: Callable[[str], Any]) -> Any:
    """The value as its column's type, None if it is empty; as it is if it is something else."""
    try:
        return number(value)
    except ValueError:
        return value or None
