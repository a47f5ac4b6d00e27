"""Instances of `tidemill run`: children of this process, each at the other end of a socket. Used by `runner` alone.

They die with their parent, also when it is killed: the kernel tells them (on Linux), and their socket closes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.engines.children import Child
from tidemill_runtime.contract import Counts, Fault

_LAST_MOMENTS_S = 1.0


@dataclass
class Instance:
    """One instance and what it said last.

    state, waiting: as in its reports; "" before the first. closed: it will say no more.
    """

    id: str
    index: int
    attempt: int
    child: Child
    state: str = ""
    waiting: str = ""
    pending: Counts = Counts()
    seconds: dict[str, float] = field(default_factory=dict)
    fault: Fault | None = None
    closed: bool = False
    _unread: bytes = b""
    _unsent: bytes = b""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self.child.process

    @property
    def socket(self) -> socket.socket:
        return self.child.socket

    @property
    def log(self) -> Path:
        return Path(self.child.folder, "log")

    def received(self) -> list[bytes] | None:
        """Whole lines that have come; None when the other end is closed."""
        lines: list[bytes] = []
        while True:
            try:
                chunk = self.socket.recv(1 << 18)
            except BlockingIOError:
                return lines
            except OSError:
                return lines or None
            if not chunk:
                return lines or None
            *whole, self._unread = (self._unread + chunk).split(b"\n")
            lines += whole

    def send(self, line: bytes) -> None:
        """Sends as much as goes now; `flush` sends the rest when the socket takes it again."""
        self._unsent += line
        self.flush()

    @property
    def wants_to_send(self) -> bool:
        return bool(self._unsent)

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                sent = self.socket.send(self._unsent)
                self._unsent = self._unsent[sent:]

    def ask_to_end(self) -> None:
        """SIGTERM: it commits what it has computed, and ends."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and everything in its session's group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Waits for it if it is about to end (its socket is closed), and kills what there is of it and its workers."""
        if self.closed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_LAST_MOMENTS_S)
        self.kill()
        self.process.wait()
        self.socket.close()
