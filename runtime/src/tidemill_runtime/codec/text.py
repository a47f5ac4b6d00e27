"""Plain text and JSON lines: a record is a line. Used by the worker; `jsonl` builds on it.

On the happy path a block is decoded in one call and never cut into lines; lines are looked at only where something in
the block is not a plain record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import msgspec

from tidemill_runtime.codec.lines import BLOCK_BYTES, LineBlocks, LongLine, RawBlock
from tidemill_runtime.codec.records import Bad, columns_of
from tidemill_runtime.source import Source, open_source

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import InputFormat, InputObject, Lease

Decode = Callable[[memoryview], Optional[list[Any]]]
"""All items of a block, or None where rows and items do not coincide and the lines have to be looked at."""
DecodeLine = Callable[[bytes], Any]
"""One item; raises one of UNREADABLE."""
UNREADABLE = (ValueError, RecursionError, msgspec.DecodeError)
"""msgspec's own error is a ValueError only in the versions that Python 3.9 does not get."""


class LineReader:
    """The lines of a lease's objects. decode, decode_line: what makes items of them.

    columns: the keys that the model gets of an item that is a dict, None for all. carried: those that results need.
    """

    def __init__(
        self,
        lease: Lease,
        form: InputFormat,
        forced: dict[int, dict[int, int]],
        decode: Decode,
        decode_line: DecodeLine,
        carried: Sequence[str] = (),
    ) -> None:
        self._lease = lease
        self._forced = forced
        self._decode = decode
        self._source: Optional[Source] = None
        self.form = form
        self.carried = carried
        self.decode_line = decode_line

    def blocks(self) -> Iterator[Records]:
        lease = self._lease
        for index in range(lease.cursor.object, len(lease.objects)):
            if lease.objects[index].size:
                yield from self._object(index, lease.cursor.offset if index == lease.cursor.object else 0)

    def block_bytes(self, listed: InputObject) -> int:
        """How much of this object is to be parsed at a time; called before its first block."""
        return BLOCK_BYTES

    def records(self, index: int, base: int, block: Union[RawBlock, LongLine]) -> Records:
        return LineRecords(self, index, base, block)

    def _object(self, index: int, offset: int) -> Iterator[Records]:
        lease, listed = self._lease, self._lease.objects[index]
        block_bytes = self.block_bytes(listed)
        base = max(0, lease.start) if lease.stop >= 0 else 0
        stop = lease.stop if 0 <= lease.stop < listed.size else None
        partial = offset == 0 and base > 0
        position = base + offset - (1 if partial else 0)
        self._source = open_source(listed, position, self.form.compression)
        forced = {base + begin: base + end for begin, end in self._forced.get(index, {}).items()}
        lines = LineBlocks(
            self._source,
            position=position,
            stop=stop,
            partial=partial,
            longest=self.form.max_record_bytes,
            block_bytes=block_bytes,
            forced=forced,
        )
        for block in lines:
            yield self.records(index, base, block)
        self.check()
        self.close()

    def read(self, block: RawBlock) -> Optional[list[Any]]:
        if len(block.data) > self.form.max_record_bytes:
            return None  # a line may be too long
        return self._decode(block.data)

    def read_line(self, line: bytes) -> Union[Any, Bad]:
        if len(line) > self.form.max_record_bytes:
            return too_long(len(line), self.form.max_record_bytes, None)
        try:
            return self.decode_line(line)
        except UNREADABLE as error:
            return Bad("decode_error", type(error).__name__, str(error))

    def check(self) -> None:
        if self._source is not None:
            self._source.check()

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None


class LineRecords:
    """One block of lines; see `Records`."""

    of_files = False

    def __init__(self, reader: LineReader, index: int, base: int, block: Union[RawBlock, LongLine]) -> None:
        self.object = index
        self.begin = block.begin - base
        self.end = block.end - base
        self.item_rows: Optional[list[int]] = None
        self.bad: dict[int, Bad] = {}
        self._reader = reader
        self._block = block
        self._lines: Optional[list[bytes]] = None
        if isinstance(block, LongLine):
            self._lines = [block.head]
            self._items: list[Any] = []
            self.item_rows = []
            self.bad[0] = too_long(block.end - block.begin, reader.form.max_record_bytes, block.head)
        else:
            items = reader.read(block)
            self._items = self._by_line(reader) if items is None else items
        self.size = len(self._items)
        self.rows = self.size if self.item_rows is None else len(self.lines())
        # Before the model sees them: it may do with them what it likes.
        self._carried = dict(zip(reader.carried, columns_of(self._items, list(reader.carried))))
        self._items = _chosen(self._items, reader.form.columns)

    def items(self, first: int, stop: int) -> list[Any]:
        if first == 0 and stop == self.size:
            return self._items
        return self._items[first:stop]

    def fresh(self, first: int, stop: int) -> list[Any]:
        return _chosen(self.fields(first, stop), self._reader.form.columns)

    def fields(self, first: int, stop: int) -> list[Any]:
        rows = range(first, stop) if self.item_rows is None else self.item_rows[first:stop]
        lines = self.lines()
        return [self._reader.read_line(lines[row].rstrip(b"\r\n")) for row in rows]

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        columns = [self._carried[name][first:stop] for name in names]
        if any(isinstance(value, (dict, list)) for column in columns for value in column):
            return columns_of(self.fields(first, stop), names)
        return columns

    def raw(self, row: int) -> bytes:
        return self.lines()[row].rstrip(b"\r\n")

    def cursor(self, row: int) -> tuple[int, int]:
        if row == 0:
            return self.object, self.begin
        if row == self.rows:
            return self.object, self.end
        return self.object, self.begin + sum(map(len, self.lines()[:row]))

    def lines(self) -> list[bytes]:
        """The rows with their line ends."""
        if self._lines is None:
            assert isinstance(self._block, RawBlock)
            self._lines = split_lines(self._block.data)
        return self._lines

    def _by_line(self, reader: LineReader) -> list[Any]:
        items = []
        self.item_rows = []
        for row, line in enumerate(self.lines()):
            if not line.strip():
                continue
            item = reader.read_line(line.rstrip(b"\r\n"))
            if isinstance(item, Bad):
                self.bad[row] = item
            else:
                items.append(item)
                self.item_rows.append(row)
        return items


def _chosen(items: list[Any], columns: Optional[list[str]]) -> list[Any]:
    if columns is None:
        return items
    try:
        if set(map(tuple, items)) == {tuple(columns)}:
            return items
    except TypeError:  # an item that is no dict
        pass
    return [{name: item.get(name) for name in columns} if isinstance(item, dict) else item for item in items]


def split_lines(data: memoryview) -> list[bytes]:
    """The lines with their ends; the last may have none."""
    lines = [line + b"\n" for line in bytes(data).split(b"\n")]
    last = lines.pop()[:-1]
    if last:
        lines.append(last)
    return lines


def too_long(size: int, most: int, raw: Optional[bytes]) -> Bad:
    """Why a record over the limit is none. raw: its beginning."""
    return Bad("too_long", "RecordTooLong", f"the record has {size} bytes or more; max_record_bytes is {most}", raw)


def text_reader(lease: Lease, form: InputFormat, forced: dict[int, dict[int, int]]) -> LineReader:
    """Items are str, without the line's end."""
    return LineReader(lease, form, forced, _decode_text, _decode_text_line)


def _decode_text(data: memoryview) -> Optional[list[Any]]:
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError:
        return None
    if "\r" in text:
        return None
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        if not line or line.isspace():
            return None
    return lines


def _decode_text_line(line: bytes) -> str:
    return line.decode()
