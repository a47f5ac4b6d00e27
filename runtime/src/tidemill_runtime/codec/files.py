"""Whole files as records: the model gets a local path, or what is in it if it takes bytes. Used by the worker for
format `file`.

A file behind a URL is brought into the scratch folder for its mini-batch and removed after it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from tidemill_runtime.codec.records import Bad, columns_of
from tidemill_runtime.faults import FatalError
from tidemill_runtime.source import changed, file_etag, open_source, unreadable

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, InputObject, Lease

BLOCK_FILES = 32
_COPY_BYTES = 1024 * 1024


class FileReader:
    """A lease's objects, BLOCK_FILES at a time. A block's begin is 0, its end the index of the object after it."""

    def __init__(
        self, lease: Lease, form: InputFormat, scratch: str, forced: dict[int, dict[int, int]], shape: str = "record"
    ) -> None:
        self._lease = lease
        self._contents = shape == "bytes"
        self._form = form
        self._scratch = os.path.join(scratch, f"files-{os.getpid()}")
        self._forced = forced
        self._open: list[InputObject] = []

    def blocks(self) -> Iterator[FileRecords]:
        index, total = self._lease.cursor.object, len(self._lease.objects)
        while index < total:
            nearest = min((each for each in self._forced if each > index), default=total)
            count = min(BLOCK_FILES, total - index, nearest - index)
            if index in self._forced:
                count = self._forced[index][0] - index
            block = self._lease.objects[index : index + count]
            self._open = block
            yield FileRecords(index, block, [self._path(each) for each in block], self._contents)
            self.check()
            self._clean()
            index += count

    def check(self) -> None:
        """The local files of the block are still those that were listed."""
        for listed in self._open:
            if listed.get.kind == "path":
                _check(listed)

    def close(self) -> None:
        self._open = []
        self._clean()

    def _path(self, listed: InputObject) -> str:
        if listed.get.kind == "path":
            _check(listed)
            if self._form.compression == "none":
                return listed.get.location
        folder = os.path.join(self._scratch, str(listed.ordinal))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, os.path.basename(listed.name))
        source = open_source(listed, 0, self._form.compression)
        buffer = memoryview(bytearray(_COPY_BYTES))
        try:
            with open(path, "wb") as file:
                while True:
                    count = source.readinto(buffer)
                    if not count:
                        break
                    file.write(buffer[:count])
        except OSError as error:
            raise FatalError(
                "staging_failed", f"{listed.name} could not be brought into scratch: {error}", str(error)
            ) from error
        finally:
            source.close()
        return path

    def _clean(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


def _check(listed: InputObject) -> None:
    try:
        now = file_etag(os.stat(listed.get.location))
    except FileNotFoundError:
        raise changed(listed, "no such file") from None
    except OSError as error:
        raise unreadable(listed, error) from error
    if now != listed.etag:
        raise changed(listed, now)


class FileRecords:
    """A few files; see `Records`. contents: items are what the files hold, read when they are asked for."""

    item_rows: Optional[list[int]] = None
    begin = 0
    of_files = True

    def __init__(self, index: int, objects: list[InputObject], paths: list[str], contents: bool = False) -> None:
        self.object = index
        self.end = index + len(objects)
        self.rows = self.size = len(objects)
        self.bad: dict[int, Bad] = {}
        self._objects = objects
        self._paths = paths
        self._contents = contents

    def items(self, first: int, stop: int) -> list[Any]:
        if not self._contents:
            return self._paths[first:stop]
        return [self._content(at) for at in range(first, stop)]

    def _content(self, at: int) -> bytes:
        try:
            with open(self._paths[at], "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            raise unreadable(self._objects[at], error) from error

    def fresh(self, first: int, stop: int) -> list[Any]:
        return self.items(first, stop)

    def fields(self, first: int, stop: int) -> list[Any]:
        return [{"path": each.name} for each in self._objects[first:stop]]

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        return columns_of(self.fields(first, stop), names)

    def raw(self, row: int) -> bytes:
        """A file is too much to be kept in an error: its name is."""
        return self._objects[row].name.encode()

    def cursor(self, row: int) -> tuple[int, int]:
        return self.object + row, 0
