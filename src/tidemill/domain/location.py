"""Where objects are: `cos://bucket/key`, `s3://bucket/key`, `file:///path` or a plain path.

Addresses are taken literally: `%`, `#`, `+`, spaces and Chinese are part of the name, nothing is decoded. A path ending
in `/` is a folder. Paths that climb (`..`) or hide (`//`, `.`, control characters) are refused.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from tidemill.domain.errors import InvalidValue

BUCKET_SCHEMES = ("cos", "s3")


@dataclass(frozen=True, order=True)
class Location:
    """One object or folder. bucket None: a local path, key is absolute. A folder's key ends in `/` or is empty."""

    scheme: str
    bucket: str | None
    key: str

    @property
    def is_folder(self) -> bool:
        return self.key == "" or self.key.endswith("/")

    @property
    def is_local(self) -> bool:
        return self.bucket is None

    def as_folder(self) -> Location:
        return self if self.is_folder else Location(self.scheme, self.bucket, self.key + "/")

    def child(self, name: str) -> Location:
        """The object or folder `name` (which may contain `/`) below this folder."""
        return Location(self.scheme, self.bucket, self.as_folder().key + name)

    def contains(self, other: Location) -> bool:
        """Whether `other` is this place or lies below it. cos and s3 of one bucket name are one place."""
        if self.bucket != other.bucket:
            return False
        mine, theirs = self.as_folder().key, other.as_folder().key
        return theirs.startswith(mine)

    def __str__(self) -> str:
        return self.key if self.bucket is None else f"{self.scheme}://{self.bucket}/{self.key}"


def parse_location(text: str, *, field: str, base: str | None = None) -> Location:
    """The location that `text` names. base: absolute folder that relative paths start from; None refuses them.

    Raises InvalidValue naming `field`.
    """
    if not text or text.strip() != text:
        raise InvalidValue(f"{text!r} is not a path.", field=field, remedy="Give cos://bucket/path/ or a folder.")
    scheme, mark, rest = text.partition("://")
    if mark and scheme in BUCKET_SCHEMES:
        bucket, _, key = rest.partition("/")
        if not bucket:
            raise InvalidValue(f"{text!r} names no bucket.", field=field, remedy=f"Write {scheme}://bucket/path/.")
        _check_key(key, text, field)
        return Location(scheme, bucket, key)
    if mark and scheme == "file":
        if not rest.startswith("/"):
            raise InvalidValue(f"{text!r} has a host.", field=field, remedy="Write file:///absolute/path.")
        text = rest
    elif mark:
        raise InvalidValue(
            f"scheme {scheme!r} is not supported.", field=field, remedy="Supported: cos://, s3://, file:// and paths."
        )
    return _local(text, field, base)


def _local(text: str, field: str, base: str | None) -> Location:
    if not text.startswith("/"):
        if base is None:
            raise InvalidValue(f"{text!r} is not an absolute path.", field=field, remedy="Give it from the root on.")
        text = f"{base.rstrip('/')}/{text}"
    folder = text.endswith(("/", "/.", "/.."))
    path = posixpath.normpath(text)
    _check_characters(path, text, field)
    if path.startswith("//"):
        path = path[1:]
    return Location("file", None, path if not folder or path == "/" else path + "/")


def _check_key(key: str, text: str, field: str) -> None:
    _check_characters(key, text, field)
    parts = key.split("/")
    if any(part in (".", "..") for part in parts) or "" in parts[:-1]:
        raise InvalidValue(
            f"{text!r} has an empty, `.` or `..` part.", field=field, remedy="Write the path without it."
        )


def _check_characters(key: str, text: str, field: str) -> None:
    if any(ord(char) < 32 or ord(char) == 127 for char in key):
        raise InvalidValue(f"{text!r} has control characters.", field=field, remedy="Rename the object or folder.")
