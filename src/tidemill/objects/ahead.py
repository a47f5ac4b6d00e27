"""Reads ranges ahead of whoever consumes them, in order and in bounded memory. Used by `objects.s3`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future

from tidemill.domain.location import Location
from tidemill.objects.assembly import read_stop
from tidemill.ports.objects import Piece

Read = Callable[[Location, int, int], bytes]


class Ahead:
    """The bytes of `pieces`, whose stops are known: at most `window` ranges of `range_bytes` are in flight or waiting.

    `stream` is to be called once for each piece, in order, each time to its end.
    """

    def __init__(self, pieces: Sequence[Piece], read: Read, pool: Executor, *, range_bytes: int, window: int) -> None:
        self._read = read
        self._pool = pool
        self._window = window
        self._ranges = _ranges(pieces, range_bytes)
        self._waiting: deque[tuple[int, Future[bytes]]] = deque()
        self._streams = 0

    def stream(self, piece: Piece) -> Iterator[bytes]:
        number = self._streams
        self._streams += 1
        self._fill()
        while self._waiting and self._waiting[0][0] == number:
            chunk = self._waiting.popleft()[1].result()
            self._fill()
            yield chunk

    def _fill(self) -> None:
        while len(self._waiting) < self._window:
            found = next(self._ranges, None)
            if found is None:
                return
            number, location, start, stop = found
            self._waiting.append((number, self._pool.submit(self._read, location, start, stop)))


def _ranges(pieces: Sequence[Piece], range_bytes: int) -> Iterator[tuple[int, Location, int, int]]:
    for number, piece in enumerate(pieces):
        stop = read_stop(piece)
        assert stop is not None
        for start in range(piece.start, stop, range_bytes):
            yield number, piece.location, start, min(start + range_bytes, stop)
