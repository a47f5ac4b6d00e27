"""Reading one input object in order, from a byte offset on: a local file, or a URL signed for it. Used by the codecs.

A source also says when the object is not the one that was listed: by the file's etag, before and after; by If-Match at
a store. What is mixed from two versions is never a result.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any, Optional, Protocol

from tidemill_runtime.faults import FatalError

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputObject

_STREAM_CHUNK = 1024 * 1024
_ZSTD_CHUNK = 16 * 1024


class Source(Protocol):
    """`readinto` fills a buffer from where the last call stopped, 0 at the end. `check` raises
    FatalError(input_changed).
    """

    def readinto(self, buffer: memoryview) -> int: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


def file_etag(stat: os.stat_result) -> str:
    """`contract.local_etag` of a file's status."""
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"


def changed(listed: InputObject, now: str) -> FatalError:
    """The object is not the one that was listed; now: its etag, or what became of it."""
    return FatalError(
        "input_changed",
        f"{listed.name} changed after the run was planned; start the task again to use it as it is now",
        evidence=f"{listed.name}: etag {listed.etag} when it was listed, {now} now",
    )


def unreadable(listed: InputObject, error: BaseException) -> FatalError:
    """The object cannot be read, which another attempt may cure."""
    return FatalError("input_unreadable", f"{listed.name} cannot be read: {error}", evidence=str(error))


def open_source(listed: InputObject, offset: int, compression: str) -> Source:
    """The object's bytes from `offset` on; for a compressed one the decompressed bytes, which must be read from the
    start.
    """
    start = 0 if compression != "none" else offset
    source: Source
    if listed.get.kind == "path":
        source = FileSource(listed, start)
    else:
        from tidemill_runtime.remote import UrlSource  # urllib3 costs 0.1 s, and local input does without

        source = UrlSource(listed, start)
    if compression == "none":
        return source
    inflated = GzipSource(listed, source) if compression == "gzip" else ZstdSource(listed, source)
    inflated.skip(offset)
    return inflated


class FileSource:
    """A local file, read by position so that nothing else shares the place."""

    def __init__(self, listed: InputObject, offset: int) -> None:
        self._listed = listed
        self._offset = offset
        try:
            self._fd = os.open(listed.get.location, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise changed(listed, "no such file") from None
        except OSError as error:
            raise unreadable(listed, error) from error
        self.check()

    def readinto(self, buffer: memoryview) -> int:
        try:
            count = os.preadv(self._fd, [buffer], self._offset)
        except OSError as error:
            raise unreadable(self._listed, error) from error
        self._offset += count
        return count

    def check(self) -> None:
        now = file_etag(os.fstat(self._fd))
        if now != self._listed.etag:
            raise changed(self._listed, now)

    def close(self) -> None:
        os.close(self._fd)


class _Inflated:
    """What both compressions share: members one after another, decompressed piece by piece."""

    def __init__(self, listed: InputObject, source: Source, chunk_bytes: int, error: type[Exception]) -> None:
        self._listed = listed
        self._source = source
        self._error = error
        self._buffer = bytearray(chunk_bytes)
        self._left = b""
        self._piece = memoryview(b"")
        self._member = self._new_member()
        self._inside = False

    def readinto(self, buffer: memoryview) -> int:
        while not self._piece:
            piece = self._inflate()
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def skip(self, count: int) -> None:
        scratch = memoryview(bytearray(_STREAM_CHUNK))
        while count > 0:
            got = self.readinto(scratch[: min(count, len(scratch))])
            if not got:
                return
            count -= got

    def check(self) -> None:
        self._source.check()

    def close(self) -> None:
        self._source.close()

    def _inflate(self) -> Optional[bytes]:
        """The next decompressed bytes, None at the end."""
        while True:
            if not self._left:
                count = self._source.readinto(memoryview(self._buffer))
                if not count:
                    if self._inside:
                        raise self._corrupt("the compressed data ends in the middle")
                    return None
                self._left = bytes(self._buffer[:count])
            if not self._inside and not self._left.strip(b"\0"):
                self._left = b""  # padding after the last member
                continue
            self._inside = True
            try:
                out, self._left = self._feed(self._left)
            except self._error as error:
                raise self._corrupt(error) from error
            if self._member.eof:
                self._left = self._member.unused_data
                self._member = self._new_member()
                self._inside = False
            if out:
                return out

    def _new_member(self) -> Any:
        raise NotImplementedError

    def _feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(decompressed, what was not taken yet)."""
        raise NotImplementedError

    def _corrupt(self, error: object) -> FatalError:
        self._source.check()
        return FatalError("format_mismatch", f"{self._listed.name} is damaged: {error}", evidence=str(error))


class GzipSource(_Inflated):
    """gzip, also of several members."""

    def __init__(self, listed: InputObject, source: Source) -> None:
        super().__init__(listed, source, _STREAM_CHUNK, zlib.error)

    def _new_member(self) -> Any:
        return zlib.decompressobj(wbits=31)

    def _feed(self, data: bytes) -> tuple[bytes, bytes]:
        return self._member.decompress(data, _STREAM_CHUNK), self._member.unconsumed_tail


class ZstdSource(_Inflated):
    """zstd, also of several frames."""

    def __init__(self, listed: InputObject, source: Source) -> None:
        try:
            import zstandard  # an extra: only where the input needs it
        except ImportError:
            raise FatalError(
                "missing_module", f"{listed.name} is compressed by zstd: install tidemill-runtime[zstd]", "zstandard"
            ) from None
        self._context: Any = zstandard.ZstdDecompressor()
        # A frame's output cannot be bounded but by what goes in at a time.
        super().__init__(listed, source, _ZSTD_CHUNK, zstandard.ZstdError)

    def _new_member(self) -> Any:
        return self._context.decompressobj()

    def _feed(self, data: bytes) -> tuple[bytes, bytes]:
        return self._member.decompress(data), b""
