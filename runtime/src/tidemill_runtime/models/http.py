"""A command that starts an HTTP server, which is sent mini-batches: containers made for SageMaker run unchanged.

One server for a worker; it is told its port, is ready when its health path answers 200, and gets each mini-batch in as
many requests as there are connections. What it sends back is read by `bodies`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import urllib3

from tidemill_runtime.faults import FatalError, log
from tidemill_runtime.models.bodies import Bodies
from tidemill_runtime.models.child import STARTS_IN_VAIN, Ended, Program, find_program
from tidemill_runtime.models.commands import environment, filled_in
from tidemill_runtime.models.outside import Clock, RecordFault
from tidemill_runtime.models.port import Model, folders_of
from tidemill_runtime.models.shapes import RECORD

if TYPE_CHECKING:
    from tidemill_runtime.contract import Command, Manifest
    from tidemill_runtime.models.kinds import PackageInfo

HOST = "127.0.0.1"
_ALONE_S = 2.0
"""How long a second connection is waited for, to see whether the server has more than one at a time."""
_HEALTH_S = 10.0
_PAUSE_MOST_S = 0.5
_CONNECT_S = 10.0
_PORT_S = 5.0
"""How long a port may still be taken by the server of a worker that was killed."""
_SAID_KEPT = 4000
_MISPLACED = (404, 405, 415)
"""Answers that blame the request's address or type: where nothing has ever worked, the command is described wrongly."""


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The server, started and healthy. Raises FatalError."""
    command: Command = info.options["command"]
    port = command.port or _free_port()
    env = environment(manifest, port)
    folders = folders_of(manifest)
    words = filled_in(command.run, manifest, port)
    words[0] = find_program(words[0], list(folders), env.get("PATH", os.defpath))
    program = Program(words, folders[0] if folders else manifest.scratch, env)
    server = Server(program, port, command.health, command.load_timeout_s)
    server.start()
    connections = command.connections or max(1, manifest.millicores // 1000)
    if connections > 1 and command.connections is None and server.serves_one_at_a_time():
        log("the server serves one connection at a time, so it is asked over one (command.connections)")
        connections = 1
    bodies = Bodies(command, plain=manifest.input.type in ("text", "file"), files=manifest.input.type == "file")
    client = Client(server, command, bodies, connections)
    return Model(client.predict, RECORD, True, client.close, folders, server.clock)


class _Unreachable(Exception):
    """The connection broke before an answer came."""


class _Answer(NamedTuple):
    status: int
    type: str
    body: bytes


class Server:
    """The command and its health; `recover` may be called by several threads."""

    def __init__(self, program: Program, port: int, health: str, load_timeout_s: float) -> None:
        self.clock = Clock()
        self.port = port
        self._program = program
        self._health = health
        self._load_timeout_s = load_timeout_s
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts it, and waits until it is healthy. Raises FatalError."""
        starts = 0
        while True:
            self._check_port()
            self._program.start(os.open(os.devnull, os.O_RDONLY))
            starts += 1
            ended = self._wait_until_healthy()
            if ended is None:
                return
            words = f"the server {ended.words}, before it was healthy"
            if starts == STARTS_IN_VAIN:
                raise FatalError("model_load_failed", words, ended.words, ended.trace)
            log(f"{words}; it is started again")

    def recover(self) -> Optional[Ended]:
        """After a failure: waits until it is healthy, started again if it has ended; how it ended then."""
        with self._lock:
            self.clock.stop()
            ended = self._program.ended()
            if ended is not None:
                log(f"the server {ended.words}; it is started again")
                self.start()
            else:
                ended = self._wait_until_healthy()
                if ended is not None:
                    log(f"the server {ended.words}; it is started again")
                    self.start()
            self.clock.go()
            return ended

    def serves_one_at_a_time(self) -> bool:
        """Whether a connection that is kept open keeps all others waiting."""
        first = urllib3.HTTPConnectionPool(HOST, self.port, maxsize=1, timeout=_HEALTH_S, retries=False)
        second = urllib3.HTTPConnectionPool(HOST, self.port, maxsize=1, timeout=_ALONE_S, retries=False)
        try:
            first.request("GET", self._health)
            second.request("GET", self._health)
        except urllib3.exceptions.TimeoutError:
            return True
        except urllib3.exceptions.HTTPError:
            return False
        finally:
            first.close()
            second.close()
        return False

    def close(self) -> None:
        self._program.close()

    def _wait_until_healthy(self) -> Optional[Ended]:
        """How it ended, if it did; None once it is healthy. Raises FatalError when its time is over."""
        give_up_at = time.monotonic() + self._load_timeout_s
        pause_s = 0.01
        said = ""
        pool = urllib3.HTTPConnectionPool(HOST, self.port, timeout=_HEALTH_S, retries=False)
        with contextlib.closing(pool):
            while True:
                try:
                    answer = pool.request("GET", self._health, headers={"Connection": "close"})
                    if answer.status == 200:
                        return None
                    said = f"HTTP {answer.status}"
                except urllib3.exceptions.HTTPError as error:
                    said = type(error).__name__
                ended = self._program.ended(pause_s)
                if ended is not None:
                    return ended
                if time.monotonic() > give_up_at:
                    break
                pause_s = min(_PAUSE_MOST_S, pause_s * 1.5)
        stopped = self._program.stop()
        last = f"; it said last: {stopped.last_line}" if stopped is not None and stopped.last_line else ""
        raise FatalError(
            "model_load_failed",
            f"GET {self._health} on port {self.port} did not answer 200 in {self._load_timeout_s:g} s ({said}){last}; "
            "check command.health and command.port, or raise command.load_timeout",
            evidence=said,
            traceback=stopped.trace if stopped is not None else "",
        )

    def _check_port(self) -> None:
        """A port that another server has would have that one's predictions taken for ours."""
        give_up_at = time.monotonic() + _PORT_S
        while True:
            error = _taken(self.port)
            if error is None:
                return
            if time.monotonic() > give_up_at:
                raise FatalError(
                    "model_load_failed",
                    f"port {self.port} is taken by another process; have the server take its port from PORT or "
                    "{port}, and leave command.port out",
                    evidence=str(error),
                ) from None
            time.sleep(_PAUSE_MOST_S / 10)


