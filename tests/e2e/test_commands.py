"""Commands as models, from `tidemill run` and on a server: the same predictions, and nothing is left of them.

What belongs to a test is known by a variable in its environment.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import TIDEMILL, Server, until

SERVE = """
    import http.server, json, os, subprocess
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        def log_message(self, *_): pass
        def do_GET(self): self.answer(b"")
        def do_POST(self):
            records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if any(record["x"] == 77 for record in records): os._exit(5)
            self.answer(json.dumps([3 * record["x"] for record in records]).encode())
        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
LINES = """
    import json, os, subprocess, sys, time
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    for line in sys.stdin:
        record = json.loads(line)
        if record["x"] == 77: os._exit(5)
        if os.environ.get("SLOW"): time.sleep(0.05)
        print(3 * record["x"], flush=True)
"""


def left(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def task_of(folder: Path, protocol: str, mark: str, **env: str) -> dict[str, Any]:
    (folder / "model").mkdir(parents=True)
    (folder / "in").mkdir()
    (folder / "model/run.py").write_text(textwrap.dedent(SERVE if protocol == "http" else LINES))
    command = {"run": f"{sys.executable} run.py", "protocol": protocol}
    (folder / "model/tidemill.json").write_text(json.dumps({"command": command}))
    (folder / "in/a.jsonl").write_text("".join(f'{{"x": {x}}}\n' for x in range(400)))
    return {
        "name": "commands",
        "model": str(folder / "model"),
        "input": f"{folder}/in/",
        "output": f"{folder}/out/",
        "tolerance": 1,
        "env": {"MARK": mark, **env},
    }


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


EXPECTED = "".join("null\n" if x == 77 else f"{3 * x}\n" for x in range(400))


def start(folder: Path, task: dict[str, Any]) -> subprocess.Popen[str]:
    (folder / "task.json").write_text(json.dumps(task))
    command = [str(TIDEMILL), "run", "--json", str(folder / "task.json")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("protocol", ["lines", "http"])
def test_run_and_a_server_predict_the_same(tmp_path: Path, mark: str, protocol: str) -> None:
    task = task_of(tmp_path, protocol, mark)
    with start(tmp_path, task) as run:
        out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert json.loads(out)["failed"] == 1
    assert (tmp_path / "out/a.jsonl.out.jsonl").read_text() == EXPECTED
    error = json.loads((tmp_path / "out/errors.jsonl").read_text())
    assert (error["fault"], json.loads(error["input"])) == ("crash", {"x": 77})
    until(lambda: not left(mark), "an end of all that it started")

    server = Server(tmp_path / "data")
    server.start()
    try:
        seen = server.finished(server.create({**task, "output": f"{tmp_path}/out-server/"}))
        assert seen["status"] == "SUCCEED", seen
    finally:
        server.stop()
    assert (tmp_path / "out-server/a.jsonl.out.jsonl").read_text() == EXPECTED
    until(lambda: not left(mark), "an end of all that it started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_was_ended(tmp_path: Path, mark: str, number: signal.Signals) -> None:
    with start(tmp_path, task_of(tmp_path, "lines", mark, SLOW="1")) as run:
        until(lambda: sum(process.name() == "sleep" for process in left(mark)) >= 2, "a command at work")
        run.send_signal(number)
        run.communicate(timeout=60)
    assert run.returncode != 0
    until(lambda: not left(mark), "an end of all that it started")
    assert not (tmp_path / "out/_SUCCESS").exists()
