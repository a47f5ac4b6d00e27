"""Reading tar and zip archives of models, which come from anywhere: nothing in one may reach outside its package.

Links, devices, absolute or climbing paths, encrypted members and archives that unpack to far more than they are
(bombs) are refused by the member's name, before anything of them is a package. Used by `services.packages`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from tidemill.domain.errors import InvalidValue, TooLarge
from tidemill.domain.package import FILES_MAX, PackageFile, check_path, is_ignored

CHUNK_BYTES = 1024 * 1024
HEADER_BYTES_MAX = 16 * 1024 * 1024
"""tarfile reads a member's extended header in one piece; no honest one is larger."""
RATIO_MAX = 200
"""Model weights hardly compress and text by 20; what unpacks to more than 200 times its size is a bomb …"""
RATIO_FROM_BYTES = 256 * 1024 * 1024
"""… once it is so large that it does harm."""
PACKAGE_FOLDERS = frozenset({"model", "batch"})
"""Top folders that mean something; any other single one is only what the archive was packed from."""


@dataclass(frozen=True)
class Member:
    """One file of an archive. content can be read once, before the next member is asked for."""

    path: str
    executable: bool
    content: Iterator[bytes]


def read_archive(path: Path, *, limit_bytes: int) -> Iterator[Member]:
    """The files of an archive, in its order. limit_bytes: of all files together, unpacked.

    Raises InvalidValue or TooLarge naming the member.
    """
    budget = _Budget(path.stat().st_size, limit_bytes)
    with _unreadable():
        for member in _read_zip(path, budget) if zipfile.is_zipfile(path) else _read_tar(path, budget):
            if not is_ignored(member.path):
                yield member
            for _ in member.content:  # what nobody wanted counts too: it has to be unpacked to get past it
                pass


def without_wrapper(files: list[PackageFile]) -> list[PackageFile]:
    """The files with a single top folder taken off, if all lie in one that means nothing to us."""
    tops = {file.path.split("/", 1)[0] for file in files}
    if len(tops) != 1 or tops & PACKAGE_FOLDERS or any("/" not in file.path for file in files):
        return files
    return [replace(file, path=file.path.split("/", 1)[1]) for file in files]


class _Budget:
    """How much may still come out of an archive."""

    def __init__(self, archive_bytes: int, limit_bytes: int) -> None:
        self._archive_bytes = archive_bytes
        self._limit_bytes = limit_bytes
        self._files = 0
        self._bytes = 0

    def one_more_file(self) -> None:
        self._files += 1
        if self._files > FILES_MAX:
            raise TooLarge(f"the archive has more than {FILES_MAX} files.", field="archive")

    def take(self, count: int, name: str) -> None:
        self._bytes += count
        if self._bytes > self._limit_bytes:
            raise TooLarge(f"the archive unpacks to more than {self._limit_bytes} bytes.", field="archive")
        if self._bytes > max(RATIO_FROM_BYTES, self._archive_bytes * RATIO_MAX):
            raise TooLarge(
                f"the archive unpacks to more than {RATIO_MAX} times its size, at {name!r}.",
                field="archive",
                remedy="Import the unpacked folder if it is what it should be.",
            )

    def read(self, stream: IO[bytes], name: str) -> Iterator[bytes]:
        with _unreadable():
            while chunk := stream.read(CHUNK_BYTES):
                self.take(len(chunk), name)
                yield chunk


class _Unpacked(io.RawIOBase):
    """An unpacked stream that gives no more than a member's chunk at a time."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_BYTES_MAX:
            raise TooLarge(f"a header of the archive is larger than {HEADER_BYTES_MAX} bytes.", field="archive")
        return self._stream.read(size)


def _unpacked(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path))
    if magic.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.open(path))
    if magic == b"\xfd7zXZ\x00":
        return cast("IO[bytes]", lzma.open(path))
    return path.open("rb")


def _read_tar(path: Path, budget: _Budget) -> Iterator[Member]:
    with _unpacked(path) as stream, tarfile.open(fileobj=cast("IO[bytes]", _Unpacked(stream)), mode="r:") as archive:
        for member in archive:
            name = member.name
            while name.startswith("./"):
                name = name[2:]
            budget.one_more_file()
            if member.isdir() or name in ("", "."):
                if name not in ("", "."):
                    check_path(name.rstrip("/"), field="archive")
                continue
            check_path(name, field="archive")
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise _not_a_file(name)
            yield Member(name, bool(member.mode & 0o100), budget.read(content, name))


def _read_zip(path: Path, budget: _Budget) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            budget.one_more_file()
            mode = member.external_attr >> 16
            if member.is_dir():
                check_path(member.filename.rstrip("/"), field="archive")
                continue
            check_path(member.filename, field="archive")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _not_a_file(member.filename)
            with archive.open(member) as stream:
                yield Member(member.filename, bool(mode & 0o100), budget.read(stream, member.filename))


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    """What the readers raise over a damaged archive, in our words."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise InvalidValue(
            f"it cannot be read as a tar or zip archive: {error}.",
            field="archive",
            remedy="Make it with `tar -czf model.tgz -C FOLDER .` or with zip, without a password.",
        ) from error


def _not_a_file(name: str) -> InvalidValue:
    return InvalidValue(
        f"{name[:200]!r} is a link or a device.",
        field="archive",
        remedy="Pack the files themselves (tar -h, zip without -y).",
    )
