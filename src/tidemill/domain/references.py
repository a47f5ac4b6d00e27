"""How a task names a model or code: an entry of the repository, an uploaded package, or a folder.

churn            the newest version that is READY (also churn@latest)
churn@2          version 2
sha256:ab12…     an uploaded package, by its digest
./churn, a/b, ~  a folder of the machine that the task file is read on: `run` uses it, a client uploads it first
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidemill.domain.errors import InvalidValue

LATEST = "latest"
PACKAGE_PREFIX = "sha256:"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_FOLDER = re.compile(r"[./~]|.*[/\\]")
_ALIAS = re.compile(r"[0-9A-Za-z\u4e00-\u9fff][0-9A-Za-z_\-\u4e00-\u9fff]{0,59}")


@dataclass(frozen=True)
class ModelReference:
    """A version of a model. number None: by `alias` (`latest`, or one that was given to a version)."""

    name: str
    number: int | None = None
    alias: str = LATEST

    def __str__(self) -> str:
        return f"{self.name}@{self.number if self.number is not None else self.alias}"


@dataclass(frozen=True)
class PackageReference:
    digest: str

    def __str__(self) -> str:
        return PACKAGE_PREFIX + self.digest


def is_folder(text: str) -> bool:
    """Whether `text` can only be meant as a folder: it begins like a path, or has a slash in it."""
    return bool(_FOLDER.match(text)) and not text.startswith(PACKAGE_PREFIX)


def parse_package(text: str, *, field: str) -> PackageReference:
    """Raises InvalidValue unless `text` is `sha256:` and a digest."""
    digest = text.removeprefix(PACKAGE_PREFIX)
    if not text.startswith(PACKAGE_PREFIX) or not _DIGEST.fullmatch(digest):
        raise InvalidValue(
            f"{text[:80]!r} is not an uploaded package.",
            field=field,
            remedy="Upload the folder first; it is then named sha256:DIGEST. The command line does so by itself.",
        )
    return PackageReference(digest)


def parse_model(text: str, *, field: str) -> ModelReference | PackageReference:
    """What `text` names on a server. Raises InvalidValue, also for a folder: a server has none of the client's."""
    if text.startswith(PACKAGE_PREFIX) or is_folder(text):
        return parse_package(text, field=field)
    name, mark, selector = text.partition("@")
    return version_of(name, selector, field=field) if mark else ModelReference(name)


def version_of(name: str, selector: str, *, field: str = "version") -> ModelReference:
    """The version `selector` (a number, `latest`, an alias) of a model. Raises InvalidValue."""
    if _NUMBER.fullmatch(selector):
        return ModelReference(name, int(selector))
    if not _ALIAS.fullmatch(selector) or selector.isdigit():
        raise InvalidValue(
            f"{f'{name}@{selector}'[:80]!r} is not a version of a model.",
            field=field,
            remedy="Write NAME, NAME@2 or NAME@latest.",
        )
    return ModelReference(name, None, selector)
