"""CSV and TSV: a record is a row, handed over as a dict by the header's names. Used by the worker.

A value that does not fit its column's type stays text: the model decides. Where the input is large, or the model wants
columns, blocks are parsed into frames (`csv_frames`), with the same values.

A row may have several lines, inside quotes, and only the parser knows. A block whose last row goes on is handed out
without it. A range that ends inside of a row is a fatal fault: then the next range began in the middle of one.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from tidemill_runtime.codec.columnar import frames_for
from tidemill_runtime.codec.csv_table import Row, Table, rows_of, table_of
from tidemill_runtime.codec.lines import BLOCK_BYTES, LineBlocks, LongLine, RawBlock
from tidemill_runtime.codec.records import COLUMNAR, Bad, columns_of
from tidemill_runtime.codec.text import split_lines, too_long
from tidemill_runtime.faults import FatalError
from tidemill_runtime.source import Source, open_source

if TYPE_CHECKING:
    from tidemill_runtime.codec.frames import Layout
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import InputFormat, InputObject, Lease

_FRAMES_FROM_BYTES = 4 * 1024 * 1024
"""From an object of this size on dicts are made of frames, too: that is thrice as fast, but polars takes 0.2 s."""

Parsed = list[tuple[Row, int, int]]


class CsvReader:
    """The rows of a lease's objects. shape: the model's. carried: columns that results need; None for all."""

    def __init__(
        self,
        lease: Lease,
        form: InputFormat,
        forced: dict[int, dict[int, int]],
        shape: str = "record",
        carried: Optional[Sequence[str]] = None,
    ) -> None:
        self._lease = lease
        self._forced = forced
        self._shape = shape
        self._carried = None if carried is None else list(carried)
        self._source: Optional[Source] = None
        self.form = form
        csv.field_size_limit(form.max_record_bytes)
        if not _ends_lines_in_one_byte(form.encoding):
            raise FatalError(
                "format_mismatch",
                f"CSV in {form.encoding} cannot be cut into lines; convert it to UTF-8",
                form.encoding,
            )

    def blocks(self) -> Iterator[Records]:
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

    def _object(self, index: int, offset: int) -> Iterator[Records]:
        lease, listed = self._lease, self._lease.objects[index]
        table = table_of(listed, self.form)
        frames = self._frames(listed) if table.names else None
        layout = self._layout(table, frames)
        base = max(0, lease.start) if lease.stop >= 0 else 0
        stop = lease.stop if 0 <= lease.stop < listed.size else None
        position = base + offset
        partial = position > table.body and offset == 0
        position = max(position - 1 if partial else position, table.body)
        self._source = open_source(listed, position, self.form.compression)
        lines = LineBlocks(
            self._source,
            position=position,
            stop=stop,
            partial=partial,
            longest=self.form.max_record_bytes,
            forced={base + begin: base + end for begin, end in self._forced.get(index, {}).items()},
            block_bytes=min(frames.FRAME_BYTES if frames and layout else BLOCK_BYTES, self.form.max_record_bytes),
        )
        for block in lines:
            records: Optional[Records] = None
            if isinstance(block, LongLine):
                records = CsvRecords(self, table, index, base, block, [], [], layout)
            else:
                if frames is not None and layout is not None:
                    records = self._framed(index, base, block, table, layout, frames)
                if records is None:
                    records = self._by_rows(index, base, block, table, layout, lines, stop)
            if records is not None:
                yield records
        self.check()
        self.close()

    def _frames(self, listed: InputObject) -> Optional[ModuleType]:
        """`codec.csv_frames` where blocks are to be parsed into frames."""
        if self.form.encoding.lower() not in ("utf-8", "utf8"):
            return None
        if self._shape not in COLUMNAR and listed.size < _FRAMES_FROM_BYTES and "polars" not in sys.modules:
            return None
        if frames_for("polars") is None:
            return None
        from tidemill_runtime.codec import csv_frames  # polars takes 0.2 s, and most inputs need none

        return csv_frames if csv_frames.usable() else None

    def _layout(self, table: Table, frames: Optional[ModuleType]) -> Optional[Layout]:
        if frames is None:
            return None
        layout: Layout = frames.layout_of(table, self.form, self._carried)
        if not layout.model or (self._shape == "numpy" and any(layout.types[name] == "text" for name in layout.model)):
            return None  # a matrix is of numbers
        return layout

    def _framed(
        self, index: int, base: int, block: RawBlock, table: Table, layout: Layout, frames: ModuleType
    ) -> Optional[Records]:
        if len(block.data) > self.form.max_record_bytes:
            return None  # a row may be too long
        data = bytes(block.data)
        frame = frames.parsed(data, table, layout, self.form)
        if frame is None:
            return None
        from tidemill_runtime.codec.frames import FrameRecords  # see `_frames`

        begin, end = block.begin - base, block.end - base
        return FrameRecords(index, begin, end, data, frame, layout.model, lambda line: _record(line, table, self.form))

    def _by_rows(
        self,
        index: int,
        base: int,
        block: RawBlock,
        table: Table,
        layout: Optional[Layout],
        lines: LineBlocks,
        stop: Optional[int],
    ) -> Optional[Records]:
        """None if the block's only row goes on after it."""
        data = split_lines(block.data)
        rows = list(rows_of(data, self.form))
        if rows and rows[-1][2] > len(data) and not lines.at_end:
            first = rows[-1][1]
            begin = block.begin + sum(map(len, data[:first]))
            if stop is not None and block.end >= stop:
                raise self._cut_inside(index, begin, data[first])
            lines.give_back(begin)
            rows.pop()
            if not rows:
                return None
            data = data[:first]
            block = RawBlock(block.data[: begin - block.begin], block.begin, begin)
        columnar = layout if self._shape in COLUMNAR else None
        return CsvRecords(self, table, index, base, block, rows, data, columnar)

    def _cut_inside(self, index: int, begin: int, line: bytes) -> FatalError:
        name = self._lease.objects[index].name
        return FatalError(
            "format_mismatch",
            f"{name} has a row of several lines at byte {begin}, where it was cut for several processes to share it; "
            "set format.split to whole",
            evidence=f"{name}, byte {begin}: {line[:200].decode(self.form.encoding, 'replace').rstrip()}",
        )


