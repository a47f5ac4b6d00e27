"""Frames, as parts of csv, parquet and file results hold them (`contract.Frame`): read one by one in flat memory.

Used by what makes results of them: `csv_tables`, `parquet_tables` and, for files, `units`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tidemill.domain.errors import PartDamaged
from tidemill.publishing.parts import Source
from tidemill_runtime.contract import Frame

PREDICTION = "prediction"
"""The column of predictions that are no records themselves; a table has it if it has no other of the model's."""
_HEADER_BYTES_MAX = 16 * 1024 * 1024

_decoder = msgspec.json.Decoder(Frame)


class Columns:
    """The columns of a table, in the order in which its frames show them first; those of the input come first."""

    def __init__(self) -> None:
        self._carried: dict[str, None] = {}
        self._predicted: dict[str, None] = {}

    def add(self, names: list[str], carried: int) -> None:
        self._carried.update(dict.fromkeys(names[:carried]))
        self._predicted.update(dict.fromkeys(names[carried:]))

    def places(self) -> dict[tuple[bool, str], int]:
        """The place of each column in the result, by whether it is of the input and its name there."""
        found = [*((True, name) for name in self._carried), *((False, name) for name in self._of_model())]
        return {key: place for place, key in enumerate(found)}

    def names(self) -> list[str]:
        """The names in the result. A column of the input with the name of one of the model's becomes `input.NAME`."""
        taken = set(self._of_model())
        names = []
        for name in self._carried:
            told = name
            while told in taken:
                told = f"input.{told}"
            taken.add(told)
            names.append(told)
        return [*names, *self._of_model()]

    def _of_model(self) -> Iterable[str]:
        return self._predicted or (PREDICTION,)


def frames(source: Source) -> Iterator[tuple[Frame, bytes]]:
    """Each frame with its payload. Raises PartDamaged for what is none, and for another number of rows."""
    feed = _Feed(source)
    rows = 0
    while not feed.at_end():
        frame = feed.header()
        rows += frame.rows
        yield frame, feed.take(frame.bytes)
    if rows != source.rows:
        raise PartDamaged(f"part {source.part} has {rows} rows where {source.rows} were committed.")


def headers(source: Source) -> Iterator[tuple[Frame, int]]:
    """Each frame without its payload, and the place in the source where that begins."""
    feed = _Feed(source)
    while not feed.at_end():
        frame = feed.header()
        yield frame, feed.position
        feed.skip(frame.bytes)


class _Feed:
    """Bytes that come in chunks, taken by line and by number. position: of the next byte."""

    def __init__(self, source: Source) -> None:
        self._chunks = source.read()
        self._part = source.part
        self._held = b""
        self._at = 0
        self.position = 0

    def at_end(self) -> bool:
        return self._at == len(self._held) and not self._more()

    def header(self) -> Frame:
        while True:
            end = self._held.find(b"\n", self._at)
            if end >= 0:
                break
            if len(self._held) - self._at > _HEADER_BYTES_MAX or not self._more():
                raise self._damaged()
        line = self._held[self._at : end]
        self._move(len(line) + 1)
        try:
            frame = _decoder.decode(line)
        except msgspec.DecodeError as error:
            raise self._damaged() from error
        if min(frame.rows, frame.bytes, frame.carried) < 0:
            raise self._damaged()
        return frame

    def take(self, count: int) -> bytes:
        pieces = []
        while count:
            if self._at == len(self._held) and not self._more():
                raise self._damaged()
            piece = self._held[self._at : self._at + count]
            pieces.append(piece)
            self._move(len(piece))
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, count: int) -> None:
        while count:
            if self._at == len(self._held) and not self._more():
                raise self._damaged()
            step = min(count, len(self._held) - self._at)
            self._move(step)
            count -= step

    def _move(self, count: int) -> None:
        self._at += count
        self.position += count

    def _more(self) -> bool:
        chunk = next(self._chunks, b"")
        self._held = self._held[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _damaged(self) -> PartDamaged:
        return PartDamaged(f"part {self._part} is not what it should be: a frame of it cannot be read.")
