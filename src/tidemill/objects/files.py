"""Files under their rules: unnamed temporaries, walks in byte order, errors in our words. Used by `objects.local`."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

from tidemill.domain.errors import (
    Conflict,
    InvalidValue,
    NotFound,
    StorageDenied,
    StorageFull,
    StorageUnavailable,
    TidemillError,
)

T = TypeVar("T")
TEMPORARY = ".~tidemill-"
"""Begins the names of temporary files, which are no objects and are never listed."""

_ATTEMPTS = 50
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


def translated(error: OSError, where: object) -> TidemillError:
    """What an error of the operating system means for the object at `where`."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.ENXIO):
        return NotFound(f"{where} is not there.")
    if error.errno in _DENIED:
        return StorageDenied(f"{where}: {reason}.", remedy="Check who owns the folder and what it permits.")
    if error.errno in _FULL:
        return StorageFull(f"{where}: {reason}.", remedy="Free some space; work goes on where it was.")
    if error.errno in _NAMES:
        return InvalidValue(f"{where} cannot be a file's name: {reason}.", remedy="Rename it.")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
        return Conflict(f"{where}: a file is where a folder has to be, or a folder where a file has to be ({reason}).")
    return StorageUnavailable(f"{where}: {reason}.")


@contextmanager
def our_words(where: object) -> Iterator[None]:
    """Raises what the system's errors inside mean for the object at `where`."""
    try:
        yield
    except OSError as error:
        raise translated(error, where) from error


class Temporary:
    """A file without a name in the folder of its target: it vanishes by itself if its writer is killed.

    File systems that cannot do that get a named one at `fallback`, which the caller's cleaning knows of.
    """

    def __init__(self, folder: str, fallback: str | None = None) -> None:
        self._name: str | None = None
        self._fd = _unnamed(folder)
        if self._fd < 0:
            self._name = name = fallback or temporary_name(folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = in_folder(os.path.dirname(name), lambda: os.open(name, flags, 0o666))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if self._name is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._name)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def link(self, path: str) -> None:
        """Gives the file its name. Raises FileExistsError if something has it: one of many wins."""
        in_folder(os.path.dirname(path), lambda: self._link(path))

    def _link(self, path: str) -> None:
        if self._name is None:
            # Python follows links only if it is given a descriptor too; beside an absolute path that means nothing.
            os.link(f"/proc/self/fd/{self._fd}", path, src_dir_fd=self._fd, follow_symlinks=True)
        else:
            os.link(self._name, path)

    def replace(self, path: str) -> None:
        """Gives the file its name, in the place of whatever had it."""
        try:
            self.link(path)
        except FileExistsError:
            if self._name is None:
                replace_by(self.link, path)
            else:
                os.replace(self._name, path)


def replace_by(link: Callable[[str], None], path: str) -> None:
    """Moves what `link` can name onto `path`; a link cannot replace, a rename can."""
    name = temporary_name(os.path.dirname(path))
    link(name)
    try:
        os.replace(name, path)
    finally:
        with suppress(FileNotFoundError):  # rename leaves both names of one file as they are
            os.unlink(name)


def in_folder(folder: str, make: Callable[[], T]) -> T:
    """What `make` makes in a folder that may have to be made first.

    Again and again: whoever deletes the last object of a folder removes the folder too, and may do so in between.
    """
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            return make()
        try:
            os.makedirs(folder, exist_ok=True)
        except FileExistsError:
            if os.path.lexists(folder) and not os.path.isdir(folder):
                raise
        except FileNotFoundError:  # one above it was removed in between
            continue
    return make()


def temporary_name(folder: str) -> str:
    """A free name in the folder for what is not to be listed."""
    return f"{folder}/{TEMPORARY}{secrets.token_hex(8)}"


def _unnamed(folder: str) -> int:
    """A descriptor of an unnamed file, or -1 where there are none."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.isdir("/proc/self/fd"):
        return -1
    try:
        return os.open(folder, flag | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        # EPERM is what ext4 says of a folder that is just being removed; a named file then tells what is the matter.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EPERM):
            return -1
        raise


def open_regular(path: str) -> int:
    """A descriptor for reading. Raises FileNotFoundError for anything but a file (opening a pipe would wait)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
    return descriptor


def walk(folder: str, within: str | None, after: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Files below a folder as (path below it, stat), in byte order of the paths.

    Links are followed: to anywhere, or only to what lies inside the real path `within`; never in circles. Files that
    vanish meanwhile, pipes, sockets, devices and temporaries are none. after: only paths behind it; folders before it
    are not entered.
    """
    top = _identity(folder)
    if top is None:
        return
    ancestors = [top]
    pending = [_sorted_entries(folder, "", within)]
    while pending:
        for name, path, is_folder in pending[-1]:
            if name <= after and not (is_folder and after.startswith(name)):
                continue
            if is_folder:
                here = _identity(path)
                if here is not None and here not in ancestors:
                    ancestors.append(here)
                    pending.append(_sorted_entries(path, name, within))
                    break
                continue
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                yield name, found
        else:
            pending.pop()
            ancestors.pop()


def _identity(folder: str) -> tuple[int, int] | None:
    """None if it is no folder (any more)."""
    try:
        found = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _sorted_entries(folder: str, prefix: str, within: str | None) -> Iterator[tuple[str, str, bool]]:
    """(name, path, is a folder). A folder's name ends in `/` and sorts so: `a-b` comes before `a/`, as in a bucket.

    Code points sort as their UTF-8 bytes do.
    """
    found: list[tuple[str, str, bool]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(TEMPORARY) or (entry.is_symlink() and not _may_follow(entry.path, within)):
                    continue
                try:
                    is_folder = entry.is_dir()
                except OSError:  # a link that leads in a circle
                    continue
                found.append((prefix + entry.name + ("/" if is_folder else ""), entry.path, is_folder))
    except FileNotFoundError:
        return iter(())
    for name, _, _ in found:
        if not name.isascii():
            _check_utf8(name, folder)
    found.sort()
    return iter(found)


def _may_follow(path: str, within: str | None) -> bool:
    return within is None or is_within(os.path.realpath(path), within)


def is_within(real: str, root: str) -> bool:
    """Whether a path without links is `root` or lies below it."""
    return real == root or real.startswith(root.rstrip("/") + "/")


def _check_utf8(name: str, folder: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(name)
        raise InvalidValue(f"{folder} holds {shown!r}, a name that is not UTF-8.", remedy="Rename it.") from error


def syncfs(folder: str) -> None:
    """Writes the folder's whole file system to the disk: one call, however many files."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if call(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), folder)
    finally:
        os.close(descriptor)