class CsvRecords:
    """A block of rows; see `Records`. lines: the block's. layout: of the frames that other blocks of the object become,
    where the model wants columns.
    """

    of_files = False

    def __init__(
        self,
        reader: CsvReader,
        table: Table,
        index: int,
        base: int,
        block: Union[RawBlock, LongLine],
        rows: Parsed,
        lines: list[bytes],
        layout: Optional[Layout],
    ) -> None:
        self.object = index
        self.begin = block.begin - base
        self.end = block.end - base
        self.bad: dict[int, Bad] = {}
        self.item_rows: Optional[list[int]] = []
        self._table = table
        self._layout = layout
        self._columns = reader.form.columns or table.names
        self._values: list[list[str]] = []
        self._last_lines: list[int] = []
        self._lines = lines
        if isinstance(block, LongLine):
            self._lines, self._last_lines = [block.head], [1]
            self.bad[0] = _too_long(block, reader.form.max_record_bytes)
        else:
            self._read(reader.form, rows)
        self.rows = len(self._last_lines)
        self.size = len(self._values)
        if self.size == self.rows:
            self.item_rows = None
        self._items = self._dicts(0, self.size, self._columns)

    def items(self, first: int, stop: int) -> Any:
        return self._shaped(self._items[first:stop])

    def fresh(self, first: int, stop: int) -> Any:
        return self._shaped(self._dicts(first, stop, self._columns))

    def _shaped(self, items: list[Any]) -> Any:
        if self._layout is None:
            return items
        from tidemill_runtime.codec.frames import framed  # there is a layout, so polars is there too

        return framed(items, self._layout)

    def _dicts(self, first: int, stop: int, chosen: Sequence[str]) -> list[Any]:
        table, rows = self._table, self._values[first:stop]
        places = [(table.names.index(name), name) for name in chosen if name in table.names]
        columns = [_column([row[place] for row in rows], table.numbers[place]) for place, _ in places]
        names = [name for _, name in places]
        return [dict(zip(names, values)) for values in zip(*columns)] if columns else [{} for _ in rows]

    def fields(self, first: int, stop: int) -> list[Any]:
        return self._dicts(first, stop, self._table.names)

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        return columns_of(self._dicts(first, stop, names), names)

    def raw(self, row: int) -> bytes:
        first = self._last_lines[row - 1] if row else 0
        return b"".join(self._lines[first : self._last_lines[row]]).rstrip(b"\r\n")

    def cursor(self, row: int) -> tuple[int, int]:
        if row == self.rows:
            return self.object, self.end
        first = self._last_lines[row - 1] if row else 0
        return self.object, self.begin + sum(map(len, self._lines[:first]))

    def _read(self, form: InputFormat, rows: Parsed) -> None:
        assert self.item_rows is not None
        width, most = len(self._table.names), form.max_record_bytes
        readable = _is_text(self._lines, form.encoding)
        for row, (fields, first, last) in enumerate(rows):
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
            elif not readable and any(map(_undecodable, fields)):
                self.bad[row] = Bad("decode_error", "UnicodeDecodeError", f"the row is not {form.encoding}")
            else:
                self._values.append(fields)
                self.item_rows.append(row)


def _too_long(block: LongLine, most: int) -> Bad:
    if block.unclosed:
        return Bad("too_long", "RecordTooLong", f"a quote is not closed within max_record_bytes ({most})", block.head)
    return too_long(block.end - block.begin, most, block.head)


def _record(line: bytes, table: Table, form: InputFormat) -> dict[str, Any]:
    """The whole record of a line that is known to be a good row."""
    fields = next(rows_of([line], form))[0]
    assert not isinstance(fields, Bad)
    return {
        name: value if number is None else _number(value, number)
        for name, number, value in zip(table.names, table.numbers, fields)
    }


def _ends_lines_in_one_byte(encoding: str) -> bool:
    try:
        return b'a"\n'.decode(encoding) == 'a"\n'
    except (UnicodeDecodeError, LookupError):
        return False


def _is_text(lines: list[bytes], encoding: str) -> bool:
    try:
        for line in lines:
            line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _undecodable(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= each <= "\udcff" for each in text)


def _column(texts: list[str], number: Optional[Callable[[str], Any]]) -> list[Any]:
    if number is None:
        return texts
    try:
        return list(map(number, texts))
    except ValueError:
        return [_number(text, number) for text in texts]


def _number(value: str, number: Callable[[str], Any]) -> Any:
    """The value as its column's type, None if it is empty; as it is if it is something else."""
    try:
        return number(value)
    except ValueError:
        return value or None
