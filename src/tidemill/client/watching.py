"""Following a task by server-sent events, through broken connections and restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidemill.client.connection import ATTEMPTS, Connection
from tidemill.domain.errors import Temporary
from tidemill.wire.views import ProgressView

SILENCE_S = 20.0
"""The server says something every 5 seconds; a connection that is silent for longer is dead."""

AGAIN_S = 0.2
COMMENT = "comment"
"""Name of what is no event: the server says it only to be heard."""


@dataclass(frozen=True)
class ServerEvent:
    id: str
    name: str
    data: str


def watch(connection: Connection, path: str, *, until: float | None = None) -> Iterator[ProgressView]:
    """Every progress until the end, the last one final; or until that moment (of the monotonic clock).

    Raises the server's error, or ServerUnreachable after ten seconds without it.
    """
    last_id = told = ""
    failures = 0
    while until is None or time.monotonic() < until:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        silence_s = SILENCE_S if until is None else min(SILENCE_S, max(0.01, until - time.monotonic()))
        try:
            with connection.stream(path, headers=headers, silence_s=silence_s) as response:
                for event in read_events(response.iter_lines()):
                    failures = 0
                    last_id = event.id or last_id
                    if event.name in ("progress", "end") and event.data != told:
                        told = event.data
                        yield ProgressView.model_validate_json(event.data)
                    if event.name == "end" or (until is not None and time.monotonic() >= until):
                        return
        except Temporary:
            failures += 1
            if failures >= ATTEMPTS and (until is None or time.monotonic() < until):
                raise
        time.sleep(min(4.0, AGAIN_S * 2**failures))  # also when the stream just stopped: the server is being restarted


def read_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """The events of a stream of lines (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    number, name = "", "message"
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(number, name, "\n".join(data))
            name, data = "message", []
            continue
        if line.startswith(":"):
            yield ServerEvent(number, COMMENT, line[1:].strip())
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            number = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
