"""Packages: folders of files that are known by the digest of their content (models and code).

Pure rules, shared by the server (which stores packages), the client (which uploads what is missing) and `tidemill run`
(which notes the digest in the receipt): which names a package may hold, and what its digest is.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from tidemill.domain.errors import InvalidValue, TooLarge

FILES_MAX = 100_000
"""More files than any model has; what has more is data, or somebody's whole environment."""
PATH_BYTES_MAX = 1024
PART_BYTES_MAX = 255
"""What file systems allow."""
SIZE_ADVICE_BYTES = 16 * 10**9
"""A model package of more than 16 GB is warned about (TI-ONE's advice)."""
IGNORED_NAMES = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".DS_Store", ".ipynb_checkpoints", ".venv", ".mypy_cache"}
)
"""Files and folders of these names never belong to a package: they differ from machine to machine."""


@dataclass(frozen=True, order=True)
class PackageFile:
    """path: below the package's folder, parts joined by `/`. sha256 in hex. size in bytes."""

    path: str
    sha256: str
    size: int
    executable: bool = False


def package_digest(files: Iterable[PackageFile]) -> str:
    """sha256 in hex of the canonical form: equal for equal content, wherever it lies."""
    return hashlib.sha256(canonical(files)).hexdigest()


def canonical(files: Iterable[PackageFile]) -> bytes:
    """The one way to write a package down: JSON of the files, sorted by path."""
    listed = [asdict(file) for file in sorted(files, key=lambda file: file.path.encode())]
    return json.dumps(listed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_canonical(text: bytes) -> list[PackageFile]:
    """What `canonical` wrote."""
    return [PackageFile(**file) for file in json.loads(text)]


def is_ignored(path: str) -> bool:
    """Whether a file of a local folder is left out of its package."""
    return any(part in IGNORED_NAMES or part.endswith(".pyc") for part in path.split("/"))


def check_package(files: Iterable[PackageFile], *, field: str = "files") -> list[PackageFile]:
    """The files, sorted. Raises InvalidValue or TooLarge if any folder could not hold exactly these.

    Refused: nothing at all; paths that are absolute or climb; paths that are there twice, differ in case or in Unicode
    form alone, or are a file here and a folder there.
    """
    listed = list(files)
    if not listed:
        raise InvalidValue("the package has no files.", field=field, remedy="Give a folder with files in it.")
    if len(listed) > FILES_MAX:
        raise TooLarge(
            f"{len(listed)} files are more than a package may have ({FILES_MAX}).",
            field=field,
            remedy="Leave out data and environments, or pack them into an archive inside the package.",
        )
    for file in listed:
        check_path(file.path, field=field)
    listed.sort(key=lambda file: file.path.encode())
    spelled: dict[str, str] = {}
    folders: dict[str, str] = {}
    for file in listed:
        folded = _folded(file.path)
        if folded in spelled:
            raise _clash(spelled[folded], file.path, field)
        spelled[folded] = file.path
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            known = folders.setdefault(_folded(folder), folder)
            if known != folder:
                raise _clash(known + "/", folder + "/", field)
    for folded, path in spelled.items():
        if folded in folders:
            raise _clash(path, folders[folded] + "/", field)
    return listed


def check_path(path: str, *, field: str = "path") -> None:
    """Raises InvalidValue unless `path` names a file inside the package's own folder, on every file system."""
    problem = None
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or (len(path) > 1 and path[1] == ":"):
        problem = "is not a path inside the package"
    elif any(part in ("", ".", "..") for part in parts):
        problem = "has an empty, `.` or `..` part"
    elif any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) <= 0xDFFF for char in path):
        problem = "has control characters, or is not Unicode"
    elif len(path.encode()) > PATH_BYTES_MAX or any(len(part.encode()) > PART_BYTES_MAX for part in parts):
        problem = "is too long"
    if problem:
        raise InvalidValue(f"{path[:200]!r} {problem}.", field=field, remedy="Rename the file, or leave it out.")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _clash(one: str, other: str, field: str) -> InvalidValue:
    said = f"{one!r} is there twice" if one == other else f"{one!r} and {other!r} cannot lie side by side everywhere"
    return InvalidValue(f"{said}.", field=field, remedy="Rename or remove one of them.")
