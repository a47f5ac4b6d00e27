"""Objects of a region's buckets over HTTP: uploading inputs, fetching results."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from tidemill.api.common import BINARY_BODY, Asking, Cursor, Limit, Region, Served, problems
from tidemill.api.streams import announced_size, blocking, download, upload_chunks
from tidemill.wire.package_views import ObjectView
from tidemill.wire.views import DeletedView, Page

router = APIRouter(prefix="/api/v1/objects", tags=["objects"])
Path = Annotated[
    str,
    Query(min_length=1, max_length=4096, description="`cos://bucket/path`, `s3://…`; the operator's key: also a path."),
]


@router.get("", responses=problems(403))
def list_objects(
    served: Served, actor: Asking, path: Path, region: Region = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[ObjectView]:
    """What lies below a folder, recursively, by name."""
    return served.objects.list(actor, served.region(region), path, limit, cursor)


@router.delete("", responses=problems(403))
def delete_objects(
    served: Served, actor: Asking, path: Path, region: Region = None, recursive: bool = False
) -> DeletedView:
    """Removes one object, or with `recursive` all below a folder. What is not there is no error."""
    return served.objects.delete(actor, served.region(region), path, recursive=recursive)


@router.get(
    "/content",
    responses={**problems(403, 404), 200: {"content": {"application/octet-stream": {}}}},
    response_class=StreamingResponse,
)
def download_object(request: Request, served: Served, actor: Asking, path: Path, region: Region = None) -> Response:
    """One object, whole or a range of it (`Range: bytes=0-99`)."""
    return download(request, served.objects.open(actor, served.region(region), path))


@router.put("/content", status_code=201, responses=problems(403, 404, 413), openapi_extra=BINARY_BODY)
async def upload_object(
    request: Request, served: Served, actor: Asking, path: Path, region: Region = None
) -> ObjectView:
    """Writes the body as one object, replacing what is there. Nobody ever sees half of it."""
    place = served.region(region)
    chunks = blocking(upload_chunks(request))
    return await run_in_threadpool(served.objects.put, actor, place, path, chunks, announced_size(request))
