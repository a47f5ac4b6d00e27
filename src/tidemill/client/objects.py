"""`client.objects`: inputs into the buckets of a server, results out of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidemill.client.connection import Connection, Params
from tidemill.client.downloads import download
from tidemill.client.packages import read_chunks
from tidemill.client.paging import every
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.wire.package_views import ObjectView
from tidemill.wire.views import DeletedView, Page

_CONTENT = "/api/v1/objects/content"


class ObjectsClient:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(
        self, path: str, *, region: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[ObjectView]:
        """One page of what lies below a folder, by name."""
        params = {"path": path, "region": region, "limit": limit, "cursor": cursor}
        return self._connection.get("/api/v1/objects", Page[ObjectView], params)

    def all(self, path: str, *, region: str | None = None) -> Iterator[ObjectView]:
        """Everything below a folder, by name."""
        return every(lambda cursor: self.list(path, region=region, limit=1000, cursor=cursor))

    def put(self, path: str, source: str | os.PathLike[str] | bytes, *, region: str | None = None) -> ObjectView:
        """Writes one object: a local file, or these bytes. Replaces what is there."""
        params = {"path": path, "region": region}
        if isinstance(source, bytes):
            return self._connection.put(_CONTENT, ObjectView, source, params, size=len(source))
        file = Path(source)
        if not file.is_file():
            raise NotFound(f"there is no file {str(file)!r}.", field="source", remedy="Check the path.")
        return self._connection.put(_CONTENT, ObjectView, lambda: read_chunks(file), params, size=file.stat().st_size)

    def put_folder(
        self, path: str, folder: str | os.PathLike[str], *, region: str | None = None
    ) -> Sequence[ObjectView]:
        """Writes every file of a local folder below `path`."""
        source = Path(folder)
        if not source.is_dir():
            raise NotFound(f"there is no folder {str(source)!r}.", field="folder", remedy="Check the path.")
        target = path.rstrip("/") + "/"
        files = sorted(file for file in source.rglob("*") if file.is_file())
        return [self.put(target + file.relative_to(source).as_posix(), file, region=region) for file in files]

    def read(self, path: str, *, region: str | None = None, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes [start, stop) of an object."""
        headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else None
        if stop is not None and stop <= start:
            return b""
        return self._connection.send("GET", _CONTENT, params={"path": path, "region": region}, headers=headers).content

    def get(self, path: str, target: str | os.PathLike[str], *, region: str | None = None) -> Path:
        """Downloads one object into a local file, replacing it; nobody sees half of it."""
        return download(self._connection, _CONTENT, {"path": path, "region": region}, Path(target))

    def get_folder(self, path: str, target: str | os.PathLike[str], *, region: str | None = None) -> Sequence[Path]:
        """Downloads everything below `path` into a local folder."""
        folder = Path(target)
        found = []
        for view in self.all(path, region=region):
            if any(part in ("", ".", "..") or os.sep in part for part in view.name.split("/")):
                raise InvalidValue(f"{view.name!r} cannot be a file's name here.", field="path")
            found.append(self.get(view.location, folder.joinpath(*view.name.split("/")), region=region))
        return found

    def delete(self, path: str, *, recursive: bool = False, region: str | None = None) -> DeletedView:
        """Removes one object, or with `recursive` all below a folder. What is not there is no error."""
        params: Params = {"path": path, "recursive": recursive, "region": region}
        return self._connection.delete("/api/v1/objects", DeletedView, params)
