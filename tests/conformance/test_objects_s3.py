"""What is particular to S3: markers of folders, prefixes, refusals, silence, keys of the environment."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import S3Bucket
from tidemill.domain.errors import (
    InvalidValue,
    NotFound,
    StorageDenied,
    StorageFull,
    StorageUnavailable,
)
from tidemill.domain.location import Location
from tidemill.objects import s3 as s3_module
from tidemill.objects.region import open_region
from tidemill.objects.s3 import S3Objects
from tidemill.objects.s3_store import S3Config, open_store
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret

ROOT = Location("cos", "data", "")


def section(s3: S3Bucket, *, prefix: str = "", secret: str | None = None, endpoint: str | None = None) -> BucketSection:
    return BucketSection(
        url=f"s3://{s3.bucket}{prefix}",
        endpoint=endpoint or s3.endpoint,
        access_key=s3.key,
        secret_key=Secret(secret or s3.secret),
        region=s3.region,
    )


def test_folder_markers_are_no_objects(s3: S3Bucket, tmp_path: Path) -> None:
    keys = ["in/", "in/a/", "in/a/x", "in/a-b", "in/empty", "in/m/", "top/"]
    for key in keys:
        s3.client.put_object(s3.bucket, key, io.BytesIO(b""), 0)
    objects = open_region({"data": section(s3)}, tmp_path, local_paths=False)
    assert [info.name for info in objects.list(ROOT.child("in/"))] == ["a-b", "a/x", "empty"]
    assert [info.name for info in objects.list(ROOT)] == ["in/a-b", "in/a/x", "in/empty"]
    assert [info.name for info in objects.list(ROOT.child("in/m/"))] == []
    assert objects.is_folder(ROOT.child("in/m"))
    objects.delete_below(ROOT.child("in/"))
    assert [info.name for info in objects.list(ROOT)] == []


def test_a_bucket_is_its_prefix_and_nothing_more(s3: S3Bucket, tmp_path: Path) -> None:
    for key in ["own/x", "ownership/y", "z"]:
        s3.client.put_object(s3.bucket, key, io.BytesIO(b"1"), 1)
    objects = open_region({"data": section(s3, prefix="/own/")}, tmp_path, local_paths=False)
    assert [info.name for info in objects.list(ROOT)] == ["x"]
    for name in ["../z", "a/../../z", "/z"]:
        with pytest.raises(InvalidValue):
            objects.read(ROOT.child(name))
        with pytest.raises(InvalidValue):
            objects.delete([ROOT.child(name)])
        with pytest.raises(InvalidValue):
            objects.grant_read(ROOT.child(name), 60)
    objects.delete_below(ROOT)
    left = [found.object_name for found in s3.client.list_objects(s3.bucket, recursive=True)]
    assert left == ["ownership/y", "z"]


def test_names_that_cannot_be_used_are_named(s3: S3Bucket, tmp_path: Path) -> None:
    s3.client.put_object(s3.bucket, "in/tab\there", io.BytesIO(b"1"), 1)
    objects = open_region({"data": section(s3)}, tmp_path, local_paths=False)
    with pytest.raises(InvalidValue, match="tab\there"):
        list(objects.list(ROOT.child("in/")))
    s3.client.remove_object(s3.bucket, "in/tab\there")


def test_wrong_keys_and_missing_buckets(s3: S3Bucket, tmp_path: Path) -> None:
    objects = open_region({"data": section(s3, secret="wrong")}, tmp_path, local_paths=False)
    for call in (
        lambda: objects.head(ROOT.child("x")),
        lambda: list(objects.list(ROOT)),
        lambda: objects.read(ROOT.child("x"), 0, 5),
        lambda: objects.create(ROOT.child("x"), b""),
        lambda: objects.check_writable(ROOT),
    ):
        with pytest.raises(StorageDenied, match="cos://data/"):
            call()
    missing = BucketSection(
        url=f"s3://{s3.bucket}-not", endpoint=s3.endpoint, access_key=s3.key, secret_key=Secret(s3.secret)
    )
    objects = open_region({"data": missing}, tmp_path, local_paths=False)
    with pytest.raises(NotFound, match="bucket"):
        list(objects.list(ROOT))
    with pytest.raises(NotFound, match="bucket"):
        objects.check_writable(ROOT)


def test_the_environments_keys(s3: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    monkeypatch.setenv("AWS_REGION", s3.region)
    objects = open_region({}, tmp_path, local_paths=True, environment_buckets=True)
    where = Location("s3", s3.bucket, "x")
    objects.put(where, b"1")
    assert objects.read(where) == b"1"


def test_declared_keys_do_not_mix_with_the_environments(
    s3: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    objects = open_region({"data": section(s3)}, tmp_path, local_paths=False)
    objects.put(ROOT.child("x"), b"1")
    assert objects.read(ROOT.child("x")) == b"1"


def test_results_too_large_to_be_copied(s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "COPY_BYTES_MAX", 1000)
    store = open_store(S3Config(s3.bucket, s3.endpoint, s3.key, s3.secret, s3.region))
    objects = S3Objects(store, small_bytes=100)
    target, staging = ROOT.child("big"), ROOT.child("_tidemill/tmp")
    made = objects.compose(target, [b"x" * 2000], staging=staging)
    assert objects.compose(target, [b"x" * 2000], staging=staging) == made
    assert objects.read(target) == b"x" * 2000
    assert [info.name for info in objects.list(ROOT)] == ["big"]


class Answers(BaseHTTPRequestHandler):
    """A storage that answers one status to everything."""

    status = 503
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server asks for these names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
        pass


@pytest.fixture
def storage() -> Iterator[ThreadingHTTPServer]:
    yield from serving(type("Handler", (Answers,), {}))


def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False  # a client keeps its connections
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class LosesAnswers(BaseHTTPRequestHandler):
    """Hands requests on to a real store, and loses one of its answers to a write: the client tries again."""

    store = ""
    lose = 1
    writes = 0
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = HTTPConnection(self.store)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        text = answer.read()
        status = answer.status
        if self.command in ("PUT", "POST") and status == 200:
            type(self).writes += 1
            if type(self).writes == self.lose:
                status, text = 503, b""
        self.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        self.send_header(
            "Content-Length", answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(text))
        )
        self.end_headers()
        connection.close()
        self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT  # noqa: N815 - the same

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
        pass


@pytest.fixture
def losing(s3: S3Bucket) -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (LosesAnswers,), {"store": urlsplit(s3.endpoint).netloc})
    yield from serving(handler)


def test_our_own_write_whose_answer_was_lost(s3: S3Bucket, losing: ThreadingHTTPServer) -> None:
    endpoint = f"http://127.0.0.1:{losing.server_port}"
    handler = losing.RequestHandlerClass
    objects = S3Objects(open_store(S3Config(s3.bucket, endpoint, s3.key, s3.secret, s3.region)), small_bytes=1000)
    assert objects.create(ROOT.child("claim"), b"mine")
    assert handler.writes == 1  # type: ignore[attr-defined]
    assert not objects.create(ROOT.child("claim"), b"mine")
    handler.writes = 0  # type: ignore[attr-defined]
    made = objects.compose(ROOT.child("small"), [b"x" * 100], staging=ROOT.child("staging"))
    assert handler.writes == 1  # type: ignore[attr-defined]
    assert made.size == 100
    assert [info.name for info in objects.list(ROOT)] == ["claim", "small"]


@pytest.mark.parametrize("lose", range(1, 12))
@pytest.mark.parametrize("size", [5_000, 9_000_000])
def test_a_large_result_with_an_answer_lost(lose: int, size: int, s3: S3Bucket, losing: ThreadingHTTPServer) -> None:
    endpoint = f"http://127.0.0.1:{losing.server_port}"
    handler = losing.RequestHandlerClass
    handler.lose = lose  # type: ignore[attr-defined]
    objects = S3Objects(open_store(S3Config(s3.bucket, endpoint, s3.key, s3.secret, s3.region)), small_bytes=1000)
    made = objects.compose(ROOT.child("large"), [b"x" * size], staging=ROOT.child("staging"))
    assert made.size == size
    assert objects.read(ROOT.child("large")) == b"x" * size
    assert [info.name for info in objects.list(ROOT)] == ["large"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (503, StorageUnavailable),
        (500, StorageUnavailable),
        (429, StorageUnavailable),
        (507, StorageFull),
        (403, StorageDenied),
        (400, StorageDenied),
    ],
)
def test_a_storage_that_does_not_answer_as_it_should(
    status: int, error: type[Exception], storage: ThreadingHTTPServer
) -> None:
    storage.RequestHandlerClass.status = status  # type: ignore[attr-defined]
    endpoint = f"http://127.0.0.1:{storage.server_port}"
    objects = S3Objects(open_store(S3Config("b", endpoint, "key", "secret", retry_s=0.3)))
    begun = time.monotonic()
    for call in (
        lambda: objects.head(ROOT.child("x")),
        lambda: list(objects.list(ROOT)),
        lambda: objects.put(ROOT.child("x"), b"1"),
    ):
        with pytest.raises(error):
            call()
    assert time.monotonic() - begun < 15  # three times 0.3 s and a pause


def test_a_storage_that_comes_back(storage: ThreadingHTTPServer) -> None:
    handler = storage.RequestHandlerClass

    def recover() -> None:
        while handler.requests < 3:  # type: ignore[attr-defined]
            time.sleep(0.01)
        handler.status = 404  # type: ignore[attr-defined]

    thread = threading.Thread(target=recover)
    thread.start()
    endpoint = f"http://127.0.0.1:{storage.server_port}"
    objects = S3Objects(open_store(S3Config("b", endpoint, "key", "secret", retry_s=30)))
    assert objects.head(ROOT.child("x")) is None
    thread.join()


def test_nobody_listens() -> None:
    objects = S3Objects(open_store(S3Config("b", "http://127.0.0.1:9", "key", "secret", retry_s=0.2)))
    with pytest.raises(StorageUnavailable):
        objects.head(ROOT.child("x"))
