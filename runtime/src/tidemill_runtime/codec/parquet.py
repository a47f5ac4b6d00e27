"""Parquet: a record is a row. Used by the worker; pyarrow is imported only here and where a model wants Arrow itself.

A row group belongs to the range that its middle lies in. The rows of a small one belong to ranges of their own, as if
they lay evenly over its bytes: it costs little to decode it again, and a small file of one group has a share for each
process. Cursor offsets count the rows of the split.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import pyarrow  # type: ignore[import-untyped,unused-ignore]
import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]

from tidemill_runtime.codec.arrow import ArrowRecords
from tidemill_runtime.faults import FatalError
from tidemill_runtime.source import FileSource, unreadable

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, InputObject, Lease

BLOCK_ROWS = 16384
"""Rows that are decoded at a time; predict is called with at most so many."""
SHARED_BYTES = 1024 * 1024
"""Row groups of up to so many (compressed) bytes are shared by ranges."""
_NAMED = 30
"""So many columns are named to those who asked for another."""


class _Share(NamedTuple):
    """What a range has of an object: rows of these groups, but for so many of the first one."""

    groups: list[int]
    passed: int
    rows: int


class ParquetReader:
    """The rows of a lease's objects. carried: columns that results need beside the model's; None for all."""

    def __init__(
        self, lease: Lease, form: InputFormat, forced: dict[int, dict[int, int]], carried: Optional[Sequence[str]] = ()
    ) -> None:
        self._lease = lease
        self._columns = form.columns
        self._carried = carried
        self._forced = forced
        self._guard: Optional[FileSource] = None
        self._file: Any = None

    def blocks(self) -> Iterator[ArrowRecords]:
        lease = self._lease
        for index in range(lease.cursor.object, len(lease.objects)):
            skip = lease.cursor.offset if index == lease.cursor.object else 0
            if lease.objects[index].size:
                yield from self._object(index, skip)
                self.check()
            self.close()

    def check(self) -> None:
        if self._guard is not None:
            self._guard.check()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _object(self, index: int, skip: int) -> Iterator[ArrowRecords]:
        listed = self._lease.objects[index]
        try:
            share = self._open(listed)
            row = -share.passed
            cuts = sorted({edge for block in self._forced.get(index, {}).items() for edge in block})
            for batch in self._file.iter_batches(
                BLOCK_ROWS, row_groups=share.groups, columns=self._read(), use_threads=False
            ):
                for begin, rows in _cut(batch, row, skip, share.rows, cuts):
                    yield ArrowRecords(index, begin, rows, self._columns)
                row += batch.num_rows
                if row >= share.rows:
                    break
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            self.check()
            raise FatalError(
                "format_mismatch", f"{listed.name} cannot be read as Parquet: {error}", str(error)
            ) from error
        except OSError as error:
            self.check()
            raise unreadable(listed, error) from error

    def _open(self, listed: InputObject) -> _Share:
        """Opens the object; what of it is ours."""
        source: Any
        if listed.get.kind == "path":
            self._guard = FileSource(listed, 0)
            source = listed.get.location
        else:
            source = pyarrow.PythonFile(_RangeFile(listed), mode="r")
        self._file = pyarrow.parquet.ParquetFile(source, memory_map=False, pre_buffer=listed.get.kind != "path")
        missing = {*(self._columns or ()), *(self._carried or ())} - set(self._file.schema_arrow.names)
        if missing:
            names, known = ", ".join(sorted(missing)), ", ".join(self._file.schema_arrow.names[:_NAMED])
            raise FatalError("format_mismatch", f"{listed.name} has no column {names}; it has {known}")
        return _share(self._file.metadata, self._lease.start, self._lease.stop)

    def _read(self) -> Optional[list[str]]:
        """The columns to be read, None for all."""
        if self._columns is None or self._carried is None:
            return None
        return list(dict.fromkeys([*self._columns, *self._carried]))


def _share(metadata: Any, start: int, stop: int) -> _Share:
    """The rows of the bytes [start, stop) of the object, of all of it where stop is -1; each row is of one range."""
    if stop < 0:
        return _Share(list(range(metadata.num_row_groups)), 0, metadata.num_rows)
    groups: list[int] = []
    passed = rows = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        first, end = _rows_within(group, start, stop)
        if first < end:
            passed = passed if groups else first
            groups.append(number)
            rows += end - first
    return _Share(groups, passed, rows)


def _rows_within(group: Any, start: int, stop: int) -> tuple[int, int]:
    """The rows [first, end) of a row group that belong to a range of bytes."""
    columns = [group.column(number) for number in range(group.num_columns)]
    begin = min(each.dictionary_page_offset or each.data_page_offset for each in columns)
    size, rows = sum(each.total_compressed_size for each in columns), group.num_rows
    if size > SHARED_BYTES or not size:
        return (0, rows) if start <= begin + size // 2 < stop else (0, 0)
    first, end = (min(rows, max(0, -(-(edge - begin) * rows // size))) for edge in (start, stop))
    return first, end


def _cut(batch: Any, row: int, skip: int, stop: int, cuts: list[int]) -> Iterator[tuple[int, Any]]:
    """Of a batch that begins at `row`, what lies in [skip, stop) and not before 0, cut where blocks were cut before:
    each with its first row's number.
    """
    begin, end = max(row, skip, 0), min(row + batch.num_rows, stop)
    while begin < end:
        to = min([cut for cut in cuts if begin < cut < end], default=end)
        yield begin, batch.slice(begin - row, to - begin)
        begin = to


class _RangeFile(io.RawIOBase):
    """An object behind a URL as the file that pyarrow reads from."""

    def __init__(self, listed: InputObject) -> None:
        from tidemill_runtime.remote import UrlSource  # urllib3 costs 0.1 s, and local input does without

        super().__init__()
        self._source = UrlSource(listed, 0)
        self._size = listed.size
        self._position = 0
        self._listed = listed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        data = self._source.read_range(self._position, left if size < 0 else min(size, left))
        self._position += len(data)
        return data
