"""Results read back: a row at a time for Python, and their first lines for people. Called by `local.result` and
`services.results`.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tidemill.domain.errors import InvalidValue
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects

_AHEAD_BYTES = 1024 * 1024
_BATCH_ROWS = 1024
_PREDICTION = ["prediction"]


def predictions(objects: Objects, location: Location, result_type: str) -> Iterator[Any]:
    """The rows of a result, in order. result_type: `ResultFormat.type`.

    jsonl: JSON's values. text: strings. csv, parquet: the prediction where that is the only column, else a dict (of
    csv: of strings; None where there is nothing). file: the bytes of the object. Raises InvalidValue for Parquet where
    pyarrow is not installed.
    """
    if result_type == "file":
        yield objects.read(location)
    elif result_type == "csv":
        yield from _csv(objects, location)
    elif result_type == "parquet":
        yield from _parquet(objects, location)
    else:
        for line in _lines(objects.stream(location)):
            yield line.decode() if result_type == "text" else json.loads(line)


def parquet_lines(objects: Objects, location: Location, count: int) -> tuple[list[str], bool]:
    """The first rows of a Parquet result as lines of JSON, and whether there are more."""
    rows = list(islice(_parquet(objects, location), count + 1))
    lines = [json.dumps(row, ensure_ascii=False, default=str, separators=(",", ":")) for row in rows[:count]]
    return lines, len(rows) > count


def _csv(objects: Objects, location: Location) -> Iterator[Any]:
    csv.field_size_limit(sys.maxsize)  # of this process: a prediction may be longer than the module's 128 KiB
    text = io.TextIOWrapper(io.BufferedReader(ObjectFile(objects, location), _AHEAD_BYTES), "utf-8", newline="")
    rows = csv.reader(text)
    names = next(rows, [])
    return _shaped(names, ([field or None for field in row] for row in rows))


def _parquet(objects: Objects, location: Location) -> Iterator[Any]:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore] # an extra, and slow to load
    except ImportError as error:
        raise InvalidValue(
            "reading Parquet needs pyarrow, which is not installed.",
            remedy="Install it: pip install 'tidemill[parquet]'.",
        ) from error
    with pyarrow.parquet.ParquetFile(ObjectFile(objects, location)) as table:
        for batch in table.iter_batches(_BATCH_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            yield from _shaped(batch.schema.names, zip(*columns, strict=True))


def _shaped(names: list[str], rows: Iterable[Iterable[Any]]) -> Iterator[Any]:
    if names == _PREDICTION:
        return (next(iter(row)) for row in rows)
    return (dict(zip(names, row, strict=True)) for row in rows)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


class ObjectFile(io.RawIOBase):
    """An object as a file that is read in ranges. Raises NotFound if it is not there."""

    def __init__(self, objects: Objects, location: Location) -> None:
        super().__init__()
        self._objects = objects
        self._location = location
        info = objects.head(location)
        self._size = 0 if info is None else info.size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        stop = min(self._at + len(view), self._size)
        data = self._objects.read(self._location, self._at, stop) if self._at < stop else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
