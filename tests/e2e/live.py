"""A whole server in this process, with its loops and the process engine, and a second user who is no operator.

For tests that need no killing: those start `tidemill serve` (`harness.Server`).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tidemill.api.app import create_app
from tidemill.bootstrap import build_server
from tidemill.client import Client
from tidemill.services.access import ROOT_ACCOUNT, Access, Actor, Credential, root_credential
from tidemill.settings import LimitsSection, ProcessSection, ServerSection, Settings, StoreSection

USER = Credential("TMuser", "user-key", Actor(ROOT_ACCOUNT, "ann"))

MODEL = '''
import time


class Doubler:
    """Fails on 13; takes its time where it is told to."""

    def load(self):
        print("the model is loaded")
        return True

    def predict(self, batch: list[dict]):
        for record in batch:
            if record["x"] == 13:
                raise ValueError("unlucky")
            time.sleep(record.get("s", 0))
        return [record["x"] * 2 for record in batch]
'''


@dataclass(frozen=True)
class Live:
    """data: the data folder. url: of the server."""

    data: Path
    url: str
    root: Credential

    def client(self, who: Credential = USER) -> Client:
        return Client(self.url, secret_id=who.secret_id, secret_key=who.secret_key, data=self.data)

    def http(self, who: Credential = USER) -> httpx.Client:
        headers = {"Authorization": f"Bearer {who.secret_id}.{who.secret_key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    def put_model(self, name: str = "model", text: str = MODEL) -> Path:
        folder = self.data.parent / name
        (folder / "batch").mkdir(parents=True, exist_ok=True)
        (folder / "batch" / "model_service.py").write_text(text)
        return folder

    def put_input(self, prefix: str, files: int = 3, lines: int = 40, *, seconds: float = 0.0) -> None:
        """Files of records; each has one with x=13."""
        with self.client() as client:
            for number in range(files):
                text = "".join(f'{{"x": {line}, "s": {seconds}}}\n' for line in range(lines))
                client.objects.put(f"cos://data/{prefix}/{number}.jsonl", text.encode())

    def task(self, **changes: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "name": "t",
            "model": "doubler",
            "input": "cos://data/in/",
            "output": "cos://data/out/",
            "resources": {"cpu": 1, "memory": "256Mi"},
            "tolerance": "10%",
        }
        return given | changes


@contextmanager
def live_server(data: Path, store_url: str | None = None) -> Iterator[Live]:
    data.mkdir(parents=True, exist_ok=True)
    root = root_credential(data)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = Settings(
            data=data,
            server=ServerSection(port=port),
            store=StoreSection(url=store_url),
            process=ProcessSection(cpu=4000),  # more than small machines have: nothing here computes for long
            limits=LimitsSection(report_every_s=0.2, lease_ttl_s=5, commit_every_s=0.2, stop_grace_s=2),
        )
        server = build_server(settings)
        services = replace(server.services, access=Access([root, USER]))
        config = uvicorn.Config(
            create_app(services, body_bytes=settings.limits.body_bytes),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        doors = uvicorn.Server(config)
        thread = threading.Thread(target=doors.run, kwargs={"sockets": [listener]}, daemon=True)
        server.start()
        thread.start()
        try:
            yield Live(data, f"http://127.0.0.1:{port}", root)
        finally:
            server.begin_stop()
            doors.should_exit = True
            thread.join(15)
            server.stop()
