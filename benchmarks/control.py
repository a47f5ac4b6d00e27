"""How quick the server is, and how little it takes: a real `tidemill serve` on SQLite, asked over HTTP with its key."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import crowd
from benchmarks.report import Measured, progress
from tests.e2e.harness import Server

TASKS_AT_FULL_SCALE = 1_000_000
FEW = 1_000
_QUERIES = 300
_HOLD = Path(__file__).parent / "models" / "hold"
_CREATES, _CLIENTS = 600, 4
_IDLE_S = 10.0
_LIVES = 7


def run(folder: Path, scale: float) -> list[Measured]:
    server = Server(folder / "server", quick=False)
    server.start()
    try:
        measured = [_memory(server), *_lives(server, folder), _creates(folder, scale)]
        task = _finished(server, crowd.template(folder))
    finally:
        server.stop()
    return measured + _crowded(server, task["id"], scale)


def _memory(server: Server) -> Measured:
    time.sleep(2)  # at rest: what starting up has left is over
    assert server.process is not None
    resident = psutil.Process(server.process.pid).memory_info().rss / 1e6
    return Measured("server memory at rest", resident, "MB", 120, note="resident")


def _lives(server: Server, folder: Path) -> list[Measured]:
    """Whole lives of tasks, one after the other; the server's own times."""
    progress("lives of tasks …")
    seen = [
        _finished(server, {**crowd.template(folder), "output": f"{folder}/life-{number}/"}) for number in range(_LIVES)
    ]
    starts = [_between(task["created_at"], task["run"]["running_at"]) for task in seen]
    ends = [task["run"]["seconds"]["publish"] for task in seen]
    note = f"median of {_LIVES}, worst {{:.2f}} s"
    return [
        Measured("task created → instance running", statistics.median(starts), "s", 0.5, note=note.format(max(starts))),
        Measured("last commit → SUCCEED and released", statistics.median(ends), "s", 0.5, note=note.format(max(ends))),
    ]


def _creates(folder: Path, scale: float) -> Measured:
    """Creates per second on a server of its own, all of whose capacity is taken: what is created queues.

    Otherwise what is measured is how well the instances of the first tasks leave the server its share of the cores.
    """
    progress("creates …")
    count = max(100, round(_CREATES * min(1.0, scale * 10)))
    server = Server(folder / "creates", quick=False)
    server.start()
    try:
        clients = [_client(server) for _ in range(_CLIENTS)]
        template = crowd.template(folder)
        hold = {"name": "hold", "model": str(_HOLD), "resources": {}, "output": f"{folder}/creates-hold/"}
        clients[0].post("/tasks", json={**template, **hold}).raise_for_status()

        def create(number: int) -> None:
            body = {**template, "name": f"create-{number}", "output": f"{folder}/creates-{number}/"}
            answer = clients[number % _CLIENTS].post("/tasks", json=body)
            if answer.is_error:
                raise SystemExit(f"creating a task: HTTP {answer.status_code} {answer.text}")

        with ThreadPoolExecutor(_CLIENTS) as pool:
            list(pool.map(create, range(count, count + 20)))  # warm
            started = time.perf_counter()
            list(pool.map(create, range(count)))
            rate = count / (time.perf_counter() - started)
    finally:
        server.wipe()
    return Measured("creates", rate, "/s", 200, higher=True, note=f"{count} by {_CLIENTS} clients over HTTP, SQLite")


def _crowded(server: Server, task: str, scale: float) -> list[Measured]:
    few_s = _idle(server)
    count = max(FEW, round(TASKS_AT_FULL_SCALE * scale))
    progress(f"filling in {count:,} finished tasks …")
    crowd.fill(server.data / "store.db", task, count)
    many_s = _idle(server)
    server.start()
    try:
        measured = _queries(server, count)
    finally:
        server.stop()
    note = f"CPU per second: {many_s * 1000:.2f} ms with {count:,} finished tasks, {few_s * 1000:.2f} ms with a few"
    return [*measured, Measured("idle cost, many tasks to few", many_s / few_s, "times", 1.25, note=note)]


def _idle(server: Server) -> float:
    """CPU seconds that an idle server takes in a second."""
    server.start()
    try:
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        time.sleep(3)  # until what starting up has left is over
        before = process.cpu_times()
        time.sleep(_IDLE_S)
        after = process.cpu_times()
    finally:
        server.stop()
    return max(1e-4, (after.user + after.system - before.user - before.system) / _IDLE_S)


def _queries(server: Server, count: int) -> list[Measured]:
    client = _client(server)
    asked: dict[str, Callable[[int], dict[str, Any]]] = {
        "newest": lambda _: {},
        "by status": lambda _: {"status": "SUCCEED"},
        "by name": lambda number: {"name": f"task-{number * 7919 % count + 1}"},
        "by tag": lambda number: {"tag": f"team:t{number % crowd.TAGS}"},
        "by tag and status": lambda number: {"tag": f"team:t{number % crowd.TAGS}", "status": "SUCCEED"},
    }
    measured = []
    for what, parameters in asked.items():
        times = []
        for number in range(_QUERIES):
            started = time.perf_counter()
            answer = client.get("/tasks", params=parameters(number))
            times.append((time.perf_counter() - started) * 1000)
            answer.raise_for_status()
            page = answer.json()
            assert page["total"], (what, page)
            assert page["items"], (what, page)
        times.sort()
        p99 = times[int(len(times) * 0.99)]
        note = f"p50 {statistics.median(times):.1f} ms; {count:,} tasks, total {page['total']:,}"
        measured.append(Measured(f"list tasks, {what}, p99", p99, "ms", 50, note=note))
    return measured


def _finished(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    seen = server.finished(server.create(body))
    assert seen["status"] == "SUCCEED", seen
    return seen


def _client(server: Server) -> httpx.Client:
    key = json.loads((server.data / "root-credentials.json").read_text())
    headers = {"Authorization": f"Bearer {key['secret_id']}.{key['secret_key']}"}
    return httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=60, trust_env=False)


def _between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
