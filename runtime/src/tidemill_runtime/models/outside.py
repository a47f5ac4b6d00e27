"""Models that compute in other processes: what they raise for a record, and how they stop the clock of a call.

Used by the adapters of commands; isolation reads the fault and lends the clock.
"""

from __future__ import annotations

from typing import Callable


class RecordFault(Exception):
    """A mini-batch failed outside of this process. fault: one of `contract.RECORD_FAULTS`; type: a short name of what
    it was; trace: what the other side said about it.
    """

    def __init__(self, fault: str, type_: str, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.fault = fault
        self.type = type_
        self.trace = trace


class Clock:
    """The time limit of a call; it stands still while the other side is started, which no record is to blame for."""

    def __init__(self) -> None:
        self._stop: Callable[[], None] = _nothing
        self._go: Callable[[], None] = _nothing

    def attach(self, stop: Callable[[], None], go: Callable[[], None]) -> None:
        """Has the clock of the calls stopped, and begun anew, by these two."""
        self._stop, self._go = stop, go

    def stop(self) -> None:
        self._stop()

    def go(self) -> None:
        """The limit counts from now on."""
        self._go()


def _nothing() -> None:
    return None
