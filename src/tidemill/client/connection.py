"""One HTTP connection to a server: finding it, sending, trying again, and turning problems back into our errors.

Used by every part of `tidemill.client`. Where the server is and who we are is looked for in the arguments, then in
TIDEMILL_URL, TIDEMILL_SECRET_ID and TIDEMILL_SECRET_KEY, then in tidemill.toml, then in the data folder of a server
here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from tidemill.domain.errors import (
    LimitExceeded,
    NotAuthenticated,
    ServerUnreachable,
    StorageFull,
    StorageUnavailable,
    Temporary,
    TidemillError,
)
from tidemill.settings import load_settings
from tidemill.wire.problem_views import Problem

M = TypeVar("M", bound=BaseModel)
Content = bytes | Callable[[], Iterable[bytes]]
"""A body: bytes, or what begins to read it anew for each try."""
Params = Mapping[str, str | int | float | bool | list[str] | None]

ATTEMPTS = 6
"""Of a call that may be repeated: about ten seconds, enough for a server that is being restarted."""
PAUSE_S = 0.2
ANSWER_S = 60.0
LONG_ANSWER_S = 3600.0
"""For what takes as long as there is data: the end of an upload, the unpacking of an archive."""
TIMEOUT = httpx.Timeout(connect=5.0, read=ANSWER_S, write=60.0, pool=60.0)
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
    credentials: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
) -> Credentials:
    """The server and key to use. credentials: a file with secret_id and secret_key. data: the data folder of a local
    server.

    What is not given is taken from the settings: variables, then tidemill.toml, then their defaults.
    Raises NotAuthenticated or ServerUnreachable, saying what was looked for where.
    """
    overrides = {
        "client.url": url,
        "client.secret_id": secret_id,
        "client.secret_key": secret_key,
        "client.credentials": None if credentials is None else str(credentials),
        "data": None if data is None else str(data),
    }
    settings = load_settings(None, os.environ, overrides).settings
    given, folder = settings.client, settings.data
    url, secret_id = given.url, given.secret_id
    secret_key = given.secret_key.get_secret_value() if given.secret_key else None
    if url is None:
        url = _read_json(folder / "server.json").get("url")
        if url is None:
            raise ServerUnreachable(
                f"no server is named, and none has left its address in {folder}.",
                remedy="Start one with `tidemill serve`, or set TIDEMILL_URL.",
            )
    if secret_id is None or secret_key is None:
        file = given.credentials or folder / "root-credentials.json"
        found = _read_json(file)
        secret_id, secret_key = found.get("secret_id"), found.get("secret_key")
        if secret_id is None or secret_key is None:
            raise NotAuthenticated(
                f"no credential is given, and there is none in {file}.",
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
        # The key is in a header, so nothing may lead it elsewhere: no redirects, no proxy of the environment for a
        # local server.
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

    def post(
        self,
        path: str,
        view: type[M],
        body: object,
        params: Params | None = None,
        *,
        idempotency_key: str | None = None,
        again: bool = False,
        answer_s: float = ANSWER_S,
    ) -> M:
        """body: JSON. Repeated after a lost answer only under an idempotency key, or where `again` says that it does
        no harm.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        again = again or idempotency_key is not None
        return _read(
            self.send("POST", path, params=params, json=body, headers=headers, again=again, answer_s=answer_s), view
        )

    def patch(self, path: str, view: type[M], body: object, params: Params | None = None) -> M:
        return _read(self.send("PATCH", path, params=params, json=body, again=True), view)

    def put(
        self,
        path: str,
        view: type[M],
        content: Content,
        params: Params | None = None,
        *,
        size: int,
    ) -> M:
        """content of `size` bytes."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        sent = self.send("PUT", path, params=params, content=content, headers=headers, answer_s=LONG_ANSWER_S)
        return _read(sent, view)

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
        content: Content | None = None,
        again: bool | None = None,
        answer_s: float = ANSWER_S,
    ) -> httpx.Response:
        """One call and its answer. again: whether it may be repeated (None: as the method allows). answer_s:
        how long the server may take for it.

        Raises the error that the server answered with, or ServerUnreachable.
        """
        repeatable = method in ("GET", "HEAD", "PUT", "DELETE") if again is None else again
        for attempt in patient(ATTEMPTS if repeatable else 1):
            with attempt, _network(self.url):
                body = content() if callable(content) else content
                timeout = httpx.Timeout(connect=5.0, read=answer_s, write=60.0, pool=60.0)
                response = self._http.request(
                    method, path, params=_clean(params), headers=headers, json=json, content=body, timeout=timeout
                )
                raise_problem(response)
        return response

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float = 60.0,
    ) -> Iterator[httpx.Response]:
        """A GET whose body is read bit by bit. silence_s: without a byte for so long, the connection is given up."""
        timeout = httpx.Timeout(connect=5.0, read=silence_s, write=60.0, pool=60.0)
        with _network(self.url):
            with self._http.stream("GET", path, params=_clean(params), headers=headers, timeout=timeout) as response:
                if response.status_code >= 300:
                    response.read()
                    raise_problem(response)
                yield response


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def patient(attempts: int = ATTEMPTS) -> Retrying:
    """Tries again what may go away by itself, with growing pauses. What a server says of its storage is told at once:
    it has tried for a while itself.
    """
    return Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=PAUSE_S, max=4.0) + wait_random(0, PAUSE_S),
        retry=retry_if_exception_type((Temporary, LimitExceeded))
        & retry_if_not_exception_type((StorageUnavailable, StorageFull)),
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
            f"HTTP {response.status_code} {response.reason_phrase} of {_call(response)}.",
            remedy="Is this the address of a Tidemill server?",
        ) from None
    kind = classes.get(problem.code, Temporary if problem.status in AGAIN_STATUS else TidemillError)
    error = kind(problem.detail, field=problem.field, remedy=problem.remedy)
    if problem.status == 500 and problem.request_id:
        error.remedy = f"See the server's log for request {problem.request_id}."
    raise error


def _call(response: httpx.Response) -> str:
    return f"{response.request.method} {response.request.url.path}"


def _tree(kind: type[TidemillError]) -> Iterator[type[TidemillError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _read(response: httpx.Response, view: type[M]) -> M:
    try:
        return view.model_validate_json(response.content)
    except ValidationError as error:
        raise TidemillError(
            f"the answer of {_call(response)} is not what was expected.",
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
