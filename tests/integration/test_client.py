"""The Python client: where it finds a server, what it does when that goes away, what it shows."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tidemill
from tests.integration.api_world import USER, World, open_world
from tidemill.client import connection, watching
from tidemill.client.connection import find_credentials
from tidemill.client.watching import read_events
from tidemill.domain.errors import (
    InvalidValue,
    NotAuthenticated,
    NotFound,
    ServerUnreachable,
    StorageUnavailable,
    TidemillError,
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine, and short pauses."""
    for name in ("TIDEMILL_URL", "TIDEMILL_SECRET_ID", "TIDEMILL_SECRET_KEY", "TIDEMILL_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "PAUSE_S", 0.01)
    monkeypatch.setattr(watching, "AGAIN_S", 0.01)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path / "data", f"sqlite:///{tmp_path}/store.db") as made:
        yield made


def test_credentials_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "home" / ".local" / "share" / "tidemill"
    with pytest.raises(ServerUnreachable, match="tidemill serve"):
        find_credentials()
    data.mkdir(parents=True)
    (data / "server.json").write_text('{"url": "http://127.0.0.1:7401/"}')
    with pytest.raises(NotAuthenticated, match=r"root-credentials\.json"):
        find_credentials()
    (data / "root-credentials.json").write_text('{"secret_id": "a", "secret_key": "b"}')
    found = find_credentials()
    assert (found.url, found.secret_id, found.secret_key) == ("http://127.0.0.1:7401", "a", "b")
    assert "secret_key" not in repr(found)
    monkeypatch.setenv("TIDEMILL_URL", "http://10.0.0.1:80")
    monkeypatch.setenv("TIDEMILL_SECRET_ID", "c")
    monkeypatch.setenv("TIDEMILL_SECRET_KEY", "d")
    found = find_credentials()
    assert (found.url, found.secret_id, found.secret_key) == ("http://10.0.0.1:80", "c", "d")
    (tmp_path / "key.json").write_text('{"secret_id": "e", "secret_key": "f"}')
    assert find_credentials(url="http://x", secret_id="g", secret_key="h").secret_key == "h"
    monkeypatch.delenv("TIDEMILL_SECRET_ID")
    assert find_credentials(credentials=tmp_path / "key.json").secret_id == "e"
    other = tmp_path / "other"
    other.mkdir()
    (other / "server.json").write_text('{"url": "http://127.0.0.1:1"}')
    monkeypatch.delenv("TIDEMILL_URL")
    assert find_credentials(data=other, secret_id="a", secret_key="b").url == "http://127.0.0.1:1"


def test_errors_come_back_as_they_were(world: World) -> None:
    with world.client() as client:
        with pytest.raises(NotFound) as missing:
            client.models.get("nobody")
        assert missing.value.field == "model"
        assert missing.value.remedy
        with pytest.raises(InvalidValue) as invalid:
            client.tasks.create({"name": "t", "model": "m", "input": "cos://data/x/"})
        assert invalid.value.field == "output"
    with tidemill.Client(world.url, secret_id="x", secret_key="y") as wrong, pytest.raises(NotAuthenticated):
        wrong.server()


def test_nobody_there() -> None:
    with tidemill.Client("http://127.0.0.1:9", secret_id="a", secret_key="b") as client:
        with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9 does not answer"):
            client.server()
        assert "does not answer" in client._repr_html_()


def test_not_a_tidemill_server() -> None:
    with flaky(["html"]) as (client, _), pytest.raises(TidemillError, match="Is this the address"):
        client.server()


def test_what_may_be_repeated_is(world: World) -> None:
    with flaky(["drop", "503", "pass"], world) as (client, seen):
        assert client.server().engine == "fake"
        assert seen == ["GET /api/v1/server"] * 3


def test_a_task_is_created_once_though_the_answer_is_lost(world: World) -> None:
    world.put_input()
    with world.client() as direct:
        direct.models.import_("doubler", world.put_model())
    with flaky(["lose", "pass"], world) as (client, seen):
        client.tasks.create(world.task())
        assert seen == ["POST /api/v1/tasks"] * 2
        with world.client() as direct:
            assert direct.tasks.list().total == 1


def test_what_may_not_be_repeated_is_not(world: World) -> None:
    with flaky(["drop", "pass"], world) as (client, seen):
        with pytest.raises(ServerUnreachable):
            client.tasks.resume("batch-x")
        assert len(seen) == 1


