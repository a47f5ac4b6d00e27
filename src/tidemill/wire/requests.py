"""What the JSON API is asked, beside the task file itself. Unknown keys are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from tidemill.domain.errors import InvalidValue
from tidemill.wire.kinds import Length, Range, Seconds, Share
from tidemill.wire.sections import Section
from tidemill.wire.taskfile import TAG_KEY_MAX, TAG_VALUE_MAX, TAGS_MAX, BatchSection, ResourcesSection

_SHA256 = re.compile(r"[0-9a-f]{64}")
Text = Annotated[str, Length(0, 1024)]


@dataclass(frozen=True, kw_only=True)
class ResumeRequest(Section):
    """What the next run of a task does differently. What is not given stays as it was."""

    noun: ClassVar[str] = "request"

    instances: Annotated[int, Range(1, 10_000)] | None = None
    """How many instances share the work."""
    resources: ResourcesSection | None = None
    """What each instance may use."""
    tolerance: Share | None = None
    """Failed records that are still a success: a share (`1%`) or a count (`20`)."""
    deadline: Seconds | None = None
    """Time after the resumption."""
    retries: Annotated[int, Range(0, 100)] | None = None
    """How often an instance that dies is replaced."""
    record_timeout: Seconds | None = None
    """Longest time that one record may take."""
    priority: Annotated[int, Range(-100, 100)] | None = None
    """Higher goes first."""
    batch: BatchSection | None = None
    """What to fix instead of leaving it to be measured."""

    def check(self) -> None:
        for key in ("deadline", "record_timeout"):
            if getattr(self, key) == 0:
                raise InvalidValue("0 s is not a time to come.", field=key, remedy="Write it like 90s, 15m or 2h.")


@dataclass(frozen=True, kw_only=True)
class FileSpec(Section):
    """One file of a package that is asked for."""

    noun: ClassVar[str] = "file"

    path: Text
    """Below the package's folder, parts joined by `/`."""
    sha256: str
    """Digest of its content, in hex."""
    size: Annotated[int, Range(0, 2**53)]
    """Bytes."""
    executable: bool = False
    """Whether it may be run as a program."""

    def check(self) -> None:
        check_sha256(self.sha256, field="sha256")


@dataclass(frozen=True, kw_only=True)
class PackageRequest(Section):
    """A package of blobs that are uploaded already."""

    noun: ClassVar[str] = "package"

    files: list[FileSpec]
    """All of its files, in any order."""


@dataclass(frozen=True, kw_only=True)
class BlobsRequest(Section):
    """Which of these blobs does the server lack?"""

    noun: ClassVar[str] = "request"

    sha256: list[str]
    """At most 10,000 digests in hex."""

    def check(self) -> None:
        if len(self.sha256) > 10_000:
            raise InvalidValue(f"{len(self.sha256)} are too many.", field="sha256", remedy="Ask for 10,000 at a time.")
        for digest in self.sha256:
            check_sha256(digest, field="sha256")


@dataclass(frozen=True, kw_only=True)
class VersionRequest(Section):
    """A new version of a model: a package, or an archive (tar, also gz, bz2, xz; zip) that was uploaded as a blob."""

    noun: ClassVar[str] = "version"

    package: str | None = None
    """Digest of a package that is there."""
    archive: str | None = None
    """sha256 of a blob that is an archive. Give this or `package`."""
    description: Text = ""
    """What is new about it."""
    labels: dict[str, str] = field(default_factory=dict)
    """For finding versions again."""

    def check(self) -> None:
        if (self.package is None) == (self.archive is None):
            raise InvalidValue("give either `package` or `archive`.", remedy="Upload one of them first.")
        for key in ("package", "archive"):
            if getattr(self, key) is not None:
                check_sha256(getattr(self, key), field=key)
        check_labels(self.labels)


@dataclass(frozen=True, kw_only=True)
class ModelPatch(Section):
    """What to change about a model; what is not given stays."""

    noun: ClassVar[str] = "model"

    description: Text | None = None
    """What it is for."""
    labels: dict[str, str] | None = None
    """All labels that it shall have."""

    def check(self) -> None:
        if self.labels is not None:
            check_labels(self.labels)


def check_sha256(text: str, *, field: str) -> None:
    """Raises InvalidValue unless `text` is a sha256 in hex."""
    if not _SHA256.fullmatch(text):
        raise InvalidValue(f"{text[:80]!r} is not a sha256 in hex.", field=field, remedy="Give 64 digits of 0-9a-f.")


def check_labels(labels: dict[str, str]) -> None:
    """Raises InvalidValue if there are too many, or one is too long. The limits are those of a task's tags."""
    long = any(not k or len(k) > TAG_KEY_MAX or len(v) > TAG_VALUE_MAX for k, v in labels.items())
    if long or len(labels) > TAGS_MAX:
        raise InvalidValue(
            "too many or too long.",
            field="labels",
            remedy=f"At most {TAGS_MAX}; keys up to {TAG_KEY_MAX} characters, values up to {TAG_VALUE_MAX}.",
        )
