"""Parquet: a record is a row. Used by the worker; pyarrow is imported only here and where a model wants Arrow itself.

A row group belongs to the range that its middle lies in. Cursor offsets count rows of the split's own row groups.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional

import pyarrow  # type: ignore[import-untyped,unused-ignore]
import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]

from tidemill_runtime.codec.arrow import ArrowRecords
from tidemill_runtime.faults import FatalError
from tidemill_runtime.source import FileSource, unreadable

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, InputObject, Lease

BLOCK_ROWS = 16384
"""Rows that are decoded at a time; predict is called with at most so many."""


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
            groups = self._open(listed)
            row = 0
            cuts = sorted({edge for block in self._forced.get(index, {}).items() for edge in block})
            for batch in self._file.iter_batches(
                BLOCK_ROWS, row_groups=groups, columns=self._read(), use_threads=False
            ):
                for begin, rows in _cut(batch, row, skip, cuts):
                    yield ArrowRecords(index, begin, rows, self._columns)
                row += batch.num_rows
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            self.check()
            raise FatalError(
                "format_mismatch", f"{listed.name} cannot be read as Parquet: {error}", str(error)
            ) from error
        except OSError as error:
            self.check()
            raise unreadable(listed, error) from error

    def _open(self, listed: InputObject) -> list[int]:
        """Opens the object; the numbers of the row groups that are ours."""
        source: Any
        if listed.get.kind == "path":
            self._guard = FileSource(listed, 0)
            source = listed.get.location
        else:
            source = pyarrow.PythonFile(_RangeFile(listed), mode="r")
        self._file = pyarrow.parquet.ParquetFile(source, memory_map=False, pre_buffer=listed.get.kind != "path")
        missing = {*(self._columns or ()), *(self._carried or ())} - set(self._file.schema_arrow.names)
        if missing:
            names = ", ".join(sorted(missing))
            raise FatalError(
                "format_mismatch", f"{listed.name} has no column {names}", evidence=str(self._file.schema_arrow)
            )
        metadata = self._file.metadata
        start, stop = self._lease.start, self._lease.stop
        if stop < 0:
            return list(range(metadata.num_row_groups))
        middles = [_middle(metadata.row_group(number)) for number in range(metadata.num_row_groups)]
        return [number for number, middle in enumerate(middles) if start <= middle < stop]

    def _read(self) -> Optional[list[str]]:
        """The columns to be read, None for all."""
        if self._columns is None or self._carried is None:
            return None
        return list(dict.fromkeys([*self._columns, *self._carried]))


def _middle(group: Any) -> int:
    """The byte in the middle of a row group; every range of an object's bytes agrees on it."""
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [each.dictionary_page_offset or each.data_page_offset for each in columns]
    return int(min(starts) + sum(each.total_compressed_size for each in columns) // 2)


def _cut(batch: Any, row: int, skip: int, cuts: list[int]) -> Iterator[tuple[int, Any]]:
    """A batch that begins at `row`, less what lies before `skip`, cut where blocks were cut before: each with its first
    row's number.
    """
    begin, end = max(row, skip), row + batch.num_rows
    while begin < end:
        stop = min([cut for cut in cuts if begin < cut < end], default=end)
        yield begin, batch.slice(begin - row, stop - begin)
        begin = stop


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
