"""Uploads, content-addressed: blobs first, then a package that names them. What is there already is not sent again."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from tidemill.api.common import BINARY_BODY, Asking, Served, problems
from tidemill.api.problems import not_json
from tidemill.api.streams import announced_size, upload_chunks
from tidemill.domain.errors import InvalidValue
from tidemill.domain.package import PackageFile
from tidemill.wire.package_views import BlobsView, BlobView, PackageView
from tidemill.wire.requests import BlobsRequest, PackageRequest
from tidemill.wire.sections import read

router = APIRouter(prefix="/api/v1", tags=["packages"])
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="sha256 in hex.")]


@router.post("/blobs/missing", responses=problems())
def find_missing_blobs(served: Served, actor: Asking, asked: BlobsRequest) -> BlobsView:
    """Which of these blobs have to be uploaded."""
    return BlobsView(missing=served.packages.missing(asked.sha256))


@router.head("/blobs/{sha256}", responses=problems(404))
def find_blob(served: Served, actor: Asking, sha256: Digest, response: Response) -> None:
    """Whether a blob is here, and how large it is (`X-Blob-Size`)."""
    response.headers["X-Blob-Size"] = str(served.packages.blob_size(sha256))


@router.put("/blobs/{sha256}", status_code=201, responses=problems(413), openapi_extra=BINARY_BODY)
async def upload_blob(request: Request, served: Served, actor: Asking, sha256: Digest) -> BlobView:
    """Uploads the body as a blob. It is kept only if its digest is the one that was named."""
    writer = await run_in_threadpool(served.packages.upload, sha256, announced_size(request))
    await run_in_threadpool(writer.__enter__)
    try:
        async for chunk in upload_chunks(request):
            await run_in_threadpool(writer.write, chunk)
        size = await run_in_threadpool(writer.finish)
    finally:
        writer.__exit__()
    return BlobView(sha256=sha256, size_bytes=size)


@router.post(
    "/packages",
    status_code=201,
    responses=problems(400, 404, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PackageRequest"}}},
        }
    },
)
async def create_package(request: Request, served: Served, actor: Asking) -> PackageView:
    """Makes a package of uploaded blobs. The same files always give the same digest."""
    body = await request.body()

    def create() -> PackageView:
        # Not by the framework: it reads bodies between other requests, and 100,000 files take seconds.
        try:
            package = read(PackageRequest, json.loads(body))
        except (ValueError, RecursionError) as error:
            raise (error if isinstance(error, InvalidValue) else not_json()) from error
        files = (PackageFile(file.path, file.sha256, file.size, file.executable) for file in package.files)
        return served.packages.create(actor, files)

    return await run_in_threadpool(create)


@router.get("/packages/{digest}", responses=problems(404))
def get_package(served: Served, actor: Asking, digest: Digest) -> PackageView:
    """The files of a package."""
    return served.packages.get(actor, digest)
