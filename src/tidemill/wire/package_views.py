"""What the JSON API answers about models, packages and stored objects; `views` has the rest."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from tidemill.wire.views import View


class ModelView(View):
    """A model of the repository: a name with versions."""

    id: str
    name: str
    region: str
    description: str = ""
    labels: dict[str, str] = {}
    versions: int
    latest: int | None = None
    """Number of the newest version that is READY: what `name` and `name@latest` mean."""
    created_at: datetime
    updated_at: datetime
    created_by: str = ""


class VersionView(View):
    """One version of a model. Its package never changes."""

    id: str
    model: str
    """The model's name."""
    number: int
    reference: str
    """How tasks name it: `churn@2`."""
    status: Literal["CREATING", "READY", "FAILED"]
    reason: str = ""
    """Why it is FAILED, with what to do."""
    description: str = ""
    labels: dict[str, str] = {}
    package: str
    """Digest of its package."""
    size_bytes: int
    files: int
    format: str | None = None
    """What it was found to be: service, mlflow, onnx, sklearn, lightgbm, function, lines or http."""
    entry: str | None = None
    """The file, class or function that is called."""
    requirements: bool = False
    """Whether the package has a requirements.txt."""
    warnings: list[str] = []
    created_at: datetime
    created_by: str = ""


class FileEntry(View):
    """One file of a package."""

    path: str = Field(max_length=1024)
    """Below the package's folder, parts joined by `/`."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    executable: bool = False


class PackageView(View):
    """A folder of files, known by the digest of its content."""

    digest: str
    size_bytes: int
    files: list[FileEntry]


class BlobView(View):
    """A blob that was uploaded."""

    sha256: str
    size_bytes: int


class BlobsView(View):
    missing: list[str]
    """Those to upload, in the order that they were asked for."""


class ObjectView(View):
    """One object of a bucket."""

    name: str
    """Path below the folder that was listed."""
    location: str
    size_bytes: int
    etag: str
    modified_at: datetime
