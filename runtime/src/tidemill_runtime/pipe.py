"""JSON lines over sockets that never block the agent: to its workers, and to a coordinator that started it."""

from __future__ import annotations

import select
import socket
from typing import Optional

_CHUNK = 256 * 1024


class Closed(Exception):
    """The other end is gone."""


class LinePipe:
    """One end of a stream socket. `send` keeps what the socket does not take; `flush` goes on with it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._in = bytearray()
        self._out = bytearray()
        self._ended = False

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def wants_to_write(self) -> bool:
        return bool(self._out)

    def send(self, line: bytes) -> None:
        """Raises Closed."""
        self._out += line
        self.flush()

    def flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            return
        except OSError as error:
            raise Closed from error

    def flush_all(self) -> None:
        """Like `flush`, waiting until all is taken."""
        while self._out:
            select.select([], [self._sock], [])
            self.flush()

    def lines(self) -> list[bytes]:
        """The whole lines that have come, without waiting. Raises Closed at the end, once all was read."""
        while not self._ended:
            try:
                chunk = self._sock.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            self._ended = not chunk
            self._in += chunk
        found = self._in.split(b"\n")
        self._in = found.pop()
        if not found and self._ended:
            raise Closed
        return [bytes(line) for line in found]

    def wait(self, timeout_s: Optional[float]) -> bool:
        """Whether something can be read within the time; None waits for ever."""
        return bool(select.select([self._sock], [], [], timeout_s)[0])

    def close(self) -> None:
        self._sock.close()
