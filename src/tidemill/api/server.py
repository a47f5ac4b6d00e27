"""The server itself: is it well, what does it have, and its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tidemill.api.common import Asking, Served, problems
from tidemill.wire.views import HealthView, ServerView

router = APIRouter(tags=["server"])


@router.get("/healthz")
def get_health() -> HealthView:
    """Whether the process answers. Needs no credential."""
    return HealthView(status="ok")


@router.get("/readyz", responses={503: {"model": HealthView, "description": "Not ready; `problems` says why."}})
def get_readiness(served: Served, response: Response) -> HealthView:
    """Whether the database answers and the loops run. Needs no credential."""
    found = served.problems()
    if found:
        response.status_code = 503
    return HealthView(status="unavailable" if found else "ok", problems=found)


@router.get(
    "/metrics",
    response_class=Response,
    responses={**problems(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_metrics(served: Served, actor: Asking) -> Response:
    """Prometheus metrics."""
    return Response(generate_latest(served.metrics), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/v1/server", responses=problems())
def get_server(served: Served, actor: Asking) -> ServerView:
    """What this server is and has."""
    return served.about()
