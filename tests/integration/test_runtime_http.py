"""Models behind HTTP servers that the package starts: real servers, asked over keep-alive connections."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_coordinator import Bench, Coordinator, pids_below, serve_socket, wait_until
from tidemill_runtime.contract import Command, InputFormat

PYTHON = sys.executable

SERVER = """
    import csv, ctypes, http.server, io, json, os, sys, time
    print("server started", os.getpid())
    BROKEN = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        connected = False

        def setup(self):
            super().setup()
            print("connected", self.client_address[1], file=sys.stderr)

        def log_message(self, *_): pass

        def do_GET(self):
            self.answer(200 if self.path == "/ping" else 404, b"", "text/plain")

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind = self.headers["Content-Type"]
            if len(body) > 8000: return self.answer(413, b"too much", "text/plain")
            if kind == "application/json":
                records = json.loads(body)
                if isinstance(records, dict): records = records["instances"]
            elif kind == "application/jsonlines":
                records = [json.loads(line) for line in body.splitlines()]
            elif kind == "text/csv":
                records = [{"id": int(row[0])} for row in csv.reader(io.StringIO(body.decode()))]
            else:
                return self.answer(200, json.dumps(len(body)).encode(), "application/json")
            found = []
            for record in records:
                poison = record.get("poison")
                if poison == "refuse": return self.answer(422, b"cannot digest it\\nreally", "text/plain")
                if poison == "fail": return self.answer(500, b"Traceback: oh dear", "text/plain")
                if poison == "once" and record["id"] not in BROKEN:
                    BROKEN.add(record["id"])
                    return self.answer(503, b"busy", "text/plain")
                if poison == "die": ctypes.string_at(0)
                if poison == "exit": print("this is the end", file=sys.stderr); os._exit(9)
                if poison == "hang": time.sleep(3600)
                if poison != "short": found.append(record["id"] * 2)
            if kind == "application/json":
                self.answer(200, json.dumps({"predictions": found}).encode(), "application/json; charset=utf-8")
            elif kind == "text/csv":
                self.answer(200, "".join(f"{each}\\n" for each in found).encode(), "text/csv")
            else:
                self.answer(200, "".join(json.dumps(each) + "\\n" for each in found).encode(), "application/jsonlines")

        def answer(self, status, body, kind):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    CLASS = http.server.HTTPServer if "alone" in sys.argv else http.server.ThreadingHTTPServer
    CLASS(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    (made.root / "model/server.py").write_text(textwrap.dedent(SERVER))
    return made


def server(*arguments: str, **options: Any) -> Command:
    return Command([PYTHON, "server.py", *arguments], "http", **options)


def ids(count: int, poison: dict[int, str] | None = None) -> bytes:
    records = [{"id": i, **({"poison": poison[i]} if poison and i in poison else {})} for i in range(count)]
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def check(done: Coordinator, count: int, faults: dict[int, str]) -> None:
    assert done.results()["a.jsonl"] == b"".join(b"null\n" if i in faults else b"%d\n" % (2 * i) for i in range(count))
    assert {row: record.fault for _, row, record in done.errors()} == faults


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": "instances"},
        {"content_type": "application/jsonlines"},
        {"content_type": "text/csv"},
        {"connections": 1},
        {"max_request_bytes": 2000},
    ],
    ids=str,
)
def test_one_server_does_it_all_over_few_connections(bench: Bench, options: dict[str, Any]) -> None:
    bench.file("a.jsonl", ids(5000))
    done = bench.run(bench.ranges(20_000), command=server(**options), millicores=3000)
    check(done, 5000, {})
    assert bench.log().count("server started") == 1
    # health, the two that look whether it serves several, and three that stay
    assert bench.log().count("connected") <= 8 + 3


def test_a_server_that_serves_one_connection_at_a_time(bench: Bench) -> None:
    bench.file("a.jsonl", ids(500))
    done = bench.run(bench.whole(), command=server("alone"), millicores=3000)
    check(done, 500, {})
    assert "serves one connection at a time" in bench.log()


FAULTS = {"refuse": "model_error", "fail": "model_error", "die": "crash", "exit": "crash", "short": "wrong_length"}


def test_faults_are_found_record_by_record(bench: Bench) -> None:
    dice = random.Random(7)
    kinds = [*FAULTS, "once"]
    poison = {row: kinds[index % len(kinds)] for index, row in enumerate(dice.sample(range(2000), 6))}
    bench.file("a.jsonl", ids(2000, poison))
    done = bench.run(bench.whole(), command=server(), millicores=2000)
    check(done, 2000, {row: FAULTS[kind] for row, kind in poison.items() if kind != "once"})
    by_kind = {poison[row]: record for _, row, record in done.errors()}
    assert by_kind["refuse"].message == "HTTP 422: cannot digest it"
    assert by_kind["refuse"].traceback == "cannot digest it\nreally"
    assert by_kind["fail"].message == "HTTP 500: Traceback: oh dear"
    assert by_kind["die"].message == "the server died of signal 11"
    assert by_kind["exit"].message == "the server exited with status 9: this is the end"


