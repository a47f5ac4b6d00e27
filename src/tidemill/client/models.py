"""`client.models`: the model repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tidemill.client.connection import LONG_ANSWER_S, Connection, segment
from tidemill.client.packages import OnUpload, PackagesClient
from tidemill.client.paging import every
from tidemill.wire.package_views import ModelView, PackageView, VersionView
from tidemill.wire.views import DeletedView, Page


class ModelsClient:
    def __init__(self, connection: Connection, packages: PackagesClient) -> None:
        self._connection = connection
        self._packages = packages

    def import_(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        description: str = "",
        labels: dict[str, str] | None = None,
        region: str | None = None,
        progress: OnUpload | None = None,
    ) -> VersionView:
        """Imports a folder, or a tar or zip archive, as the next version of a model, which is made if it is not there.

        The version's `status` is READY, or FAILED with the `reason`. Only what the server lacks is sent.
        """
        source = Path(path)
        if source.is_file():
            body: dict[str, object] = {"archive": self._packages.upload_file(source, progress=progress)}
        else:
            body = {"package": self._packages.upload_folder(source, progress=progress).digest}
        body |= {"description": description, "labels": labels or {}}
        path = f"/api/v1/models/{segment(name)}/versions"
        return self._connection.post(path, VersionView, body, {"region": region}, answer_s=LONG_ANSWER_S)

    def list(
        self,
        *,
        name_contains: str | None = None,
        region: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[ModelView]:
        """One page of models, by name."""
        params = {"name_contains": name_contains, "region": region, "limit": limit, "cursor": cursor}
        return self._connection.get("/api/v1/models", Page[ModelView], params)

    def all(self, *, name_contains: str | None = None, region: str | None = None) -> Iterator[ModelView]:
        """Every model, by name."""
        return every(lambda cursor: self.list(name_contains=name_contains, region=region, limit=1000, cursor=cursor))

    def get(self, name: str, *, region: str | None = None) -> ModelView:
        return self._connection.get(f"/api/v1/models/{segment(name)}", ModelView, {"region": region})

    def change(
        self,
        name: str,
        *,
        description: str | None = None,
        labels: dict[str, str] | None = None,
        region: str | None = None,
    ) -> ModelView:
        """Changes what is given."""
        body = {"description": description, "labels": labels}
        return self._connection.patch(f"/api/v1/models/{segment(name)}", ModelView, body, {"region": region})

    def versions(self, name: str, *, region: str | None = None) -> Iterator[VersionView]:
        """Every version of a model, newest first."""
        path = f"/api/v1/models/{segment(name)}/versions"
        return every(
            lambda cursor: self._connection.get(
                path, Page[VersionView], {"region": region, "limit": 1000, "cursor": cursor}
            )
        )

    def version(self, name: str, number: int | str = "latest", *, region: str | None = None) -> VersionView:
        """One version: by number, or the newest that is READY."""
        return self._connection.get(self._version_path(name, number), VersionView, {"region": region})

    def files(self, name: str, number: int | str = "latest", *, region: str | None = None) -> PackageView:
        """What a version is made of."""
        return self._connection.get(f"{self._version_path(name, number)}/files", PackageView, {"region": region})

    def delete(self, name: str, *, region: str | None = None) -> DeletedView:
        """Removes a model with all its versions. Raises Conflict naming the task that uses one."""
        return self._connection.delete(f"/api/v1/models/{segment(name)}", DeletedView, {"region": region})

    def delete_version(self, name: str, number: int, *, region: str | None = None) -> DeletedView:
        """Removes one version. Raises Conflict naming the task that uses it."""
        return self._connection.delete(self._version_path(name, number), DeletedView, {"region": region})

    def _version_path(self, name: str, number: int | str) -> str:
        return f"/api/v1/models/{segment(name)}/versions/{segment(str(number))}"
