"""Objects as files, by the operating system directly (why not by obstore: docs/adr/0003-local-objects.md).

Built by `objects.region`: without a root for plain paths, with one for a bucket that is a folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from tidemill.domain.errors import Conflict, InvalidValue, StorageDenied
from tidemill.domain.location import Location
from tidemill.objects.assembly import Assembly, check_size
from tidemill.objects.files import (
    Temporary,
    in_folder,
    is_within,
    open_regular,
    our_words,
    replace_by,
    syncfs,
    translated,
    walk,
)
from tidemill.ports.objects import Composed, ObjectInfo, Objects, Piece
from tidemill_runtime.contract import Access, local_etag

CHUNK_BYTES = 1024 * 1024


class LocalObjects(Objects):
    """root: the folder that a bucket is, of which nothing leads out, links included; None: keys are absolute paths."""

    def __init__(self, root: str | None) -> None:
        self._root = None if root is None else os.path.realpath(root)
        self._mode = 0o666 & ~_umask()

    def list(self, folder: Location, after: str = "") -> Iterator[ObjectInfo]:
        path = self._to_read(folder.as_folder())
        with our_words(folder):
            for name, found in walk(path, self._root, after):
                etag = local_etag(found.st_size, found.st_mtime_ns, found.st_ino)
                yield ObjectInfo(name, found.st_size, etag, found.st_mtime)

    def head(self, location: Location) -> ObjectInfo | None:
        if location.is_folder:
            return None
        try:
            found = os.stat(self._to_read(location))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise translated(error, location) from error
        if not stat.S_ISREG(found.st_mode):
            return None
        etag = local_etag(found.st_size, found.st_mtime_ns, found.st_ino)
        return ObjectInfo(location.key.rpartition("/")[2], found.st_size, etag, found.st_mtime)

    def is_folder(self, location: Location) -> bool:
        return os.path.isdir(self._to_read(location.as_folder()))

    def read(self, location: Location, start: int = 0, stop: int | None = None) -> bytes:
        return b"".join(self.stream(location, start, stop))

    def stream(self, location: Location, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        path = self._to_read(location)
        with our_words(location):
            descriptor = open_regular(path)
            try:
                while stop is None or start < stop:
                    wanted = CHUNK_BYTES if stop is None else min(CHUNK_BYTES, stop - start)
                    chunk = os.pread(descriptor, wanted, start)
                    if not chunk:
                        return
                    start += len(chunk)
                    yield chunk
            finally:
                os.close(descriptor)

    def put(self, location: Location, data: bytes | Iterable[bytes]) -> None:
        path = self._to_write(location)
        with our_words(location), self._temporary(path) as temporary:
            for chunk in (data,) if isinstance(data, bytes) else data:
                temporary.write(chunk)
            temporary.replace(path)

    def create(self, location: Location, data: bytes) -> bool:
        path = self._to_write(location)
        with our_words(location), self._temporary(path) as temporary:
            temporary.write(data)
            try:
                temporary.link(path)
            except FileExistsError:
                return False
        return True

    def compose(
        self, target: Location, pieces: Sequence[bytes | Piece], *, staging: Location, replace: bool = False
    ) -> Composed:
        path = self._to_write(target)
        assembly = Assembly(pieces, self._stream_piece)
        with our_words(target):
            if not replace and os.path.lexists(path):
                return self._same(target, assembly.run())
            whole = self._whole_file(pieces)
            if whole is not None:
                assembly.run()
                if self._linked(whole, path, replace=replace):
                    return assembly.made
            if whole is not None:  # it could not be linked, or the target has come to be meanwhile
                assembly = Assembly(pieces, self._stream_piece)
            with self._temporary(path, self._to_write(staging)) as temporary:
                for chunk in assembly:
                    temporary.write(chunk)
                if replace:
                    temporary.replace(path)
                    return assembly.made
                try:
                    temporary.link(path)
                except FileExistsError:
                    return self._same(target, assembly.made)
        return assembly.made

    def copy(
        self, source: Location, target: Location, *, size: int, sha256: str, staging: Location, replace: bool = False
    ) -> None:
        check_size(self.head(source), source, size)
        origin, path = self._to_read(source), self._to_write(target)
        with our_words(target):
            if os.path.lexists(path) and os.path.samefile(origin, path):
                return
            if not os.path.islink(origin) and self._linked(origin, path, replace=replace):
                return
        self.compose(target, [Piece(source, 0, size, sha256)], staging=staging, replace=replace)

    def delete(self, locations: Iterable[Location]) -> None:
        for location in locations:
            path = self._to_write(location)
            with our_words(location), suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
                with suppress(OSError):  # a folder is there as long as something is in it
                    os.rmdir(os.path.dirname(path))

    def delete_below(self, folder: Location) -> None:
        path = self._to_write(folder.as_folder()).rstrip("/")
        if not path:
            raise InvalidValue("everything below / is not a folder to be deleted.")
        with our_words(folder):
            if os.path.islink(path):
                raise Conflict(f"{folder} is a link.", remedy="Name the folder that it leads to.")
            shutil.rmtree(path, onerror=_unless_gone)
            if path == self._root:
                os.makedirs(path, exist_ok=True)
            elif os.path.dirname(path) != self._root:
                with suppress(OSError):  # as for `delete`
                    os.rmdir(os.path.dirname(path))

    def sync(self, folder: Location) -> None:
        with our_words(folder):
            syncfs(_nearest_folder(self._to_read(folder)))

    def grant_read(self, location: Location, ttl_s: float) -> Access:
        return Access("path", self._to_read(location))

    def grant_write(self, location: Location, ttl_s: float) -> Access:
        path = self._to_write(location)
        with our_words(location):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return Access("path", path)

    def check_writable(self, folder: Location) -> None:
        path = self._to_write(folder.as_folder())
        with our_words(folder):
            nearest = _nearest_folder(path)
            if not os.path.isdir(nearest):
                raise InvalidValue(f"{nearest} is a file, not a folder.", remedy="Name another folder.")
            try:
                with Temporary(nearest.rstrip("/") or "/") as temporary:
                    temporary.write(b"tidemill")
            except FileNotFoundError as error:  # so does /proc answer, where nobody can make a file
                raise StorageDenied(f"{nearest} cannot be written to.", remedy="Name another folder.") from error

    def _to_read(self, location: Location) -> str:
        """The path, with links resolved in a bucket so that none leads out of it."""
        path = self._plain(location)
        if self._root is None:
            return path
        return self._inside(os.path.realpath(path), location)

    def _to_write(self, location: Location) -> str:
        """The path: what is written replaces a last link and goes through none that leads out of the bucket."""
        path = self._plain(location)
        if self._root is None or path.rstrip("/") == self._root:
            return path
        folder, _, name = path.rstrip("/").rpartition("/")
        return self._inside(os.path.realpath(folder), location) + "/" + name

    def _plain(self, location: Location) -> str:
        key = location.key
        if any(part in (".", "..") for part in key.split("/")) or "\0" in key or "//" in key:
            raise InvalidValue(f"{location} has an empty, `.` or `..` part.", remedy="Write the path without it.")
        if self._root is None:
            if not key.startswith("/"):
                raise InvalidValue(f"{location} is not an absolute path.", remedy="Give it from the root on.")
            return key
        if key.startswith("/"):
            raise InvalidValue(f"{location} has an empty part.", remedy="Write the path without it.")
        return f"{self._root}/{key}"

    def _inside(self, real: str, location: Location) -> str:
        assert self._root is not None
        if not is_within(real, self._root):
            raise StorageDenied(f"{location} leads out of its bucket by a link.", remedy="Remove the link.")
        return real

    def _temporary(self, path: str, fallback: str | None = None) -> Temporary:
        folder = os.path.dirname(path)
        return in_folder(folder, lambda: Temporary(folder, fallback))

    def _stream_piece(self, piece: Piece) -> Iterator[bytes]:
        return self.stream(piece.location, piece.start, piece.stop)

    def _whole_file(self, pieces: Sequence[bytes | Piece]) -> str | None:
        """The path of the one file that the pieces are, if that is all they are."""
        if len(pieces) != 1 or isinstance(pieces[0], bytes) or pieces[0].start != 0:
            return None
        found = self.head(pieces[0].location)
        if found is None or pieces[0].stop not in (None, found.size):
            return None
        path = self._to_read(pieces[0].location)
        return None if os.path.islink(path) else path

    def _linked(self, source: str, path: str, *, replace: bool) -> bool:
        """Whether the file, the bytes of which are known to be right, has got a second name.

        Nothing is ever written in place, so that deleting the first name leaves the second as it is.
        """

        def link(name: str) -> None:
            in_folder(os.path.dirname(name), lambda: os.link(source, name, follow_symlinks=False))

        try:
            if stat.S_IMODE(os.stat(source).st_mode) != self._mode:
                os.chmod(source, self._mode)  # a part is its writer's own, a result is for others too
            replace_by(link, path) if replace else link(path)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EEXIST):
                return False
            raise
        return True

    def _same(self, target: Location, made: Composed) -> Composed:
        """`made`, if the target is just that. Raises Conflict otherwise."""
        found = self.head(target)
        if found is not None and found.size == made.size:
            digest = hashlib.sha256()
            for chunk in self.stream(target):
                digest.update(chunk)
            if digest.hexdigest() == made.sha256:
                return made
        raise Conflict(f"{target} is there already, with other content.", remedy="Move it away or use another folder.")


def _unless_gone(_call: object, _path: str, raised: tuple[type[BaseException], BaseException, object]) -> None:
    """What somebody else has removed meanwhile is no reason to leave the rest."""
    if not isinstance(raised[1], (FileNotFoundError, NotADirectoryError)):
        raise raised[1]


def _umask() -> int:
    """Can only be read by setting it; done while the stores are built, before anything else runs."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _nearest_folder(path: str) -> str:
    """The path itself, or the nearest above it that exists."""
    while True:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            path = os.path.dirname(path.rstrip("/"))
        else:
            return path
