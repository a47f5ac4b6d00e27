"""Downloading into files: whole or not at all, and going on where a broken connection left off."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

import httpx

from tidemill.client.connection import Connection, Params, patient
from tidemill.domain.errors import InvalidValue, StorageFull


def download(connection: Connection, path: str, params: Params, target: Path) -> Path:
    """Writes what a GET answers into `target`. Raises the server's error, or ServerUnreachable after several tries."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            etag: str | None = None
            for attempt in patient():
                with attempt:
                    headers = {"Range": f"bytes={file.tell()}-"} if file.tell() else {}
                    with connection.stream(path, params=params, headers=headers) as response:
                        if file.tell() and (response.status_code != 206 or response.headers.get("etag") != etag):
                            file.seek(0)  # it is another object by now, or came whole
                            file.truncate()
                            if response.status_code == 206:
                                raise httpx.ReadError("the object changed")
                        etag = response.headers.get("etag")
                        for chunk in response.iter_bytes():
                            file.write(chunk)
        temporary.replace(target)
    except OSError as error:
        if error.errno == 28:
            raise StorageFull(f"no space is left for {target}.", remedy="Make room, and try again.") from error
        raise InvalidValue(f"{target} cannot be written: {error.strerror}.", field="target") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return target
