"""A model with requirements on a whole server with real instances: installed, used, kept while in use, and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, until
from tests.e2e.live import Live, live_server
from tests.integration.environments_world import OFFLINE, package, source, wheel
from tidemill.environments.cache import Cache

MODEL = """
import os, shutil, time
import first
class Model:
    def predict(self, batch: list[dict]):
        for record in batch:
            time.sleep(record["s"])
        return [[first.VERSION, os.environ["VIRTUAL_ENV"], shutil.which("python")] for _ in batch]
"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with live_server(tmp_path / "data") as made:
        folder = package(tmp_path / "model", f"{OFFLINE}first==1.0\n", MODEL)
        wheel(folder / "wheels", "first")
        with made.client() as client:
            client.models.import_("asks", folder)
        yield made


def test_a_model_with_requirements(live: Live) -> None:
    live.put_input("in", files=1, lines=20, seconds=0.1)
    cache = Cache(live.data / "environments", 1)
    with live.client() as client:
        task = client.tasks.create(live.task(model="asks"))
        until(lambda: client.tasks.get(task.id).status == "RUNNING", "the task runs")
        (kept,) = cache.entries()
        assert kept.in_use
        assert cache.clear() == ([], [kept.environment.digest])
        done = client.wait(task, timeout_s=60)
        assert done.status == "SUCCEED", done.explanation
        assert done.run.environment is not None
        assert done.run.environment.packages == {"first": "1.0"}
        assert done.run.environment.digest == kept.environment.digest
        assert done.seconds.environment > 0
        venv = str(kept.environment.venv)
        assert client.tasks.preview(task.id, lines=1).lines == [f'["1.0","{venv}","{venv}/bin/python"]']
        receipt = client.tasks.receipt(task.id)
        assert receipt.packages == {"first": "1.0"}
        assert receipt.environment["digest"] == kept.environment.digest
        assert [event.name for event in client.tasks.events(task.id)].count("run.environment") == 1
    until(lambda: not cache.entries()[0].in_use, "nobody uses it any more")


def test_what_cannot_be_installed(live: Live, tmp_path: Path) -> None:
    live.put_input("in", files=1, lines=3)
    folder = package(tmp_path / "bad", f"{OFFLINE}first==1.0\nfirst==2.0\n", MODEL)
    wheel(folder / "wheels", "first")
    with live.client() as client:
        client.models.import_("bad", folder)
        done = client.wait(client.tasks.create(live.task(model="bad")), timeout_s=60)
        assert (done.status, done.reason) == ("FAILED", "environment_failed")
        assert "you require first==1.0 and first==2.0" in done.explanation


@pytest.mark.kill
def test_a_server_killed_while_it_installs_and_while_an_instance_uses_it(tmp_path: Path) -> None:
    model = MODEL.replace("import first", "import slowpkg").replace("first.VERSION", "slowpkg.X")
    folder = package(tmp_path / "model", "--no-index\n./slow\n", model)
    pid, gate = tmp_path / "pid", tmp_path / "gate"
    body = f"""
    open({str(pid)!r}, 'w').write(str(os.getpid()))
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.01)"""
    source(folder / "slow", body)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"s": 0.1}\n' * 40)
    server = Server(tmp_path / "data")
    try:
        server.start()
        places = {"model": str(folder), "input": f"{tmp_path}/in/", "output": f"{tmp_path}/out/"}
        task = server.create({"name": "t", **places, "resources": {"cpu": 1, "memory": "256Mi"}})
        until(lambda: pid.exists() and pid.read_text(), "the installation is under way")
        until(lambda: server.task(task)["reason"] == "installing", "it is said")
        assert server.task(task)["status"] == "STARTING"
        server.kill()
        pid.unlink()
        server.start()
        until(lambda: pid.exists() and pid.read_text(), "it is installed anew")
        gate.touch()
        until(lambda: server.task(task)["status"] == "RUNNING", "the model has loaded")
        server.kill()
        cache = Cache(server.data / "environments", 1)
        assert [kept.in_use for kept in cache.entries()] == [True]  # by the instance alone
        server.start()
        done = server.finished(task)
        assert (done["status"], done["counts"]["ok"]) == ("SUCCEED", 40)
        assert done["run"]["environment"]["packages"] == {"slowpkg": "1.0"}
    finally:
        server.wipe()
