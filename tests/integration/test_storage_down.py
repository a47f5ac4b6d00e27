"""A storage that answers 503 to everything: who asks is told within seconds, with the field and what to do."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine
from tests.integration.local_world import World
from tidemill.bootstrap import build_server
from tidemill.domain.errors import InvalidValue, NotFound, StorageUnavailable
from tidemill.services.access import ROOT_ACCOUNT, Actor
from tidemill.settings import BucketSection, RegionSection, Secret, Settings
from tidemill.wire.taskfile import parse_task

ROOT = Actor(ROOT_ACCOUNT, "root", operator=True)
MODEL = "class Model:\n    def load(self): return True\n    def predict(self, batch: list[dict]): return batch\n"


class Busy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 503
    code = "SlowDown"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815 - names of the base class

    def log_message(self, *_: object) -> None:
        return


class NoBucket(Busy):
    status = 404
    code = "NoSuchBucket"


def serve(handler: type[Busy]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def busy() -> Iterator[str]:
    yield from serve(Busy)


@pytest.fixture
def bucketless() -> Iterator[str]:
    yield from serve(NoBucket)


def bucket(endpoint: str) -> BucketSection:
    return BucketSection(url="s3://b", endpoint=endpoint, access_key="k", secret_key=Secret("s"))


@pytest.mark.parametrize("field", ["input", "output"])
def test_creating_a_task_is_refused_within_seconds(tmp_path: Path, busy: str, field: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    regions = {"local": RegionSection(buckets={"data": BucketSection(), "down": bucket(busy)})}
    server = build_server(Settings(data=data, regions=regions), engine=FakeEngine())
    (tmp_path / "model/batch").mkdir(parents=True)
    (tmp_path / "model/batch/model_service.py").write_text(MODEL)
    (data / "buckets/data/in").mkdir(parents=True)
    (data / "buckets/data/in/a.jsonl").write_text("{}\n")
    given = {"name": "t", "model": str(tmp_path / "model"), "input": "cos://data/in/", "output": "cos://data/out/"}
    task = parse_task({**given, field: "cos://down/x/"})
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="SlowDown") as caught:
        server.services.tasks.create(ROOT, task, None)
    assert time.monotonic() - began < 8
    assert caught.value.field == f"{field}.path"
    assert "try again" in str(caught.value.remedy)
    server.store.close()


@pytest.mark.parametrize("field", ["input", "output"])
def test_a_run_is_refused_within_seconds(tmp_path: Path, busy: str, field: str) -> None:
    world = World(tmp_path).model().file("in/a.jsonl", '{"x": 1}\n').bucket("down", bucket(busy))
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="SlowDown") as caught:
        world.run(**{field: "cos://down/x/"})
    assert time.monotonic() - began < 8
    assert caught.value.field == f"{field}.path"


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    import os

    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("scheme", ["s3", "cos"])
def test_a_bucket_that_nothing_describes_is_refused_at_once(
    tmp_path: Path, no_variables: pytest.MonkeyPatch, scheme: str
) -> None:
    world = World(tmp_path).model().file("in/a.jsonl", '{"x": 1}\n')
    with pytest.raises(InvalidValue, match="bucket 'tpyo' is not declared") as caught:
        world.run(input=f"{scheme}://tpyo/in/")
    assert caught.value.field == "input.path"
    for name in ("cos://data/", "regions.local.buckets.tpyo", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"):
        assert name in str(caught.value.remedy)


def test_a_cos_bucket_is_not_looked_for_at_amazon(tmp_path: Path, no_variables: pytest.MonkeyPatch) -> None:
    no_variables.setenv("AWS_ACCESS_KEY_ID", "k")
    no_variables.setenv("AWS_SECRET_ACCESS_KEY", "s")
    world = World(tmp_path).model().file("in/a.jsonl", '{"x": 1}\n')
    with pytest.raises(InvalidValue, match="AWS_ENDPOINT_URL is not set") as caught:
        world.run(input="cos://tpyo/in/")
    assert caught.value.field == "input.path"


def test_where_an_undeclared_bucket_was_looked_for_is_told(
    tmp_path: Path, no_variables: pytest.MonkeyPatch, bucketless: str
) -> None:
    no_variables.setenv("AWS_ACCESS_KEY_ID", "k")
    no_variables.setenv("AWS_SECRET_ACCESS_KEY", "s")
    no_variables.setenv("AWS_ENDPOINT_URL", bucketless)
    world = World(tmp_path).model().file("in/a.jsonl", '{"x": 1}\n')
    with pytest.raises(NotFound, match="does not exist") as caught:
        world.run(input="s3://tpyo/in/")
    assert f"looked for at {bucketless} (AWS_ENDPOINT_URL)" in str(caught.value.remedy)
    assert "is not declared" in str(caught.value.remedy)
