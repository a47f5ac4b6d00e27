"""What every request passes, as one ASGI layer around the app: an id, a credential, a limit, and nothing unexpected
shown.

public     /healthz, /readyz           answered to anybody
runners    /runner/                    instances, with tokens of their own (checked behind this gate)
all else   a credential, also what does not exist: nobody learns what is here without one
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from tidemill.api.metrics import RequestMetrics
from tidemill.api.problems import internal_error, problem_response
from tidemill.api.runner import REPORT_PATH
from tidemill.domain.errors import Refused, TidemillError, TooLarge
from tidemill.services.access import Access

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PUBLIC = frozenset({"/healthz", "/readyz"})
UPLOADS = ("/api/v1/blobs/", "/api/v1/objects/content")
"""Streamed to disk or storage, under limits of their own."""
PACKAGE_BODIES = ("/api/v1/packages",)
"""Lists of files: larger than other bodies."""
PACKAGE_BODY_BYTES = 64 * 1024 * 1024
_REQUEST_ID = re.compile(r"[0-9A-Za-z_.:-]{1,64}")


class Gate:
    """The layer. app: the JSON API. runner: what answers REPORT_PATH. body_bytes: largest body that is no upload."""

    def __init__(self, app: App, runner: App, access: Access, metrics: RequestMetrics, *, body_bytes: int) -> None:
        self._app = app
        self._runner = runner
        self._access = access
        self._metrics = metrics
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        try:
            await self._pass(scope, headers, receive, answer)
        except ClientDisconnect:
            pass  # in the middle of its own body; there is nobody to tell
        except TidemillError as error:
            await answer.instead(scope, receive, problem_response(error, request_id))
        except Exception as error:  # noqa: BLE001 - the last resort of every request
            await answer.instead(scope, receive, internal_error(error, request_id, scope["path"]))
        finally:
            route = REPORT_PATH if scope["path"] == REPORT_PATH else getattr(scope.get("route"), "path", "none")
            self._metrics.count(scope["method"], route, answer.status, time.perf_counter() - begun)

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, answer: _Answer) -> None:
        to_runner = scope["path"] == REPORT_PATH
        if not to_runner and scope["path"] not in PUBLIC:
            scope["state"]["actor"] = self._access.authenticate(_only(headers, "authorization"))
        await (self._runner if to_runner else self._app)(scope, self._limited(scope, headers, receive), answer)

    def _limited(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """`receive`, which raises TooLarge once a body is larger than it may be."""
        path: str = scope["path"]
        if path.startswith(UPLOADS):
            return receive
        limit = PACKAGE_BODY_BYTES if path.startswith(PACKAGE_BODIES) else self._body_bytes
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        return limited


class _Answer:
    """`send` that adds the request's id, and knows whether an answer has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._begun = self._ended = False
        self.status = 0  # of what was sent; 0: nothing was

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._request_id),
                (b"x-content-type-options", b"nosniff"),
            ]
        else:
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def instead(self, scope: Scope, receive: Receive, response: Response) -> None:
        """Sends an error, if nothing is sent yet; a half-sent answer can only be cut off, so that nobody takes it
        for whole.
        """
        if self._ended:
            return  # the framework answered with `problems.internal_error` already, and raised all the same
        if self._begun:
            raise ConnectionAbortedError("the answer cannot be finished")
        await response(scope, receive, self)


def _only(headers: Headers, name: str) -> str | None:
    """The header's one value. Raises Refused for several: which one counts must not be a guess."""
    found = headers.getlist(name)
    if len(found) > 1:
        raise Refused(f"the header {name} is there {len(found)} times.", field=name, remedy="Send it once.")
    return found[0] if found else None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes.", remedy="Send less at a time.")
