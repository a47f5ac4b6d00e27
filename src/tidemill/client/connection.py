"""One HTTP connection to a server: finding it, sending, trying again, and turning problems back into our errors.

Used by every part of `tidemill.client`. Where the server is and who we are is looked for in the arguments, then in
TIDEMILL_URL, TIDEMILL_SECRET_ID and TIDEMILL_SECRET_KEY, then in the data folder of a server on this machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from tidemill.domain.errors import (
    LimitExceeded,
    NotAuthenticated,
    ServerUnreachable,
    Temporary,
    TidemillError,
)
from tidemill.wire.views import Problem

M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, str | int | float | bool | None | list[str]]

ATTEMPTS = 6
"""Of a call that may be repeated: about ten seconds, enough for a server that is being restarted."""
TIMEOUT = httpx.Timeout(connect=5.0, read=60.0, write=60.0, pool=60.0)
AGAIN_STATUS = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Credentials:
    """Where a server is and how to sign in. The key is not shown."""

    url: str
    secret_id: str
    secret_key: str = field(repr=False)


def find_credentials(
    url: str | None = None,
    secret_id: str | None = None,
    secret_key: str | None = None,
    data: str | os.PathLike[str] | None = None,
) -> Credentials:
    """The server and key to use. data: the data folder of a local server; its default place if not given.

    Raises NotAuthenticated or ServerUnreachable, saying what was looked for where.
    """
    url = url or os.environ.get("TIDEMILL_URL")
    secret_id = secret_id or os.environ.get("TIDEMILL_SECRET_ID")
    secret_key = secret_key or os.environ.get("TIDEMILL_SECRET_KEY")
    folder = Path(data or os.environ.get("TIDEMILL_DATA") or Path.home() / ".local" / "share" / "tidemill").expanduser()
    if url is None:
        found = _read_json(folder / "server.json")
        url = found.get("url")
        if url is None:
            raise ServerUnreachable(
                f"no server is named, and none has left its address in {folder}.",
                remedy="Start one with `tidemill serve`, or set TIDEMILL_URL.",
            )
    if secret_id is None or secret_key is None:
        found = _read_json(folder / "root-credentials.json")
        secret_id, secret_key = found.get("secret_id"), found.get("secret_key")
        if secret_id is None or secret_key is None:
            raise NotAuthenticated(
                f"no credential is given, and there is none in {folder}.",
                remedy="Set TIDEMILL_SECRET_ID and TIDEMILL_SECRET_KEY.",
            )
    return Credentials(url.rstrip("/"), secret_id, secret_key)


def _read_json(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise NotAuthenticated(
            f"{path} may not be read.", remedy="Set TIDEMILL_URL, TIDEMILL_SECRET_ID and TIDEMILL_SECRET_KEY."
        ) from None
    return found if isinstance(found, dict) else {}


class Connection:
    """Calls of the JSON API. Safe for threads; `close` it, or use it in a `with`."""

    def __init__(self, credentials: Credentials) -> None:
        self.url = credentials.url
        # The key is in a header, so nothing may lead it elsewhere: no redirects, no proxy of the environment for a local server.
        self._http = httpx.Client(
            base_url=credentials.url,
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=not _is_local(credentials.url),
            headers={
                "Authorization": f"Bearer {credentials.secret_id}.{credentials.secret_key}",
                "Accept": "application/json",
            },
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, view: type[M], params: Params | None = None) -> M:
        return _read(self.send("GET", path, params=params), view)

    def post(self, path: str, view: type[M], body: object, *, idempotency_key: str | None = None) -> M:
        """body: JSON. Repeated after a lost answer only under an idempotency key."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _read(self.send("POST", path, json=body, headers=headers, again=bool(idempotency_key)), view)

    def patch(self, path: str, view: type[M], body: object) -> M:
        return _read(self.send("PATCH", path, json=body), view)

    def delete(self, path: str, view: type[M], params: Params | None = None) -> M:
        return _read(self.send("DELETE", path, params=params), view)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        content: Iterable[bytes] | bytes | None = None,
        again: bool | None = None,
        ok: Iterable[int] = (),
    ) -> httpx.Response:
        """One call and its answer. again: whether it may be repeated (None: as the method allows). ok: statuses beside 2xx.

        Raises the error that the server answered with, or ServerUnreachable.
        """
        repeatable = method in ("GET", "HEAD", "PUT", "DELETE") if again is None else again
        if content is not None and not isinstance(content, bytes):
            repeatable = False  # a stream can be read once; its owner repeats
        for attempt in _attempts(repeatable):
            with attempt, _network(self.url):
                response = self._http.request(
                    method, path, params=_clean(params), headers=headers, json=json, content=content
                )
                if response.status_code not in ok:
                    raise_problem(response)
        return response

    @contextmanager
    def stream(
        self, path: str, *, params: Params | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """A GET whose body is read bit by bit."""
        with _network(self.url):
            with self._http.stream("GET", path, params=_clean(params), headers=headers) as response:
                if response.status_code >= 300:
                    response.read()
                    raise_problem(response)
                yield response


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _attempts(repeatable: bool) -> Retrying:
    return Retrying(
        stop=stop_after_attempt(ATTEMPTS if repeatable else 1),
        wait=wait_exponential_jitter(initial=0.2, max=4.0, jitter=0.2),
        retry=retry_if_exception_type((Temporary, LimitExceeded)),
        reraise=True,
    )


@contextmanager
def _network(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise ServerUnreachable(
            f"{url} does not answer ({type(error).__name__}: {error}).", remedy="Is `tidemill serve` running there?"
        ) from error


def raise_problem(response: httpx.Response) -> None:
    """Raises the error that a response stands for, if it is none of success."""
    if response.is_success:
        return
    classes = {found.code: found for found in _tree(TidemillError)}
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        family = ServerUnreachable if response.status_code in AGAIN_STATUS else TidemillError
        raise family(
            f"HTTP {response.status_code} {response.reason_phrase} of {response.request.method} {response.request.url.path}.",
            remedy="Is this the address of a Tidemill server?",
        ) from None
    kind = classes.get(problem.code, Temporary if problem.status in AGAIN_STATUS else TidemillError)
    error = kind(problem.detail, field=problem.field, remedy=problem.remedy)
    if problem.status == 500 and problem.request_id:
        error.remedy = f"See the server's log for request {problem.request_id}."
    raise error


def _tree(kind: type[TidemillError]) -> Iterator[type[TidemillError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _read(response: httpx.Response, view: type[M]) -> M:
    try:
        return view.model_validate_json(response.content)
    except ValidationError as error:
        raise TidemillError(
            f"the answer of {response.request.method} {response.request.url.path} is not what was expected.",
            remedy="Client and server may be of different versions.",
        ) from error


def _clean(params: Params | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in (params or {}).items():
        if value is not None:
            found[name] = str(value).lower() if isinstance(value, bool) else value
    return found


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