def test_a_server_that_hangs_on_a_record(bench: Bench) -> None:
    bench.file("a.jsonl", ids(1000, {300: "hang"}))
    done = bench.run(bench.whole(), command=server(), record_timeout_s=0.7, millicores=2000)
    check(done, 1000, {300: "timeout"})


def test_files_are_sent_as_they_are(bench: Bench) -> None:
    for number in range(5):
        bench.file(f"{number}.bin", bytes(range(10 + number)))
    command = server(content_type="image/png", accept="application/json")
    done = bench.run(bench.whole(5), input=InputFormat("file"), command=command)
    assert done.results()["part"] == b"10\n11\n12\n13\n14\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (Command([PYTHON, "-c", "import no_such_module"], "http"), "no_such_module"),
        (Command(["sleep", "100"], "http", load_timeout_s=0.5), "did not answer 200"),
        (server(health="/health", load_timeout_s=5), "HTTP 404"),
        (server(content_type="text/csv", predict="/invocations", key=None, records="many", port=1), "port 1"),
    ],
)
def test_servers_that_do_not_come_up(bench: Bench, command: Command, words: str) -> None:
    if command.port is not None:
        taken = socket.create_server(("127.0.0.1", 0))
        command = server(port=taken.getsockname()[1])
        words = "is taken by another process"
    bench.file("a.jsonl", ids(10))
    done = bench.run(bench.whole(), expect=3, command=command)
    assert done.fault is not None
    assert done.fault.kind == "model_load_failed"
    assert words in done.fault.message
    if command.port is not None:
        taken.close()


CONTAINER = {
    "serve": """
        #!{python}
        # What /opt/program/serve of a SageMaker container does, less nginx.
        import os, signal, subprocess, sys
        bind = "127.0.0.1:" + os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")
        workers = os.environ.get("MODEL_SERVER_WORKERS", "1")
        gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-b", bind, "-w", workers, "--timeout", "60", "wsgi:app"]
        )
        signal.signal(signal.SIGTERM, lambda *_: gunicorn.terminate())
        sys.exit(gunicorn.wait())
    """,
    "wsgi.py": """
        import csv, io, json, os
        with open(os.path.join(os.environ["SM_MODEL_DIR"], "weights.json")) as file:
            weights = json.load(file)
        def app(environ, start_response):
            if environ["PATH_INFO"] == "/ping":
                start_response("200 OK", [("Content-Type", "application/json")])
                return [b"\\n"]
            assert environ["PATH_INFO"] == "/invocations"
            if environ["CONTENT_TYPE"] != "text/csv":
                start_response("415 Unsupported Media Type", [("Content-Type", "text/plain")])
                return [b"This predictor only supports CSV data"]
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()
            out = io.StringIO()
            for row in csv.reader(io.StringIO(body)):
                print(weights["bias"] + weights["x"] * float(row[0]), file=out)
            start_response("200 OK", [("Content-Type", "text/csv")])
            return [out.getvalue().encode()]
    """,
    "weights.json": '{"bias": 1, "x": 2}',
}


@pytest.fixture
def container(bench: Bench) -> Bench:
    pytest.importorskip("gunicorn")
    for name, text in CONTAINER.items():
        path = bench.root / "model" / name
        path.write_text(textwrap.dedent(text).lstrip().replace("{python}", PYTHON))
        path.chmod(0o755 if name == "serve" else 0o644)
    return bench


def test_a_container_made_for_sagemaker(container: Bench) -> None:
    container.file("a.jsonl", ids(3000))
    command = Command(["serve"], "http", content_type="text/csv")
    done = container.run(container.ranges(10_000), command=command, millicores=2000)
    assert done.results()["a.jsonl"] == b"".join(b"%.1f\n" % (1 + 2 * i) for i in range(3000))
    assert container.log().count("Booting worker") == 2


def test_a_container_that_is_asked_in_the_wrong_type(container: Bench) -> None:
    container.file("a.jsonl", ids(30))
    done = container.run(container.whole(), expect=3, command=Command(["serve"], "http"))
    assert done.fault is not None
    assert "HTTP 415: This predictor only supports CSV data" in done.fault.message
    assert "command.content_type" in done.fault.message


@pytest.mark.parametrize("end", ["success", "SIGKILL", "SIGTERM"])
def test_nothing_of_a_container_is_left_running(container: Bench, end: str) -> None:
    container.file("a.jsonl", ids(300 if end == "success" else 300_000))
    coordinator = container.coordinator(container.whole())
    below: set[int] = set()
    command = Command(["serve"], "http", content_type="text/csv")
    with container.instance(coordinator, 60, command=command, millicores=2000) as process:

        def look(report: Any) -> None:
            below.update(pids_below(process.pid))
            if report.pending.ok and end != "success":
                os.kill(process.pid, getattr(signal, end))

        coordinator.on_report = look
        serve_socket(coordinator, process.channel, 60)  # type: ignore[attr-defined]
        process.wait(60)
    assert len(below) >= 6  # worker, keeper, serve, gunicorn and two of its workers
    wait_until(lambda: not [pid for pid in below if os.path.exists(f"/proc/{pid}")])
