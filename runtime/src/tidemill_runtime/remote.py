"""Reading and writing one object by a URL that was signed for it. Used by source and sink where access is by URL.

A store that is slow, throttles or answers 503 is asked again for more than a minute; what it says for good ends the
instance.
"""

from __future__ import annotations

import random
import re
import time
from typing import IO, TYPE_CHECKING, Any, Optional, Union

import urllib3

from tidemill_runtime.faults import FatalError
from tidemill_runtime.source import changed
from tidemill_runtime.waits import Wait

if TYPE_CHECKING:
    from tidemill_runtime.contract import Access, InputObject, PartTarget

WINDOW_BYTES = 8 * 1024 * 1024
"""What one ranged request asks for."""
PATIENCE_S = 100.0
PAUSE_MOST_S = 8.0

_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUT = urllib3.Timeout(connect=10.0, read=30.0)
_pool = urllib3.PoolManager(maxsize=4)  # made in a worker, after the fork: it shares no connection


class _Trouble(Exception):
    """A failure that may pass."""


class UrlSource:
    """An object behind a signed URL, fetched in windows; If-Match says when it is no longer the one that was listed."""

    def __init__(self, listed: InputObject, offset: int) -> None:
        self._listed = listed
        self._offset = offset
        self._window = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        if not self._window:
            if self._offset >= self._listed.size:
                return 0
            self._window = memoryview(self._fetch())
        count = min(len(buffer), len(self._window))
        buffer[:count] = self._window[:count]
        self._window = self._window[count:]
        self._offset += count
        return count

    def read_range(self, offset: int, count: int) -> bytes:
        """Any range of the object; for formats that are not read in order."""
        self._offset = offset
        found = bytearray()
        while len(found) < count and self._offset < self._listed.size:
            piece = self._fetch(count - len(found))
            found += piece
            self._offset += len(piece)
        return bytes(found)

    def check(self) -> None:
        """Each request has said it already."""

    def close(self) -> None:
        self._window = memoryview(b"")

    def _fetch(self, most: int = WINDOW_BYTES) -> bytes:
        listed = self._listed
        last = min(self._offset + most, listed.size) - 1

        def fetch() -> bytes:
            headers = {"Range": f"bytes={self._offset}-{last}"}
            if listed.etag:
                headers["If-Match"] = listed.etag
            response = _request("GET", listed.get, headers, None)
            if response.status in (404, 412, 416):
                raise changed(listed, f"HTTP {response.status}")
            if response.status not in (200, 206):
                raise _refused("input_unreadable", f"{listed.name} cannot be read", response)
            data = bytes(response.data)
            if response.status == 200:
                data = data[self._offset : last + 1]
            if not data:
                raise _Trouble("the answer is empty")
            return data

        fetched: bytes = _patiently(fetch, "input_unreadable", f"{listed.name} cannot be read")
        return fetched


def put_object(target: PartTarget, body: Union[bytes, IO[bytes]], size: int) -> None:
    """One PUT of the whole part; the part's name is its lease's own, so doing it again does no harm."""

    def put() -> None:
        if not isinstance(body, bytes):
            body.seek(0)
        response = _request("PUT", target.put, {"Content-Length": str(size)}, body)
        if response.status not in (200, 201, 204):
            raise _refused("staging_failed", f"the part {target.name} cannot be written", response)

    _patiently(put, "staging_failed", f"the part {target.name} cannot be written")


def _request(method: str, access: Access, headers: dict[str, str], body: Any) -> Any:
    """The answer, if it is one for good. Raises _Trouble."""
    try:
        response = _pool.request(
            method, access.location, headers={**access.headers, **headers}, body=body, timeout=_TIMEOUT, retries=False
        )
    except urllib3.exceptions.HTTPError as error:
        # Without the connection's own representation, which says nothing to people.
        raise _Trouble(f"{type(error).__name__}: {re.sub(r'<[^>]*>: ', '', str(error))}") from error
    if response.status in _AGAIN:
        raise _Trouble(f"the storage answers {_said(response)}")
    return response


def _patiently(attempt: Any, kind: str, message: str) -> Any:
    give_up_at = time.monotonic() + PATIENCE_S
    pause_s = 0.2
    with Wait() as wait:
        while True:
            try:
                return attempt()
            except _Trouble as trouble:
                if time.monotonic() + pause_s > give_up_at:
                    raise FatalError(
                        kind, f"{message} for {PATIENCE_S:.0f} s: {trouble}", evidence=str(trouble)
                    ) from trouble
                wait.again(f"{message}: {trouble}")
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(PAUSE_MOST_S, pause_s * 2)


def _refused(kind: str, message: str, response: Any) -> FatalError:
    text = _said(response)
    return FatalError(kind, f"{message}: {text}", evidence=text)


def _said(response: Any) -> str:
    """The status and the store's own words: those of S3's error document, or the beginning of what else it said."""
    data: Optional[bytes] = response.data
    text = (data or b"").decode("utf-8", "replace")
    found = [re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("Code", "Message")]
    said = ": ".join(each[1].strip().rstrip(".") for each in found if each) or text[:300].strip()
    return f"HTTP {response.status}{f' ({said})' if said else ''}"
