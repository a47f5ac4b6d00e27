"""The model repository over HTTP."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response

from tidemill.api.common import Asking, Cursor, Limit, Region, Served, problems
from tidemill.domain.references import version_of
from tidemill.wire.package_views import ModelView, PackageView, VersionView
from tidemill.wire.requests import ModelPatch, VersionRequest
from tidemill.wire.views import DeletedView, Page

router = APIRouter(prefix="/api/v1/models", tags=["models"])
Selector = Annotated[str, Path(max_length=60, description="A number, or `latest`: the newest that is READY.")]
Name = Annotated[str, Path(max_length=60, description="Name of the model.")]


@router.get("", responses=problems())
def list_models(
    served: Served,
    actor: Asking,
    region: Region = None,
    name_contains: Annotated[str | None, Query(max_length=60, description="A part of the name.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[ModelView]:
    """Models, by name."""
    return served.models.list(actor, served.region(region), name_contains, limit, cursor)


@router.get("/{name}", responses=problems(404))
def get_model(served: Served, actor: Asking, name: Name, region: Region = None) -> ModelView:
    """One model."""
    return served.models.get(actor, served.region(region), name)


@router.patch("/{name}", responses=problems(400, 404))
def change_model(served: Served, actor: Asking, name: Name, patch: ModelPatch, region: Region = None) -> ModelView:
    """Changes description or labels of a model."""
    return served.models.change(actor, served.region(region), name, patch)


@router.delete("/{name}", responses=problems(404, 409))
def delete_model(served: Served, actor: Asking, name: Name, region: Region = None) -> DeletedView:
    """Removes a model with all its versions. Refused by the name of the task that uses one."""
    return served.models.delete(actor, served.region(region), name)


@router.get("/{name}/versions", responses=problems(404))
def list_versions(
    served: Served, actor: Asking, name: Name, region: Region = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[VersionView]:
    """The versions of a model, newest first."""
    return served.models.versions(actor, served.region(region), name, limit, cursor)


@router.post("/{name}/versions", status_code=201, responses=problems(400, 404, 413))
def create_version(
    served: Served, actor: Asking, name: Name, version: VersionRequest, response: Response, region: Region = None
) -> VersionView:
    """Imports an uploaded package or archive as the next version of a model, which is made if it is not there.

    The answer's `status` is READY, or FAILED with the `reason` (no entry, syntax error with file and line, no class …).
    """
    made = served.models.create_version(actor, served.region(region), name, version)
    response.headers["Location"] = f"/api/v1/models/{quote(name)}/versions/{made.number}"
    return made


@router.get("/{name}/versions/{version}", responses=problems(404))
def get_version(served: Served, actor: Asking, name: Name, version: Selector, region: Region = None) -> VersionView:
    """One version."""
    return served.models.version(actor, served.region(region), version_of(name, version))


@router.get("/{name}/versions/{version}/files", responses=problems(404))
def list_version_files(
    served: Served, actor: Asking, name: Name, version: Selector, region: Region = None
) -> PackageView:
    """The files that a version is made of."""
    return served.models.files(actor, served.region(region), version_of(name, version))


@router.delete("/{name}/versions/{version}", responses=problems(404, 409))
def delete_version(served: Served, actor: Asking, name: Name, version: Selector, region: Region = None) -> DeletedView:
    """Removes a version. Its number is not given again. Refused by the name of the task that uses it."""
    return served.models.delete_version(actor, served.region(region), version_of(name, version))
