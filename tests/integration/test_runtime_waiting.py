"""A storage that answers 503 for a while: the instance says so within seconds, goes on by itself, loses nothing."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.runtime_coordinator import Bench, Coordinator, Split, serve_socket
from tidemill_runtime.contract import Access, Lease, PartTarget, Report

ECHO = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]): return batch
"""
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message><RequestId>17</RequestId></Error>"


class FlakyStore:
    """Objects by HTTP, kept in memory. busy: methods that are answered 503."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.busy: set[str] = set()
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                self.answer(206, store.objects[self.path][int(first) : int(last) + 1])

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if "PUT" not in store.busy:
                    store.objects[self.path] = data
                self.answer(200, b"")

            def answer(self, status: int, data: bytes) -> None:
                if self.command in store.busy:
                    status, data = 503, SLOW_DOWN
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FlakyStore:  # noqa: PYI034 (Python 3.9)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class UrlCoordinator(Coordinator):
    store: FlakyStore

    def lease(self, split: Split) -> Lease:
        lease = super().lease(split)
        url = f"{self.store.url}/{lease.part.name}"
        return replace(lease, part=PartTarget(lease.part.name, Access("url", url)))

    def accept(self, split: Split, commit: object) -> None:
        part = commit.part  # type: ignore[attr-defined]
        (self.parts / part).write_bytes(self.store.objects[f"/{part}"])
        super().accept(split, commit)  # type: ignore[arg-type]


@pytest.fixture
def store() -> Iterator[FlakyStore]:
    with FlakyStore() as made:
        yield made


@pytest.mark.parametrize(("method", "what"), [("GET", "a.jsonl cannot be read"), ("PUT", "cannot be written")])
def test_waiting_is_told_within_seconds_and_taken_back(
    tmp_path: Path, store: FlakyStore, method: str, what: str
) -> None:
    bench = Bench(tmp_path)
    bench.model(ECHO).file("a.jsonl", "".join(f'{{"i": {i}}}\n' for i in range(100)))
    (listed,) = bench.objects()
    store.objects["/in"] = Path(listed.get.location).read_bytes()
    store.busy.add(method)
    split = Split(0, [replace(listed, etag="", get=Access("url", f"{store.url}/in"))])
    coordinator = UrlCoordinator(tmp_path / "parts", [split])
    coordinator.store = store
    running: list[float] = []
    told: list[tuple[float, str]] = []

    def heard(report: Report) -> None:
        if report.state == "running" and not running:
            running.append(time.monotonic())
        if report.waiting and not told:
            told.append((time.monotonic(), report.waiting))
            store.busy.clear()

    coordinator.on_report = heard
    with bench.instance(coordinator, 60) as process:
        serve_socket(coordinator, process.channel, 60)  # type: ignore[attr-defined]
        assert process.wait(30) == 0, bench.log()
    ((at, words),) = told
    assert at - running[0] < 6.0
    assert what in words
    assert words.endswith("the storage answers HTTP 503 (SlowDown: Reduce your request rate)")
    assert coordinator.reports[-1].waiting == ""
    assert [json.loads(line) for line in coordinator.results()["a.jsonl"].splitlines()] == [
        {"i": i} for i in range(100)
    ]
