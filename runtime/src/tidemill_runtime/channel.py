"""How the agent's reports reach its coordinator: over an inherited socket, or by HTTP. Used by the agent alone.

Both kinds take one report at a time and never wait for its answer: the agent's loop selects on `fileno()` and asks for
the answer when there is something to read. A report that fails is sent again as it was, after a growing pause.
"""

from __future__ import annotations

import random
import socket
import time
from typing import TYPE_CHECKING, Any, Optional, Protocol

from tidemill_runtime import wire
from tidemill_runtime.faults import FatalError
from tidemill_runtime.pipe import Closed, LinePipe

if TYPE_CHECKING:
    import http.client

    from tidemill_runtime.contract import Channel as ChannelTarget

ANSWER_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 2.0

_GONE = (401, 403, 410)  # the instance is no longer wanted, or was never
_REFUSED = (400, 413, 422, 426)  # sending the same again cannot help


class CoordinatorGone(Exception):
    """Nobody will take this instance's work any more: the parent died, or its token is refused."""


class Channel(Protocol):
    """sending: whether a report is on its way. fileno: what to select on for the answer, or -1."""

    @property
    def sending(self) -> bool: ...

    def fileno(self) -> int: ...

    def send(self, report: dict[str, Any]) -> None: ...

    def receive(self) -> Optional[dict[str, Any]]:
        """The orders, if they have come. Raises CoordinatorGone."""

    def due_s(self) -> float:
        """In how many seconds `receive` has something to do although nothing can be read."""

    def close(self) -> None: ...


def connect(target: ChannelTarget) -> Channel:
    """The channel that the manifest names. Raises FatalError."""
    if target.kind == "fd":
        return FdChannel(target.fd)
    if target.kind == "http":
        return HttpChannel(target.url, target.token)
    raise FatalError("contract_version", f"channel.kind {target.kind!r} is not known to this runtime; update it")


class FdChannel:
    """JSON lines over an inherited socket. End of file means that the parent is gone."""

    def __init__(self, fd: int) -> None:
        self._pipe = LinePipe(socket.socket(fileno=fd))
        self.sending = False

    def fileno(self) -> int:
        return self._pipe.fileno()

    def send(self, report: dict[str, Any]) -> None:
        self.sending = True
        try:
            self._pipe.send(wire.dumps(report))
            self._pipe.flush_all()
        except Closed:
            raise CoordinatorGone("the coordinator closed the socket") from None

    def receive(self) -> Optional[dict[str, Any]]:
        try:
            lines = self._pipe.lines()
        except Closed:
            raise CoordinatorGone("the coordinator closed the socket") from None
        if not lines:
            return None
        self.sending = False
        return wire.read_orders(lines[-1])

    def due_s(self) -> float:
        return float("inf")

    def close(self) -> None:
        self._pipe.close()


class HttpChannel:
    """POST {url}/runner/v1/report over one kept connection. A url `file:PATH` is that of a file which holds the url."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._connection: Optional[http.client.HTTPConnection] = None
        self._body: Optional[bytes] = None
        self._waiting = False
        self._try_at = 0.0
        self._give_up_at = 0.0
        self._pause_s = RETRY_FIRST_S

    @property
    def sending(self) -> bool:
        return self._body is not None

    def fileno(self) -> int:
        sock = self._connection.sock if self._connection and self._waiting else None
        return sock.fileno() if sock else -1

    def send(self, report: dict[str, Any]) -> None:
        self._body = wire.dumps(report)
        self._pause_s = RETRY_FIRST_S
        self._post()

    def receive(self) -> Optional[dict[str, Any]]:
        now = time.monotonic()
        if self._body is None:
            return None
        if not self._waiting:
            if now >= self._try_at:
                self._post()
            return None
        if self._readable():
            return self._answer()
        if now >= self._give_up_at:
            self._failed()
        return None

    def due_s(self) -> float:
        if self._body is None:
            return float("inf")
        return max(0.0, (self._give_up_at if self._waiting else self._try_at) - time.monotonic())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _readable(self) -> bool:
        import select  # with http.client below: only where the channel is HTTP

        return bool(select.select([self.fileno()], [], [], 0)[0])

    def _post(self) -> None:
        try:
            connection = self._connected()
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            connection.request("POST", f"{self._path}/runner/v1/report", self._body, headers)
        except OSError:
            self._failed()
            return
        self._waiting = True
        self._give_up_at = time.monotonic() + ANSWER_TIMEOUT_S

    def _connected(self) -> http.client.HTTPConnection:
        import http.client  # 30 ms that an instance under `tidemill run` never pays
        from urllib.parse import urlsplit

        parts = urlsplit(self._address())
        self._path = parts.path
        if self._connection is None:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S)
            self._connection.connect()
            # Without it every small request waits 40 ms for the other side's delayed acknowledgement.
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def _address(self) -> str:
        """Read anew for each connection where it is in a file: a server may come back at another port."""
        if not self._url.startswith("file:"):
            return self._url
        with open(self._url[len("file:") :]) as file:
            return file.read().strip().rstrip("/")

    def _answer(self) -> Optional[dict[str, Any]]:
        import http.client  # as above

        assert self._connection is not None
        try:
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self._failed()
            return None
        if response.status in _GONE:
            raise CoordinatorGone(f"the coordinator refused this instance (HTTP {response.status})")
        if response.status in _REFUSED:
            raise FatalError(
                "contract_version" if response.status == 426 else "internal",
                f"the coordinator refused a report with HTTP {response.status}",
                evidence=text[:2000].decode("utf-8", "replace"),
            )
        if response.status != 200:
            self._failed()
            return None
        try:
            orders = wire.read_orders(text)
        except ValueError:  # something between us answered
            self._failed()
            return None
        self._waiting = False
        self._body = None
        if response.will_close:
            self.close()
        if orders["token"]:
            self._token = orders["token"]
        return orders

    def _failed(self) -> None:
        self.close()
        self._waiting = False
        self._try_at = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(RETRY_MOST_S, self._pause_s * 2)
