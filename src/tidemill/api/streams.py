"""Bodies that do not fit in memory or last long: downloads by range, uploads, server-sent events."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import anyio.from_thread
import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import Response, StreamingResponse

from tidemill.domain.errors import InvalidValue, TidemillError
from tidemill.domain.ids import TaskId
from tidemill.services.access import Actor
from tidemill.services.facade import Services
from tidemill.services.objects import Opened

WATCH_EVERY_S = 0.5
"""How often a watched task is looked at: as fresh as instances report."""
HEARTBEAT_S = 5.0
"""Proxies close what is silent for long."""
EVENTS_AT_ONCE = 500
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
UPLOAD_CHUNK_BYTES = 1024 * 1024


def download(request: Request, opened: Opened) -> Response:
    """An object, or the one range of it that was asked for; several ranges are answered with all of it, as HTTP
    allows.
    """
    info = opened.info
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{quote(info.etag, safe="")}"',
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(info.name.rsplit('/', 1)[-1], safe='')}",
    }
    start, stop, status = 0, info.size, 200
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match and (match[1] or match[2]):
        if match[1]:
            start = int(match[1])
            stop = min(info.size, int(match[2]) + 1) if match[2] else info.size
        else:
            start = max(0, info.size - int(match[2]))
        if start >= stop:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{info.size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    return StreamingResponse(
        iterate_in_threadpool(_exactly(opened.read(start, stop), stop - start)),
        status,
        headers,
        "application/octet-stream",
    )


def _exactly(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The chunks, if they are `size` bytes together; otherwise the transfer breaks instead of passing for whole."""
    for chunk in chunks:
        size -= len(chunk)
        yield chunk
    if size:
        raise TidemillError("the object changed while it was read.")


async def upload_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces of about a MiB, so that each costs one change of threads."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        pieces.append(chunk)
        size += len(chunk)
        if size >= UPLOAD_CHUNK_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)


def blocking(chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
    """An asynchronous stream for a thread that blocks on it (one that anyio started)."""

    async def following() -> bytes | None:
        return await anext(chunks, None)

    while (chunk := anyio.from_thread.run(following)) is not None:
        yield chunk


async def watch_events(
    request: Request, served: Services, actor: Actor, task: TaskId, last_event_id: str | None
) -> StreamingResponse:
    """See `tasks.watch_task`."""
    after = _event_number(last_event_id)
    await run_in_threadpool(served.tasks.progress, actor, task)  # an unknown task is a 404 and not an empty stream
    return StreamingResponse(
        _watch(request, served, actor, task, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _watch(request: Request, served: Services, actor: Actor, task: TaskId, after: int) -> AsyncIterator[str]:
    told = ""
    spoken = time.monotonic()
    while not served.closing():
        progress, events = await run_in_threadpool(served.tasks.follow, actor, task, after, EVENTS_AT_ONCE)
        for event in events:
            after = event.id
            yield _sse("event", after, event)
        shown = progress.model_dump_json(exclude={"seconds"})
        if shown != told:
            told, spoken = shown, time.monotonic()
            yield _sse("progress", after, progress)
        if len(events) == EVENTS_AT_ONCE:
            continue
        if progress.final:
            yield _sse("end", after, progress)
            return
        if time.monotonic() - spoken > HEARTBEAT_S:
            spoken = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(WATCH_EVERY_S)


def _sse(name: str, number: int, view: BaseModel) -> str:
    return f"id: {number}\nevent: {name}\ndata: {view.model_dump_json()}\n\n"


def _event_number(text: str | None) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidValue(f"{text[:40]!r} is not the id of an event.", field="Last-Event-ID")
    return int(text)


def announced_size(request: Request) -> int | None:
    """Content-Length, if it was sent."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
