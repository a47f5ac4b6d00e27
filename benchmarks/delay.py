"""A TCP proxy that lets every byte wait: a store in the next room answers as one across the country does.

`serve(host, port, delay_s)` runs in a thread; connections are as quick as the one behind it, only later.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterator

_CHUNK_BYTES = 1 << 18


@contextlib.contextmanager
def serve(host: str, port: int, delay_s: float) -> Iterator[int]:
    """The port on 127.0.0.1 that stands for host:port. delay_s: of each direction, so a round trip takes twice that."""
    ready: deque[int] = deque()
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(
            _relay(reader, there_writer, delay_s), _relay(there_reader, writer, delay_s), return_exceptions=True
        )

    async def run() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        async with server:
            await server.serve_forever()

    def work() -> None:
        asyncio.set_event_loop(loop)
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            loop.run_until_complete(run())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait()
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Each chunk is sent on `delay_s` after it came, while the next ones are read already."""
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def send() -> None:
        while True:
            due, chunk = await held.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not chunk:
                writer.close()
                return
            writer.write(chunk)
            await writer.drain()

    sending = asyncio.create_task(send())
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            held.put_nowait((loop.time() + delay_s, chunk))
    held.put_nowait((loop.time() + delay_s, b""))
    with contextlib.suppress(OSError):
        await sending
