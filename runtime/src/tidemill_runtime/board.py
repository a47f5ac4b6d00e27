"""The board: a page of memory shared by a worker and the agent, where the worker writes what it is about to do.

It costs 0.15 µs a mini-batch (a pipe: 9 µs), and it is what is left when the worker dies: it tells the agent which
records were being predicted, so that only they come under suspicion. One writer (the worker), one reader (the agent).
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import NamedTuple

# What a worker is doing.
STARTING, LOADING, IDLE, READING, PREDICTING, WRITING, ISOLATING = range(7)
NAMES = ("starting", "loading", "idle", "reading", "predicting", "writing", "isolating")

_WINDOW = struct.Struct("<qqqqqd")  # object, begin, end, first, size, limit_s
_PHASE = struct.Struct("<qqd")  # sequence, phase, since (monotonic seconds)
_TOTALS = struct.Struct("<qqqqqdddq")  # inputs, ok, failed, skipped, batch, predict, read, write seconds, records
_WAITING = struct.Struct("<q")  # bytes of the text behind it; 0 while nothing is waited for
_PHASE_AT = 0
_WINDOW_AT = 64
_TOTALS_AT = 128
_WAITING_AT = 256
_WAITING_BYTES = 2000
SIZE = 4096


class Window(NamedTuple):
    """The records in one predict call: `size` of them from the `first` of the block [begin, end) of an object.

    begin and end are cursor offsets, so that they mean the same to the worker that comes after. limit_s: how long it
    may take; 0 for ever.
    """

    object: int
    begin: int
    end: int
    first: int
    size: int
    limit_s: float


class Phase(NamedTuple):
    sequence: int
    phase: int
    since: float


class Totals(NamedTuple):
    """Counts of what is not committed yet; batch: the size of mini-batches now; seconds, and records
    predicted, since the worker's start.
    """

    inputs: int
    ok: int
    failed: int
    skipped: int
    batch: int
    predict_s: float
    read_s: float
    write_s: float
    records: int


class Board:
    """Made by the agent before it forks the worker."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)
        self._sequence = 0

    def enter(self, phase: int) -> None:
        """The worker begins something else."""
        self._sequence += 1
        _PHASE.pack_into(self._memory, _PHASE_AT, self._sequence, phase, time.monotonic())

    def predict(self, window: Window) -> None:
        """The worker is about to predict these records."""
        _WINDOW.pack_into(self._memory, _WINDOW_AT, *window)
        self._sequence += 1
        _PHASE.pack_into(self._memory, _PHASE_AT, self._sequence, PREDICTING, time.monotonic())

    def account(self, totals: Totals) -> None:
        _TOTALS.pack_into(self._memory, _TOTALS_AT, *totals)

    def wait(self, words: str) -> None:
        """What the worker waits for, for people; "" when it goes on."""
        text = words.encode()[:_WAITING_BYTES]
        begin = _WAITING_AT + _WAITING.size
        _WAITING.pack_into(self._memory, _WAITING_AT, 0)
        self._memory[begin : begin + len(text)] = text
        _WAITING.pack_into(self._memory, _WAITING_AT, len(text))

    def waiting(self) -> str:
        """The words of the last `wait`."""
        (size,) = _WAITING.unpack_from(self._memory, _WAITING_AT)
        begin = _WAITING_AT + _WAITING.size
        return self._memory[begin : begin + size].decode(errors="replace")

    def phase(self) -> Phase:
        return Phase(*_PHASE.unpack_from(self._memory, _PHASE_AT))

    def window(self) -> Window:
        return Window(*_WINDOW.unpack_from(self._memory, _WINDOW_AT))

    def totals(self) -> Totals:
        return Totals(*_TOTALS.unpack_from(self._memory, _TOTALS_AT))