class Client:
    """Sends mini-batches, in several requests at once. connections: how many."""

    def __init__(self, server: Server, command: Command, bodies: Bodies, connections: int) -> None:
        self._server = server
        self._path = command.predict
        self._bodies = bodies
        self._connections = connections
        self._most_bytes = command.max_request_bytes
        self._works = False
        self._fatal: Optional[FatalError] = None
        self._headers = {"Content-Type": command.content_type, "Accept": command.accept or command.content_type}
        timeout = urllib3.Timeout(connect=_CONNECT_S, read=None)  # a record's own limit is the agent's affair
        self._pool = urllib3.HTTPConnectionPool(
            HOST, server.port, maxsize=connections, block=True, timeout=timeout, retries=False
        )
        self._threads = ThreadPoolExecutor(connections)

    def predict(self, records: list[Any]) -> list[Any]:
        """A prediction for each record. Raises WrongLength, RecordFault, FatalError."""
        if self._fatal is not None:
            raise self._fatal
        requests = self._bodies.requests(records, self._connections, self._most_bytes)
        ask = map if len(requests) == 1 else self._threads.map
        found = list(ask(self._tried, requests))
        for each in found:
            if isinstance(each, FatalError):
                self._fatal = each
            if isinstance(each, Exception):
                raise each
        self._works = True
        return [prediction for each in found for prediction in each]

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        self._pool.close()
        self._server.close()

    def _tried(self, records: list[Any]) -> Any:
        """The predictions, or what was raised: all requests come to their end before one of them is told."""
        try:
            return self._asked(records)
        except Exception as error:
            return error

    def _asked(self, records: list[Any]) -> list[Any]:
        body = self._bodies.write(records)
        answer, trouble, ended = self._sent(body), "", None
        if answer is None or answer.status >= 500:
            ended = self._server.recover()
            again = self._sent(body)
            if again is None and ended is None:
                ended = self._server.recover()
            answer = again
        if answer is None:
            trouble = f"the server {ended.words}" if ended is not None else "the server closed the connection"
            raise RecordFault("crash", "ServerDied", trouble, ended.trace if ended is not None else "")
        if answer.status == 413 and len(records) > 1:
            self._most_bytes = max(1, len(body) // 2)
            log(f"the server takes no {len(body)} bytes in a request; it gets at most {self._most_bytes} from now on")
            middle = len(records) // 2
            return self._asked(records[:middle]) + self._asked(records[middle:])
        if answer.status != 200:
            raise self._refused(answer)
        return self._bodies.read(answer.body, answer.type, len(records))

    def _sent(self, body: bytes) -> Optional[_Answer]:
        """The answer; None where the connection broke before it came."""
        try:
            found = self._pool.request("POST", self._path, body=body, headers=self._headers)
        except urllib3.exceptions.HTTPError:
            return None
        return _Answer(found.status, found.headers.get("Content-Type", ""), found.data)

    def _refused(self, answer: _Answer) -> Exception:
        text = answer.body[:_SAID_KEPT].decode("utf-8", "replace").strip()
        first = text.splitlines()[0][:200] if text else ""
        message = f"HTTP {answer.status}{f': {first}' if first else ''}"
        if answer.status in _MISPLACED and not self._works:
            return FatalError(
                "model_load_failed",
                f"POST {self._path} with {self._headers['Content-Type']} was answered with {message}; check "
                "command.predict and command.content_type",
                evidence=message,
            )
        return RecordFault("model_error", f"HTTP{answer.status}", message, text)


def _taken(port: int) -> Optional[OSError]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
