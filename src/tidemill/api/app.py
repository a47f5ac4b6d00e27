"""The ASGI application: all doors of a server. `create_app` is called by `bootstrap`, and by tests."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

import tidemill
from tidemill.api import models, objects, packages, problems, server, tasks
from tidemill.api.describe import describe
from tidemill.api.gate import App, Gate
from tidemill.api.metrics import RequestMetrics
from tidemill.api.runner import RunnerDoor
from tidemill.services.facade import Services


def create_app(services: Services, *, body_bytes: int) -> App:
    """The doors of these services. body_bytes: largest body of a call that is no upload (`limits.body_bytes`)."""
    app = bare_app()
    app.state.services = services
    return Gate(app, RunnerDoor(services), services.access, RequestMetrics(services.metrics), body_bytes=body_bytes)


def bare_app() -> FastAPI:
    """Routes and their description, with nothing behind them: enough to write OpenAPI down."""
    app = FastAPI(
        title="Tidemill",
        version=tidemill.__version__,
        docs_url=None,  # those pages fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
    )
    problems.install(app)
    for router in (tasks.router, models.router, packages.router, objects.router, server.router):
        app.include_router(router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
