"""One side of a comparison: the results of a task, or a file of expected values, as blocks of records in order.

Lines stay lines until somebody has to look into them: most of two results are the same, and are seen to be by their
bytes. Used by `compare`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import msgspec

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects

T = TypeVar("T")
BLOCK_ROWS = 16_384
_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text", ".csv": "csv", ".parquet": "parquet"}
_decode = msgspec.json.Decoder().decode
_decode_lines = msgspec.json.Decoder().decode_lines


@dataclass(frozen=True)
class Block:
    """Records that follow each other. name: of the object they are in; first: the place of the first in it, from 1.
    lines: as they are written, or the values themselves where they are not lines of JSON.
    """

    name: str
    first: int
    lines: list[bytes] | None
    rows: list[Any]

    def __len__(self) -> int:
        return len(self.rows) if self.lines is None else len(self.lines)

    def values(self) -> list[Any]:
        """What each record says."""
        if self.lines is None:
            return self.rows
        try:
            found = _decode_lines(b"\n".join(self.lines))
            # Blank lines and lines with several values are no records of ours; one by one they are said to be none.
            return found if len(found) == len(self.lines) else [_decode(line) for line in self.lines]
        except msgspec.DecodeError as error:
            raise InvalidValue(f"{self.name} is not JSON lines: {error}.", field=self.name) from error

    def place(self, index: int) -> str:
        return f"{self.name} line {self.first + index:,}"

    def cut(self, first: int, stop: int) -> Block:
        lines = None if self.lines is None else self.lines[first:stop]
        return Block(self.name, self.first + first, lines, self.rows[first:stop])


class Side:
    """A folder of results (a task's output), or one file. Raises NotFound where there is neither."""

    def __init__(self, objects: Objects, place: Location, field: str) -> None:
        self._objects = objects
        self._field = field
        self.place = place
        if objects.is_folder(place):
            self.place = place.as_folder()
        self.is_task = self.place.is_folder
        if not self.is_task and objects.head(place) is None:
            raise NotFound(f"there is no folder or file {place}.", field=field, remedy="Check the path.")
        self._names = self._results() if self.is_task else [self.place.key.rpartition("/")[2]]

    def inputs(self) -> list[tuple[str, int]] | None:
        """Name and size of each input object, where the folder tells them."""
        listing = self.place.child(layout.INPUTS)
        if not self.is_task or self._objects.head(listing) is None:
            return None
        found = [json.loads(line) for line in self._lines(listing)]
        return [(each["name"], each["size"]) for each in found]

    def blocks(self) -> Iterator[Block]:
        """All records, in order of the input."""
        for name in self._names:
            place = self.place.child(name) if self.is_task else self.place
            kind = _kind_of(name, self._field)
            read = {"jsonl": self._json, "text": self._text, "csv": self._csv, "parquet": self._parquet}[kind]
            yield from read(name, place)

    def _results(self) -> list[str]:
        try:
            _, *lines = self._objects.read(self.place.child(layout.MARKER)).splitlines()
            return [json.loads(line)["name"] for line in lines]
        except NotFound:
            raise NotFound(
                f"there are no finished results in {self.place}.",
                field=self._field,
                remedy="Give the output folder of a task that has succeeded, or a file of expected values.",
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValue(f"{layout.MARKER} in {self.place} is not one of ours.", field=self._field) from error

    def _json(self, name: str, place: Location) -> Iterator[Block]:
        first = 1
        for lines in _grouped(self._lines(place)):
            yield Block(name, first, lines, [])
            first += len(lines)

    def _text(self, name: str, place: Location) -> Iterator[Block]:
        first = 1
        for lines in _grouped(self._lines(place)):
            yield Block(name, first, None, [line.decode(errors="replace") or None for line in lines])
            first += len(lines)

    def _csv(self, name: str, place: Location) -> Iterator[Block]:
        first = 1
        with self._file(place) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
            for found in _grouped(rows):
                yield Block(name, first, None, [{key: _number(text) for key, text in row.items()} for row in found])
                first += len(found)

    def _parquet(self, name: str, place: Location) -> Iterator[Block]:
        try:
            import pyarrow.parquet  # type: ignore[import-untyped]  # an extra, and only where there is Parquet
        except ImportError:
            raise InvalidValue(
                f"{name} is Parquet, which pyarrow reads.", field=self._field, remedy="pip install 'tidemill[parquet]'."
            ) from None
        first = 1
        with self._file(place) as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(BLOCK_ROWS, use_threads=False):
                yield Block(name, first, None, batch.to_pylist())
                first += batch.num_rows

    def _lines(self, place: Location) -> Iterator[bytes]:
        rest = b""
        for chunk in self._objects.stream(place):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest

    @contextmanager
    def _file(self, place: Location) -> Iterator[IO[bytes]]:
        """The object as a file; one that lies elsewhere is fetched into a temporary one."""
        access = self._objects.grant_read(place, 3600.0)
        if access.kind == "path":
            with open(access.location, "rb") as file:  # noqa: PTH123 - a path of the region's own making
                yield file
            return
        with tempfile.TemporaryFile() as fetched:
            for chunk in self._objects.stream(place):
                fetched.write(chunk)
            fetched.seek(0)
            yield fetched


def _grouped(items: Iterator[T]) -> Iterator[list[T]]:
    while group := list(itertools.islice(items, BLOCK_ROWS)):
        yield group


def _kind_of(name: str, field: str) -> str:
    for ending, kind in _KINDS.items():
        if name.lower().endswith(ending):
            return kind
    raise InvalidValue(
        f"{name!r} cannot be compared.", field=field, remedy=f"Compared are {', '.join(sorted(_KINDS))}."
    )


def _number(text: Any) -> Any:
    """A field of a CSV as the number that it is, None where it is empty."""
    if not text:
        return None
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text
