"""A server's doors over real HTTP, with a real database, real files and an engine in memory; nothing happens by itself.

Tests of the API use it where no task has to run: what a task makes is written here by hand, by the same parts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tests.fakes.engine import FakeEngine
from tidemill.api.app import create_app
from tidemill.client import Client
from tidemill.objects.region import open_region
from tidemill.ports.clock import SystemClock
from tidemill.services.access import ROOT_ACCOUNT, Actor, Credential, root_credential
from tidemill.services.facade import Services, assemble
from tidemill.services.regions import Region
from tidemill.settings import BucketSection, LimitsSection
from tidemill.store.base import Store
from tidemill.store.migrate import migrate
from tidemill_runtime.contract import Orders, Report

USER = Credential("TMuser", "user-key", Actor(ROOT_ACCOUNT, "ann"))
STRANGER = Credential("TMstranger", "stranger-key", Actor("stranger", "eve"))  # type: ignore[arg-type]

MODEL = """
class Doubler:
    def load(self):
        return True

    def predict(self, batch: list[dict]):
        return [record["x"] * 2 for record in batch]
"""


@dataclass
class World:
    """data: the data folder. url: of the server. reports: what came to the runner door."""

    data: Path
    url: str
    store: Store
    services: Services
    engine: FakeEngine
    root: Credential
    reports: list[tuple[str, Report]]

    def client(self, who: Credential | None = None) -> Client:
        who = who or self.root
        return Client(self.url, secret_id=who.secret_id, secret_key=who.secret_key, data=self.data)

    def http(self, who: Credential | None = None) -> httpx.Client:
        """Plain HTTP with a credential; `who` None is the operator's."""
        who = who or self.root
        headers = {"Authorization": f"Bearer {who.secret_id}.{who.secret_key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    @property
    def bucket(self) -> Path:
        return self.data / "buckets" / "data"

    def put_input(self, name: str = "in/a.jsonl", text: str = '{"x": 1}\n{"x": 2}\n') -> None:
        path = self.bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def put_model(self, name: str = "model", text: str = MODEL) -> Path:
        folder = self.data / name
        (folder / "batch").mkdir(parents=True, exist_ok=True)
        (folder / "batch" / "model_service.py").write_text(text)
        return folder

    def task(self, **changes: Any) -> dict[str, Any]:
        """A good task; its model is imported first as `doubler`."""
        given = {"name": "t", "model": "doubler", "input": "cos://data/in/", "output": "cos://data/out/"}
        return given | changes


@contextmanager
def open_world(data: Path, database_url: str, *, limits: LimitsSection | None = None) -> Iterator[World]:
    data.mkdir(parents=True, exist_ok=True)
    store = Store(database_url)
    migrate(store)
    engine = FakeEngine()
    objects = open_region({"data": BucketSection()}, data, local_paths=True)
    regions = {"local": Region("local", objects, engine, ("data",))}
    root = root_credential(data)
    reports: list[tuple[str, Report]] = []

    def report(token: str, said: Report) -> Orders:
        reports.append((token, said))
        return Orders("wait")

    limits = limits or LimitsSection()
    services = assemble(
        store, regions, SystemClock(), data, limits, [root, USER, STRANGER], report=report, receipt_key=""
    )
    config = uvicorn.Config(
        create_app(services, body_bytes=limits.body_bytes),
        port=0,
        log_level="warning",
        access_log=False,
        http="httptools",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ready = threading.Event()
    while not server.started:
        ready.wait(0.005)
        assert thread.is_alive(), "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield World(data, f"http://127.0.0.1:{port}", store, services, engine, root, reports)
    finally:
        server.should_exit = True
        thread.join(10)
        store.close()
