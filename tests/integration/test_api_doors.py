"""The doors themselves: who may pass, what they answer to nonsense, and what they never show."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from tests.integration.api_world import World, open_world
from tidemill.domain.errors import StoreUnavailable
from tidemill.settings import LimitsSection
from tidemill_runtime.contract import CONTRACT_VERSION, Orders, Report

PUBLIC = {("GET", "/healthz"), ("GET", "/readyz")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all: nothing here changes anything."""
    folder = tmp_path_factory.mktemp("doors")
    limits = LimitsSection(body_bytes=100_000)
    with open_world(folder / "data", f"sqlite:///{folder}/store.db", limits=limits) as made:
        made.put_input()
        yield made


def operations(world: World) -> list[tuple[str, str]]:
    with world.http() as http:
        document = http.get("/openapi.json").json()
    found = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    return [(method, path.replace("{sha256}", "0" * 64).replace("{digest}", "0" * 64)) for method, path in found]


def test_nothing_answers_without_a_good_credential(world: World) -> None:
    good = f"{world.root.secret_id}.{world.root.secret_key}"
    bad: list[dict[str, str]] = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer ."},
        {"Authorization": f"Bearer {world.root.secret_id}"},
        {"Authorization": f"Bearer {world.root.secret_id}."},
        {"Authorization": f"Bearer {good}x"},
        {"Authorization": f"Bearer {good[:-1]}"},
        {"Authorization": f"Bearer x{good}"},
        {"Authorization": f"Basic {good}"},
        {"Authorization": good},
        {"Authorization": f"Bearer TMuser.{world.root.secret_key}"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"X-Authorization": f"Bearer {good}"},
    ]
    extra = [("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/docs"), ("GET", "/api/v1/nothing"), ("GET", "/")]
    extra += [("OPTIONS", "/api/v1/tasks"), ("TRACE", "/api/v1/tasks"), ("GET", "/healthz/"), ("GET", "//healthz")]
    with httpx.Client(base_url=world.url, trust_env=False) as http:
        for method, path in (*operations(world), *extra):
            for headers in bad if path == "/api/v1/tasks/{task}" else bad[:1] + bad[6:7]:
                answer = http.request(method, path, headers=headers, params={"path": "cos://data/in/"})
                if (method, path) in PUBLIC:
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or answer.json()["code"] == "not_authenticated"


def test_two_credentials_are_refused(world: World) -> None:
    good = f"Bearer {world.root.secret_id}.{world.root.secret_key}"
    headers = [("Authorization", good), ("Authorization", "Bearer a.b")]
    assert httpx.get(f"{world.url}/api/v1/tasks", headers=headers, trust_env=False).status_code == 400


def test_a_good_credential_passes_everywhere(world: World) -> None:
    with world.http() as http:
        for method, path in operations(world):
            with http.stream(method, path, params={"path": "cos://data/in/", "name": "x"}) as answer:
                assert answer.status_code not in (401, 403), (method, path)
                assert answer.status_code < 500, (method, path)


def test_what_does_not_exist_is_a_problem(world: World) -> None:
    with world.http() as http:
        for method, path, status in (
            ("GET", "/nothing", 404), ("GET", "/docs", 404), ("GET", "/redoc", 404), ("GET", "/api/v1/tasks/", 404),
            ("PUT", "/api/v1/tasks", 405), ("OPTIONS", "/api/v1/tasks", 405), ("GET", "/api/v1/tasks/../../etc", 404),
            ("GET", "/api/v1/tasks/%00", 404), ("GET", "/api/v1/models/%2e%2e%2f", 404),
            ("GET", "/api/v1/tasks/%ff", 404),
        ):  # fmt: skip
            answer = http.request(method, path)
            assert answer.status_code == status, (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status


HOSTILE: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("not JSON", b"name: x"),
    ("cut", b'{"name": "x"'),
    ("array", b"[]"),
    ("null", b"null"),
    ("number", b"1"),
    ("text", b'"x"'),
    ("deep array", b"[" * 50_000),
    ("deep object", b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    ("deep inside", b'{"name": "x", "env": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001),
    ("not UTF-8", b'{"name": "\xff\xfe"}'),
    ("half a surrogate", b'{"name": "x", "model": "m", "description": "\\ud800", "input": "a", "output": "b"}'),
    ("NUL", b'{"name": "x\\u0000", "model": "m", "input": "cos://data/in/", "output": "x"}'),
    ("NaN", b'{"name": "x", "model": "m", "input": "a", "output": "b", "resources": {"gpu": NaN}}'),
    ("infinity", b'{"name": "x", "model": "m", "input": "a", "output": "b", "deadline": Infinity}'),
    ("huge number", b'{"name": "x", "model": "m", "input": "a", "output": "b", "priority": ' + b"9" * 5000 + b"}"),
    ("huge exponent", b'{"name": "x", "model": "m", "input": "a", "output": "b", "deadline": 1e999}'),
    ("duplicate keys", b'{"name": "x", "name": "y"}'),
    ("prototype", b'{"__class__": "x", "__proto__": {}}'),
    ("too long", b'{"name": "' + b"x" * 100_001 + b'"}'),
]


@pytest.mark.parametrize("body", [body for _, body in HOSTILE], ids=[name for name, _ in HOSTILE])
def test_hostile_bodies(world: World, body: bytes) -> None:
    with world.http() as http:
        for method, path in (
            ("POST", "/api/v1/tasks"), ("POST", "/api/v1/tasks/x/resume"), ("POST", "/api/v1/models/m/versions"),
            ("PATCH", "/api/v1/models/m"), ("POST", "/api/v1/packages"), ("POST", "/api/v1/blobs/missing"),
        ):  # fmt: skip
            for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                answer = http.request(method, path, content=body, headers={"Content-Type": kind})
                assert 400 <= answer.status_code < 500, (method, path, kind, answer.text)
                problem = answer.json()
                assert "Traceback" not in answer.text
                assert len(answer.text) < 3000
                assert problem["detail"]
        assert http.get("/api/v1/tasks").json()["total"] == 0


def test_bodies_are_limited_also_without_a_length(world: World) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    with world.http() as http:
        answer = http.post("/api/v1/tasks", content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=x", "limit=99999999999999999999", "cursor=%00", "cursor=%ff", "status=NONE",
        "order_by=name", "order=up", "created_after=yesterday", "created_after=99999-01-01T00:00:00Z",
        "name=" + "x" * 100, "region=nowhere",
    ],
)  # fmt: skip
def test_hostile_queries(world: World, query: str) -> None:
    with world.http() as http:
        answer = http.get(f"/api/v1/tasks?{query}")
        assert answer.status_code == 422, answer.text
        assert answer.json()["field"]


@pytest.mark.parametrize("query", ["name=%00", "name_contains=%00", "tag=%00", "tag=a:%00", "model=%00", "name=%ff%fe"])
def test_bytes_that_no_database_takes(world: World, query: str) -> None:
    with world.http() as http:
        assert http.get(f"/api/v1/tasks?{query}").status_code in (200, 422)


def test_an_unexpected_error_shows_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret is swordfish")

    monkeypatch.setattr(world.services.models, "get", broken)
    with world.http() as http:
        answer = http.get("/api/v1/models/x", headers={"X-Request-Id": "asked-for"})
    assert answer.status_code == 500
    assert "swordfish" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "asked-for"


def test_request_ids_cannot_smuggle(world: World) -> None:
    with world.http() as http:
        for given in ("a b", "x" * 65, "ü", "<script>"):
            headers = [(b"X-Request-Id", given.encode())]
            assert http.get("/healthz", headers=headers).headers["x-request-id"] != given


def test_raw_nonsense_does_not_hurt(world: World) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    for raw in (
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), 5) as connection:
            connection.settimeout(5)
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            assert b" 500 " not in connection.recv(4096)
    with httpx.Client(base_url=world.url, trust_env=False) as http:
        assert http.get("/healthz").json() == {"status": "ok", "problems": []}
        assert http.get("/readyz").json()["status"] == "ok"


