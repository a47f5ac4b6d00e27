"""Content-addressed files under the server's data folder: what models and code packages are made of.

    DIR/blobs/sha256/ab/abcdef…        one file per content, read-only, never changed
    DIR/blobs/incoming/<nonce>         uploads under way
    DIR/packages/<digest>/             packages as folders, read-only, shared by all tasks that use them

A package's list of files, in canonical form, is a blob too: its sha256 is the package's digest. Used by
`services.packages`; the folders are what instances see.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from tidemill.domain.errors import InvalidValue, NotFound, StorageFull, StorageUnavailable, TidemillError, TooLarge
from tidemill.domain.package import PackageFile, canonical, package_digest, parse_canonical

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1024 * 1024
FILE_MODE = 0o444
EXECUTABLE_MODE = 0o555
FOLDER_MODE = 0o755
SYNC_BYTES = 32 * 1024 * 1024
"""A long upload is handed to the disk in pieces of this, so that its end does not take a minute."""


class Blobs:
    """The blobs and package folders of one data folder. Safe for threads; one process owns the folder."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        """folder: the server's data folder. limit_bytes: a larger blob is refused."""
        self._blobs = folder / "blobs" / "sha256"
        self._incoming = folder / "blobs" / "incoming"
        self._packages = folder / "packages"
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()  # between "still wanted" and "swept away"
        for made in (self._blobs, self._incoming, self._packages):
            made.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        check_sha256(sha256)
        return self._blobs / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """The size in bytes of a blob that is here, None of one that is not. What is asked for counts as wanted."""
        path = self.path(sha256)
        with self._lock:
            try:
                os.utime(path)
                return path.stat().st_size
            except FileNotFoundError:
                return None

    def writer(self, sha256: str, *, size: int | None = None) -> BlobWriter:
        """What receives the content of a blob. size: as announced, if it was. Raises TooLarge."""
        if size is not None and size > self._limit_bytes:
            raise too_large(self._limit_bytes)
        self.path(sha256)  # refuses what is no digest
        return BlobWriter(self.path, self._incoming / secrets.token_hex(16), sha256, self._limit_bytes)

    def unnamed_writer(self) -> BlobWriter:
        """The same for content whose digest is known at its end (`BlobWriter.sha256`)."""
        return BlobWriter(self.path, self._incoming / secrets.token_hex(16), None, self._limit_bytes)

    def put(self, content: Iterable[bytes], sha256: str) -> int:
        """Stores a blob; its size. Raises InvalidValue if the content is another one."""
        with self.writer(sha256) as writer:
            for chunk in content:
                writer.write(chunk)
            return writer.finish()

    def put_package(self, files: list[PackageFile]) -> str:
        """Notes a package whose blobs are all here; its digest. Raises NotFound naming the first that is not."""
        for file in files:
            size = self.size(file.sha256)
            if size is None:
                raise NotFound(f"{file.path!r} is not uploaded.", field="files", remedy="Upload its content first.")
            if size != file.size:
                raise InvalidValue(
                    f"{file.path!r} is {size} bytes long, not {file.size}.", field="files", remedy="Read it again."
                )
        digest = package_digest(files)
        if self.size(digest) is None:
            self.put([canonical(files)], digest)
        return digest

    def package_files(self, digest: str) -> list[PackageFile]:
        """The files of a package that was put. Raises NotFound."""
        try:
            return parse_canonical(self.path(digest).read_bytes())
        except FileNotFoundError:
            raise NotFound(f"no package {digest}.", field="package", remedy="Upload it first.") from None

    def materialise(self, digest: str) -> Path:
        """The package as a read-only folder, made once and shared. Raises NotFound, StorageFull."""
        target = self._packages / digest
        if target.is_dir():
            return target
        files = self.package_files(digest)
        making = self._packages / f".making-{secrets.token_hex(8)}"
        try:
            with disk_errors():
                for file in files:
                    self._place(file, making / file.path)
                for folder, _, _ in os.walk(making):
                    os.chmod(folder, FOLDER_MODE)
                    sync_folder(Path(folder))
                os.rename(making, target)
                sync_folder(self._packages)
        except StorageUnavailable:
            if not target.is_dir():  # otherwise another thread was quicker
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return target

    def _place(self, file: PackageFile, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self.path(file.sha256)
        if not file.executable:  # a link shares its mode with the blob, so programs are copies
            try:
                os.link(source, path)
                return
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
                    raise
        shutil.copyfile(source, path)
        os.chmod(path, EXECUTABLE_MODE if file.executable else FILE_MODE)

    def sweep(self, packages: Callable[[], Iterable[str]], *, older_than_s: float) -> list[str]:
        """Removes what no package of `packages()` needs and nobody asked for in that time. Returns what was removed.

        packages is called after the age is noted, so that one which is made meanwhile keeps its blobs.
        """
        limit = time.time() - older_than_s
        old = [path for path in self._all_blobs() if _older(path, limit)]
        wanted: set[str] = set()
        kept = set(packages())
        for digest in kept:
            wanted.add(digest)
            wanted.update(file.sha256 for file in self.package_files(digest))
        removed = []
        for path in old:
            with self._lock:
                if path.name not in wanted and _older(path, limit):
                    path.unlink(missing_ok=True)
                    removed.append(f"blob {path.name}")
        for folder in self._packages.iterdir():
            if folder.name not in kept and _older(folder, limit):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(f"package {folder.name}")
        for path in self._incoming.iterdir():
            if _older(path, limit):
                path.unlink(missing_ok=True)
                removed.append(f"upload {path.name}")
        return removed

    def _all_blobs(self) -> Iterator[Path]:
        for folder in self._blobs.iterdir():
            yield from folder.iterdir()


class BlobWriter:
    """One upload: write, write, finish. Left without `finish`, nothing remains of it."""

    def __init__(self, place: Callable[[str], Path], temporary: Path, expected: str | None, limit_bytes: int) -> None:
        self._place = place
        self._temporary = temporary
        self._expected = expected
        self._limit_bytes = limit_bytes
        self._digest = hashlib.sha256()
        self._size = 0
        self._unsynced = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        with disk_errors():
            self._file = self._temporary.open("xb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Raises TooLarge, StorageFull."""
        assert self._file is not None
        self._size += len(chunk)
        if self._size > self._limit_bytes:
            raise too_large(self._limit_bytes)
        self._digest.update(chunk)
        with disk_errors():
            self._file.write(chunk)
            self._unsynced += len(chunk)
            if self._unsynced >= SYNC_BYTES:
                self._sync()

    def finish(self) -> int:
        """Puts the blob in its place; its size. Raises InvalidValue if the content is not what was announced."""
        assert self._file is not None
        if self._expected not in (None, self.sha256):
            raise InvalidValue(
                f"the content has the digest {self.sha256}, not {self._expected}.",
                field="sha256",
                remedy="Send it again; it was changed on its way, or the file changed.",
            )
        target = self._place(self.sha256)
        with disk_errors():
            self._sync()
            os.fchmod(self._file.fileno(), FILE_MODE)
            target.parent.mkdir(exist_ok=True)
            os.replace(self._temporary, target)
            sync_folder(target.parent)
        return self._size

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._digest.hexdigest()

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fdatasync(self._file.fileno())
        self._unsynced = 0


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Errors of the server's own disk in our words."""
    try:
        yield
    except OSError as error:
        raise _translated(error) from error


def _translated(error: OSError) -> TidemillError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("no space is left in the server's data folder.", remedy="Make room, and try again.")
    return StorageUnavailable(f"the server's data folder cannot be written: {error.strerror}.")


def check_sha256(text: str, *, field: str = "sha256") -> None:
    if not _SHA256.fullmatch(text):
        raise InvalidValue(f"{text[:80]!r} is not a sha256 in hex.", field=field, remedy="Give 64 digits of 0-9a-f.")


def too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the content is larger than {limit_bytes} bytes.", remedy="The server's settings say how much.")


def sync_folder(path: Path) -> None:
    """Makes names in a folder survive a loss of power."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _older(path: Path, limit: float) -> bool:
    try:
        return path.lstat().st_mtime < limit
    except FileNotFoundError:
        return False
