"""Frames of CSV as one table with a header. Used by `units`.

Nearly always every frame has the columns of the table, and its rows are taken as they are.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence

from tidemill.publishing.frames import Columns, frames, headers
from tidemill.publishing.parts import Source
from tidemill_runtime.contract import Frame

_CHUNK_BYTES = 1024 * 1024
_SPECIAL = re.compile('[",\r\n]')

csv.field_size_limit(sys.maxsize)  # of this process: a prediction may be longer than the module's 128 KiB


def csv_table(sources: Sequence[Source]) -> Iterator[bytes]:
    """The table's bytes. Two passes: the columns are known after the first. Raises PartDamaged."""
    columns = Columns()
    for source in sources:
        for frame, _ in headers(source):
            columns.add(frame.columns, frame.carried)
    return _chunked(_rows(sources, columns))


def _rows(sources: Sequence[Source], columns: Columns) -> Iterator[bytes]:
    places = columns.places()
    width = len(places)
    yield _written([columns.names()])
    nothing = b'""\n' if width == 1 else b"," * (width - 1) + b"\n"  # a blank line is no row to most readers
    straight = list(range(width))
    for source in sources:
        for frame, payload in frames(source):
            own = _places(frame, places)
            if own == straight:
                yield payload
            elif not own:
                yield nothing * frame.rows
            else:
                yield _moved(payload, own, width)


def _places(frame: Frame, places: dict[tuple[bool, str], int]) -> list[int]:
    return [places[at < frame.carried, name] for at, name in enumerate(frame.columns)]


def _moved(payload: bytes, places: list[int], width: int) -> bytes:
    """Rows that lack some of the table's columns, or have them in another order."""
    rows = []
    for fields in csv.reader(io.StringIO(payload.decode(), newline="")):
        row = [""] * width
        for place, field in zip(places, fields, strict=True):
            row[place] = field
        rows.append(row)
    return _written(rows)


def _written(rows: list[list[str]]) -> bytes:
    """As the runtime writes rows (`encoder_columns`)."""
    lines = (",".join(map(_quoted, row)) if len(row) > 1 else _quoted(row[0]) or '""' for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces: a frame may be a single row."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
