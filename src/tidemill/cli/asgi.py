"""Running the server's application in uvicorn until a signal comes. Called by `serve` alone."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from tidemill.bootstrap import Server


class _Uvicorn(uvicorn.Server):
    """Tells when it is ready, and lets long answers end when a signal comes, so that none of them holds it up."""

    def __init__(self, config: uvicorn.Config, server: Server, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._server = server
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._server.begin_stop()
        super().handle_exit(sig, frame)


def serve_until_signal(server: Server, listener: socket.socket, ready: Callable[[], None], *, grace_s: int) -> bool:
    """Serves until SIGINT or SIGTERM; `ready` is called when it answers. Whether it could start at all.

    grace_s: seconds that calls in progress have to end. A second signal ends it at once.
    """
    config = uvicorn.Config(
        server.app(),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace_s,
    )
    # uvicorn raises the signal again when it is done: an orderly stop is no failure.
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    running = _Uvicorn(config, server, ready)
    try:
        running.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return running.started


def _ignore(number: int, frame: FrameType | None) -> None:
    """Nothing: see `serve_until_signal`."""
