"""Errors as RFC 9457 problems. Whatever goes wrong behind a door, a client sees a problem and never a stack trace."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tidemill.domain.errors import InvalidValue, NotFound, TidemillError
from tidemill.wire.findings import explain
from tidemill.wire.problem_views import FieldProblem, Problem

MEDIA_TYPE = "application/problem+json"
FINDINGS_MAX = 20
"""More findings in one request help nobody."""
_log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    app.add_exception_handler(TidemillError, _tidemill)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def problem_response(
    error: TidemillError,
    request_id: str | None,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] = {},
) -> Response:
    status = error.status
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        field=error.field,
        remedy=error.remedy,
        request_id=request_id,
        errors=list(errors),
    )
    extra = dict(headers)
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        extra["Retry-After"] = "1"
    return Response(problem.model_dump_json(exclude_none=True), status, extra, MEDIA_TYPE)


def internal_error(error: Exception, request_id: str | None, path: str) -> Response:
    """For what nobody expected: logged with its traceback, and told to the client as a number to ask about."""
    _log.error("request %s failed: %r", request_id, path, exc_info=error)  # no local variables: they hold keys
    hidden = TidemillError("an error inside the server.", remedy=f"The server's log has more under {request_id}.")
    return problem_response(hidden, request_id)


def request_id(request: Request) -> str | None:
    found: str | None = request.scope.get("state", {}).get("request_id")
    return found


async def _unexpected(request: Request, error: Exception) -> Response:
    return internal_error(error, request_id(request), request.url.path)


async def _tidemill(request: Request, error: Exception) -> Response:
    assert isinstance(error, TidemillError)
    if error.status >= 500:
        _log.warning("request %s refused: %s", request_id(request), error.code, exc_info=error)
    return problem_response(error, request_id(request))


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    model = _body_model(request)
    found = [_finding(one, model) for one in list(error.errors())[:FINDINGS_MAX]]
    first = found[0] if found else InvalidValue("the request is not valid.")
    errors = [FieldProblem(field=one.field, message=_sentence(one)) for one in found]
    return problem_response(first, request_id(request), errors=errors)


def _finding(found: Mapping[str, Any], model: type[BaseModel] | None) -> TidemillError:
    where, *path = found["loc"] or ("body",)
    if found["type"] == "json_invalid":
        return not_json()
    if where == "body" and not path and found["type"] != "value_error":
        return InvalidValue("a JSON object is needed as the body.", remedy="Send Content-Type: application/json.")
    return explain({**found, "loc": tuple(path)}, model if where == "body" else None)


def not_json() -> InvalidValue:
    return InvalidValue("the body is not JSON.", remedy="Send JSON with Content-Type: application/json.")


def _sentence(error: TidemillError) -> str:
    return f"{error.message} {error.remedy}" if error.remedy else error.message


def _body_model(request: Request) -> type[BaseModel] | None:
    """The model that the route reads its body as, to name the nearest of its keys."""
    body = getattr(request.scope.get("route"), "body_field", None)
    model = getattr(getattr(body, "field_info", None), "annotation", None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


async def _http(request: Request, error: Exception) -> Response:
    """What the framework raises by itself: no such route, a method that a route does not have, a body that is no
    JSON.
    """
    assert isinstance(error, HTTPException)
    known: TidemillError
    if isinstance(error.__cause__, TidemillError):  # raised by us while the framework read the body
        known = error.__cause__
    elif error.status_code == 404:
        known = NotFound(f"there is no {request.url.path[:200]!r} here.", remedy="See /openapi.json.")
    else:
        known = _HttpError(error.status_code, str(error.detail))
    return problem_response(known, request_id(request), headers=dict(error.headers or {}))


class _HttpError(TidemillError):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = HTTPStatus(status).name.lower()