def test_not_ready_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> None:
        raise StoreUnavailable("the database does not answer.")

    monkeypatch.setattr(world.store, "check", dead)
    answer = httpx.get(f"{world.url}/readyz", trust_env=False)
    assert (answer.status_code, answer.json()["problems"]) == (503, ["the database does not answer."])


def test_metrics(world: World) -> None:
    with world.http() as http:
        text = http.get("/metrics").text
        assert 'tidemill_tasks{status="RUNNING"} 0.0' in text
        assert "tidemill_capacity_cores" in text
        assert "process_resident_memory_bytes" in text
        http.get("/api/v1/tasks/batch-x/progress")
        http.get("/anything")
        text = http.get("/metrics").text
        assert 'tidemill_http_requests_total{method="GET",route="/api/v1/tasks/{task}/progress",status="404"} ' in text
        assert 'route="none"' in text
        assert "batch-x" not in text
        assert "anything" not in text


def test_server(world: World) -> None:
    with world.client() as client:
        about = client.server()
        assert (about.regions, about.engine, about.buckets) == (["local"], "fake", {"local": ["data"]})
        assert "data" in client._repr_html_()


# the runner door


def _report(**changes: Any) -> bytes:
    return msgspec.json.encode(Report(CONTRACT_VERSION, "i", "starting", **changes))


def test_runner_door(world: World) -> None:
    url = f"{world.url}/runner/v1/report"
    with httpx.Client(trust_env=False, headers={"Authorization": "Bearer instance.token"}) as http:
        answer = http.post(url, content=_report(want=3))
        assert msgspec.json.decode(answer.content, type=Orders).directive == "wait"
        assert world.reports[-1][0] == "instance.token"
        assert world.reports[-1][1].want == 3
        for body in (b"", b"{}", b"[" * 100_000, b'{"version": "x"}', b"\xff", _report()[:-3]):
            refused = http.post(url, content=body)
            assert refused.status_code in (413, 422), body[:20]
        assert http.post(url, content=b" " * 100_001).status_code == 413
        assert http.post(url, content=_report().replace(b'"version":1', b'"version":99')).status_code == 426
        assert http.get(url).status_code == 405
        assert http.post(f"{world.url}/runner/v1/other", content=b"").status_code == 401
        assert http.post(f"{world.url}/runner/../api/v1/tasks", content=b"").status_code == 401
    assert httpx.post(url, content=_report(), trust_env=False).status_code == 401


# its description


def test_openapi_is_complete(world: World) -> None:
    with world.http() as http:
        document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert len(re.findall("https?://", json.dumps(document))) < 5, "nothing of it is fetched from elsewhere"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert "HTTPValidationError" not in json.dumps(operation), where
            assert "default" in operation["responses"], where
            for status, response in operation["responses"].items():
                if status.startswith("2") and method != "head":
                    content = next(iter(response["content"].values()))
                    assert "example" in content, where
            if "requestBody" in operation:
                assert "example" in next(iter(operation["requestBody"]["content"].values())), where
            for parameter in operation.get("parameters", ()):
                if parameter["required"]:
                    assert "example" in parameter, f"{where} {parameter['name']}"
