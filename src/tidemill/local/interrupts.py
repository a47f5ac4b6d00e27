"""Ctrl-C and SIGTERM while a run is at work: heard between two steps, never in the middle of one. Used by `runner`."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """count: how often the user has asked for an end. `fileno` becomes readable with each time.

    Only the main thread can hear signals; in another, nothing changes.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        return self._read.fileno()

    def wake(self) -> None:
        """Makes `fileno` readable without counting; for other threads, which have news for the loop."""
        with contextlib.suppress(OSError):  # full: the loop wakes up anyway
            self._write.send(b"!")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read.recv(4096)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
                    self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.wake()
