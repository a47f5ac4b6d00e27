"""Local folders as packages: which files they hold, and their digests.

Used by the client's uploads and by imports of the operator's own folders.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.package import PackageFile, check_package, is_ignored


def scan_folder(folder: Path, *, field: str) -> list[PackageFile]:
    """The files of a folder as a package, links followed. Reads all of it.

    Raises NotFound or InvalidValue naming `field`, for what no package can hold.
    """
    check_folder(folder, field=field)
    files = []
    for path, file in folder_files(folder):
        try:
            sha256, size = _digest(file)
        except OSError as error:
            raise InvalidValue(f"{str(file)!r} cannot be read: {error.strerror}.", field=field) from error
        files.append(PackageFile(path, sha256, size, bool(file.stat().st_mode & 0o100)))
    return check_package(files, field=field)


def folder_stamp(folder: Path, *, field: str) -> str:
    """Changes with any write to the folder's files that the file system can tell; read without opening one."""
    check_folder(folder, field=field)
    digest = hashlib.sha256()
    for path, file in folder_files(folder):
        found = file.stat()
        seen = (path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_mode)
        digest.update(repr(seen).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def check_folder(folder: Path, *, field: str) -> None:
    """Raises NotFound or InvalidValue unless it is one."""
    if folder.is_dir():
        return
    if folder.exists():
        raise InvalidValue(f"{str(folder)!r} is a file.", field=field, remedy="Give the folder that holds it.")
    raise NotFound(f"there is no folder {str(folder)!r}.", field=field, remedy="Check the path.")


def folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files that belong to a package, by their path in it, in a fixed order. Links are followed, but for those that
    lead back up; a folder that two lead to is there twice.
    """
    above: dict[Path, frozenset[tuple[int, int]]] = {}
    for top, folders, names in os.walk(folder, followlinks=True):
        here = Path(top)
        found, passed = here.stat(), above.get(here.parent, frozenset())
        if (found.st_dev, found.st_ino) in passed:
            folders.clear()
            continue
        above[here] = passed | {(found.st_dev, found.st_ino)}
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            if not is_ignored(name) and (here / name).is_file():
                yield (here / name).relative_to(folder).as_posix(), here / name


def _digest(file: Path) -> tuple[str, int]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest, stream.tell()