def test_uploads_begin_anew_after_a_break(world: World, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0123456789" * 200_000)
    with flaky(["drop", "pass"], world) as (client, seen):
        assert client.objects.put("cos://data/big", tmp_path / "big").size_bytes == 2_000_000
        assert len(seen) == 2
    assert (world.bucket / "big").read_bytes() == (tmp_path / "big").read_bytes()


def test_downloads_go_on_after_a_break(world: World, tmp_path: Path) -> None:
    data = b"0123456789" * 200_000
    (world.bucket).mkdir(parents=True)
    (world.bucket / "big").write_bytes(data)
    with flaky(["cut", "pass"], world) as (client, seen):
        assert client.objects.get("cos://data/big", tmp_path / "x" / "got").read_bytes() == data
        assert len(seen) == 2
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["got"]


def test_watching_goes_on_after_breaks(world: World) -> None:
    progress = '{"task": "t", "run": "r", "status": "%s", "phase": "%s", "instances": 1}'
    running, done = progress % ("RUNNING", "predicting"), progress % ("SUCCEED", "finished")
    streams = [
        f"id: 7\nevent: progress\ndata: {running}\n\n",  # ends without an end: the server is being stopped
        "",
        f"id: 7\nevent: progress\ndata: {running}\n\n: still here\n\nid: 9\nevent: end\ndata: {done}\n\n",
    ]
    with flaky(["drop", *streams], world) as (client, seen):
        assert [view.status for view in client.tasks.watch("t")] == ["RUNNING", "SUCCEED"]
        assert seen == ["GET /api/v1/tasks/t/watch"] * 2 + ["GET /api/v1/tasks/t/watch after 7"] * 2


def test_waiting_has_an_end(world: World) -> None:
    world.put_input()
    with world.client() as client:
        client.models.import_("doubler", world.put_model())
        task = client.tasks.create(world.task())
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.2 s"):
            client.wait(task, timeout_s=0.2)


def test_it_shows_itself_in_notebooks(world: World) -> None:
    world.put_input()
    with world.client() as client:
        client.models.import_("doubler", world.put_model())
        task = client.tasks.create(world.task(description="<script>alert(1)</script>"))
        shown = task._repr_html_()
        assert "<script>" not in shown
        assert task.id in shown
        assert task.id in client.tasks.list()._repr_html_()
        assert client.models.list()._repr_html_().startswith("<table>")
        assert repr(client) == f"Client({world.url!r})"


def test_events_are_read_as_the_standard_says() -> None:
    text = (
        "\n: comment\nid: 1\nevent: a\ndata: x\ndata:y\n\ndata\n\nid: 2\n\nevent: b\ndata: z\n\nevent: cut\ndata: lost"
    )
    found = [(event.id, event.name, event.data) for event in read_events(text.split("\n"))]
    assert found == [("", "comment", "comment"), ("1", "a", "x\ny"), ("1", "message", ""), ("2", "b", "z")]


def test_what_a_server_says_of_its_storage_is_told_at_once() -> None:
    with flaky(["storage"]) as (client, seen):
        with pytest.raises(StorageUnavailable, match="busy"):
            client.tasks.get("x")
        assert len(seen) == 1


@contextmanager
def flaky(answers: list[str], world: World | None = None) -> Iterator[tuple[tidemill.Client, list[str]]]:
    """A server in front of the world's that gives these answers in turn, the last of them for ever.

    drop: hangs up. lose: hands on, and hangs up. cut: hands on, and hangs up in the middle. pass: hands on. 503, html:
    as they say. storage: a 503 that is the storage's. Anything else is the text of an event stream. Yields a client of
    it, and what it was asked.
    """
    left = list(answers)
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do(self) -> None:
            after = self.headers.get("Last-Event-ID")
            seen.append(f"{self.command} {self.path.split('?')[0]}{f' after {after}' if after else ''}")
            answer = left.pop(0) if len(left) > 1 else left[0]
            self.close_connection = True
            if answer == "drop":
                return
            if answer in ("pass", "lose", "cut"):
                self._hand_on(answer)
            elif answer in ("503", "storage"):
                code = "store_unavailable" if answer == "503" else "storage_unavailable"
                problem = {"title": "x", "status": 503, "detail": "busy", "code": code}
                self._answer(503, json.dumps(problem).encode(), {"Content-Type": "application/problem+json"})
            elif answer == "html":
                self._answer(404, b"<html>", {})
            else:
                self._answer(200, answer.encode(), {"Content-Type": "text/event-stream"})

        do_GET = do_POST = do_PUT = do  # noqa: N815 - names of the base class

        def _hand_on(self, answer: str) -> None:
            assert world is not None
            body = self._body()
            keep = {
                k: v for k, v in self.headers.items() if k.lower() not in ("host", "transfer-encoding", "connection")
            }
            with world.http() as client:
                got = client.request(self.command, self.path, content=body, headers=keep)
            if answer == "lose":
                return
            headers = {k: v for k, v in got.headers.items() if k.lower() in ("content-type", "etag", "content-range")}
            self._answer(got.status_code, got.content, headers, cut=answer == "cut")

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            with tidemill.Client(url, secret_id=USER.secret_id, secret_key=USER.secret_key) as client:
                yield client, seen
        finally:
            server.shutdown()
