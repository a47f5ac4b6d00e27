"""What the JSON API is asked, beside the task file itself. Unknown keys are refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tidemill.domain.errors import InvalidValue
from tidemill.wire.sections import Seconds, Share
from tidemill.wire.taskfile import BatchSection, ResourcesSection

Digest = Field(pattern=r"^[0-9a-f]{64}$")


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ResumeRequest(Request):
    """What the next run of a task does differently. What is not given stays as it was."""

    instances: int | None = Field(None, ge=1, le=10_000)
    resources: ResourcesSection | None = None
    tolerance: Share | None = None
    """Failed records that are still a success: a share (`1%`) or a count (`20`)."""
    deadline: Seconds | None = None
    """Seconds after the resumption."""
    retries: int | None = Field(None, ge=0, le=100)
    record_timeout: Seconds | None = None
    priority: int | None = Field(None, ge=-100, le=100)
    batch: BatchSection | None = None

    @field_validator("deadline", "record_timeout")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise InvalidValue(f"{value:g} s is not a time to come.", remedy="Write it like 90s, 15m or 2h.")
        return value


class FileSpec(Request):
    """One file of a package that is asked for."""

    path: str = Field(max_length=1024)
    """Below the package's folder, parts joined by `/`."""
    sha256: str = Digest
    size: int = Field(ge=0, le=2**53)
    executable: bool = False


class PackageRequest(Request):
    """A package of blobs that are uploaded already."""

    files: list[FileSpec] = Field(max_length=100_000)


class BlobsRequest(Request):
    """Which of these blobs does the server lack?"""

    sha256: list[str] = Field(max_length=10_000)


class BlobsMissing(Request):
    missing: list[str]
    """Those to upload, in the order that they were asked for."""


class VersionRequest(Request):
    """A new version of a model: a package, or an archive (tar, also gz, bz2, xz; zip) that was uploaded as a blob."""

    package: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Digest of a package."""
    archive: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """sha256 of a blob that is an archive."""
    description: str = Field("", max_length=1024)
    labels: dict[str, str] = {}

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        return check_labels(value)

    @model_validator(mode="after")
    def _one_source(self) -> VersionRequest:
        if (self.package is None) == (self.archive is None):
            raise InvalidValue("give either `package` or `archive`.", remedy="Upload one of them first.")
        return self


class ModelPatch(Request):
    """What to change about a model; what is not given stays."""

    description: str | None = Field(None, max_length=1024)
    labels: dict[str, str] | None = None

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        return value if value is None else check_labels(value)


def check_labels(value: dict[str, str]) -> dict[str, str]:
    if len(value) > 50 or any(not key or len(key) > 127 or len(text) > 255 for key, text in value.items()):
        raise InvalidValue("too many or too long labels.", remedy="At most 50; keys up to 127, values up to 255.")
    return value
