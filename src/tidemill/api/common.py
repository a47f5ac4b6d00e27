"""What the routers share: the actor, the services, paging and the problems that any call may answer with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from tidemill.services.access import Actor
from tidemill.services.facade import Services
from tidemill.wire.problem_views import Problem

LIMIT_MAX = 1000


# Coroutines, because the framework changes threads for each plain function.
async def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


async def _actor(request: Request) -> Actor:
    found: Actor = request.state.actor
    return found


Served = Annotated[Services, Depends(_services)]
Asking = Annotated[Actor, Depends(_actor)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most items of one page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the page before.")]
Region = Annotated[str | None, Query(max_length=64, description="The server's first region, if not given.")]

BINARY_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""For routes that read the body as it comes, which the framework knows nothing of."""


def answer(view: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A view as the answer. What a plain function returns otherwise, the framework hands to a second thread to be
    checked once more, which takes as long as making a task does.
    """
    return Response(view.model_dump_json(), status, headers, media_type="application/json")


_SAID = {
    400: "The request is wrong.",
    401: "The credential is missing or wrong.",
    403: "The credential is good, but not for this.",
    404: "There is no such thing.",
    409: "It exists already, is in use, or is in a state that does not allow this.",
    413: "Larger than a limit that is named.",
    422: "A value is not allowed; `field` says which.",
    503: "Storage or database does not answer; try again.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems (401, 422 and 503 come by themselves)."""
    return {
        status: {
            "description": _SAID[status],
            "model": Problem,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*statuses, 401, 422, 503})
    }
