"""The door for instances: one call, a report in and orders out. Quick, because every split passes here.

Not part of the JSON API: the body is `contract.Report`, the answer `contract.Orders`, the credential a token of the
instance's own. What the answer's status means to an instance: 401 its token is not good (any more), 403 it has ended
as far as the server knows, 413 and 422 it said something that no instance says, 426 it speaks a version of the
contract that is not spoken here, 503 and 409 try again.
"""

from __future__ import annotations

import msgspec
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tidemill.domain.errors import InvalidValue, NotAuthenticated
from tidemill.services.facade import Services
from tidemill_runtime.contract import CONTRACT_VERSION, Report

REPORT_PATH = "/runner/v1/report"
THREADS = 16
"""Reports answered at a time, beside all other calls: no upload and no list may keep instances waiting."""


class RunnerDoor:
    """An ASGI application for REPORT_PATH alone, in front of the router: nothing is matched or validated twice."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(Report)
        self._encoder = msgspec.json.Encoder()
        self._limiter = CapacityLimiter(THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405, headers={"Allow": "POST"})
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated("an instance's token is needed.")
        body = await request.body()
        try:
            said = self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise InvalidValue(f"this is no report: {error}.", field="body") from error
        if said.version not in (CONTRACT_VERSION, CONTRACT_VERSION - 1):
            return Response(status_code=426)
        orders = await run_sync(self._services.report, token.strip(), said, limiter=self._limiter)
        return Response(self._encoder.encode(orders), media_type="application/json")
