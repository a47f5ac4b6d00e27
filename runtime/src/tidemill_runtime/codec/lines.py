"""Cutting the bytes of an object into blocks of whole lines; shared by jsonl, text and csv.

A line belongs to the range that its first byte lies in, so any cut of an object into ranges yields each line once.
Bytes are read into one buffer that is used again, and a line over the limit is passed over without being held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional, Union

from tidemill_runtime.source import Source

BLOCK_BYTES = 256 * 1024
"""What is parsed at a time: small enough for the caches and the allocator (512 lines or so), large enough for one call.
"""

KEPT_BYTES = 16 * 1024
"""How much of an over-long line is kept for the error's record."""

_BOM = b"\xef\xbb\xbf"
_SCAN_BYTES = 1024 * 1024


class RawBlock(NamedTuple):
    """Whole lines: `data` is a view that is good until the next block. begin, end: byte offsets within the object."""

    data: memoryview
    begin: int
    end: int


class LongLine(NamedTuple):
    """A line of more than the permitted bytes. head: its beginning. unclosed: the line is not that long, but the record
    that begins with it, see `LineBlocks.give_back`.
    """

    begin: int
    end: int
    head: bytes
    unclosed: bool = False


class LineBlocks:
    """Iterates over an object's blocks from `position` on.

    source: stands at `position`. stop: lines that begin at or after it are not ours; None for the object's end.
    partial: the first line is another range's; position is then one byte before the range, so that a newline there
    counts. forced: block begin → block end for blocks that must be cut as they were before.
    """

    def __init__(
        self,
        source: Source,
        *,
        position: int,
        stop: Optional[int] = None,
        partial: bool = False,
        longest: int,
        block_bytes: int = BLOCK_BYTES,
        forced: Optional[dict[int, int]] = None,
    ) -> None:
        self._source = source
        self._position = position
        self._stop = stop
        self._partial = partial
        self._longest = longest
        self._block_bytes = block_bytes
        self._forced = forced or {}
        self._least = 0
        self._buffer = bytearray(block_bytes)
        self._low = 0
        self._high = 0
        self._ended = False

    def __iter__(self) -> Iterator[Union[RawBlock, LongLine]]:
        if self._partial:
            self._pass_line()
        elif self._position == 0:
            self._pass_bom()
        while self._stop is None or self._position < self._stop:
            wanted = self._wanted()
            self._fill(wanted)
            if self._low == self._high:
                return
            end = self._block_end(wanted)
            if end is not None:
                yield self._take(end)
            elif self._high - self._low > self._longest:
                yield self._pass_long_line()
            else:
                self._fill(min(2 * (self._high - self._low), self._longest + 1))

    @property
    def at_end(self) -> bool:
        """Whether nothing follows the block that was handed out last, as far as is known: `give_back` finds out."""
        return self._ended and self._low == self._high

    def give_back(self, begin: int) -> None:
        """Takes back the end of the block that was handed out last, from a line's begin on: its last record goes on
        after it. If that is all of the block, the next one is larger.
        """
        back = self._position - begin
        self._low -= back
        self._position = begin
        self._least = back + 1

    def _wanted(self) -> int:
        """How many bytes the next block is to have."""
        forced = self._forced.get(self._position)
        if forced is not None:
            return forced - self._position
        nearest = min(
            (each - self._position for each in self._forced if each > self._position), default=self._block_bytes
        )
        return min(max(self._block_bytes, min(2 * self._least, self._longest + 1)), nearest)

    def _block_end(self, wanted: int) -> Optional[int]:
        """Where in the buffer the next block ends, None if no line ends in what is there."""
        limit = min(self._high, self._low + wanted)
        if self._stop is not None and self._position + (limit - self._low) >= self._stop:
            last_start = self._low + self._stop - 1 - self._position
            newline = self._buffer.find(b"\n", last_start, self._high)
            if newline >= 0:
                return newline + 1
            if self._ended:
                return self._high
            limit = self._high  # the last line is not whole yet: those before it are
        newline = self._buffer.rfind(b"\n", self._low, limit)
        if newline < 0 or newline + 1 - self._low < self._least:
            newline = self._buffer.find(b"\n", max(limit, self._low + self._least - 1), self._high)
        if newline >= 0:
            return newline + 1
        return self._high if self._ended else None

    def _take(self, end: int) -> RawBlock:
        begin = self._position
        data = memoryview(self._buffer)[self._low : end]
        self._position += end - self._low
        self._low, self._least = end, 0
        return RawBlock(data, begin, self._position)

    def _fill(self, wanted: int) -> None:
        """Reads on until `wanted` bytes are there or the object ends."""
        if self._ended or self._high - self._low >= wanted:
            return
        if wanted > len(self._buffer) - self._low:
            held = self._buffer[self._low : self._high]
            if wanted > len(self._buffer):
                self._buffer = bytearray(wanted)
            self._buffer[: len(held)] = held
            self._low, self._high = 0, len(held)
        view = memoryview(self._buffer)
        while self._high - self._low < wanted:
            count = self._source.readinto(view[self._high :])
            if not count:
                self._ended = True
                return
            self._high += count

    def _pass_bom(self) -> None:
        self._fill(len(_BOM))
        if self._buffer[self._low : self._low + len(_BOM)] == _BOM and self._high - self._low >= len(_BOM):
            self._low += len(_BOM)
            self._position += len(_BOM)

    def _pass_line(self) -> None:
        """Goes to the beginning of the next line; to `stop` if there is none before it."""
        while self._stop is None or self._position < self._stop:
            self._fill(min(_SCAN_BYTES, len(self._buffer)))
            if self._low == self._high:
                return
            newline = self._buffer.find(b"\n", self._low, self._high)
            passed = (newline + 1 if newline >= 0 else self._high) - self._low
            self._position += passed
            self._low += passed
            if newline >= 0:
                return

    def _pass_long_line(self) -> LongLine:
        begin = self._position
        head = bytes(self._buffer[self._low : min(self._high, self._low + KEPT_BYTES)])
        unclosed, self._least = self._least > 0, 0
        self._pass_line()
        return LongLine(begin, self._position, head, unclosed)
