"""`tidemill run` with a model that has requirements, which uv installs before it starts, from wheels made here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.environments_world import OFFLINE, package, source, wheel
from tidemill.domain.errors import InvalidValue
from tidemill.domain.life import Reason, TaskStatus
from tidemill.local import Result, RunProgress
from tidemill.local import run as run_locally
from tidemill.settings import load_settings

MODEL = """
import os, sys
import first
class Model:
    def predict(self, batch):
        return [[first.VERSION, sys.prefix, os.environ["PATH"].split(":")[0], record["n"]] for record in batch]
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = package(tmp_path / "model", f"{OFFLINE}first==1.0\n", MODEL)
    wheel(folder / "wheels", "first")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    return folder


def run(tmp_path: Path, **keys: Any) -> Result:
    settings = replace(load_settings(None, {"HOME": str(tmp_path)}).settings, data=tmp_path / "data")
    progress = keys.pop("progress", None)
    task = {
        "name": "t",
        "model": str(tmp_path / "model"),
        "input": f"{tmp_path}/in/",
        "output": f"{tmp_path}/out/",
        **keys,
    }
    return run_locally(task, settings=settings, progress=progress)


def receipt(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out/receipt.json").read_text())
    return found


def test_the_model_runs_with_what_it_asks_for(tmp_path: Path, model: Path) -> None:
    seen: list[RunProgress] = []
    result = run(tmp_path, progress=seen.append)
    assert result.succeeded, result.explanation
    made = next((tmp_path / "data/environments").glob("*/*/venv"))
    assert list(result.predictions()) == [["1.0", str(made), f"{made}/bin", n] for n in (1, 2)]
    assert result.seconds["environment"] > 0
    assert seen[0].phase == "installing"
    account = receipt(tmp_path)
    assert account["packages"] == {"first": "1.0"}
    assert account["environment"]["digest"] == made.parent.parent.name
    assert account["phases_s"]["environment"] == round(result.seconds["environment"], 3)
    again = run(tmp_path, output=f"{tmp_path}/out2/")
    assert list(again.predictions()) == list(result.predictions())  # the same folder: nothing was installed anew


def test_what_is_there_already_is_not_installed(tmp_path: Path, model: Path) -> None:
    (model / "requirements.txt").write_text("msgspec>=0.1\n# and nothing else\n")
    (model / "batch/model_service.py").write_text(
        MODEL.replace("import first", "import msgspec as first\nfirst.VERSION = ''")
    )
    result = run(tmp_path)
    assert result.succeeded, result.explanation
    assert [prediction[1] for prediction in result.predictions()] == [sys.prefix] * 2
    assert not (tmp_path / "data/environments").exists()
    assert result.seconds["environment"] == 0
    account = receipt(tmp_path)
    assert list(account["packages"]) == ["msgspec"]
    assert "digest" not in account["environment"]


def test_what_cannot_be_installed_ends_the_run_and_leaves_nothing(tmp_path: Path, model: Path) -> None:
    (model / "requirements.txt").write_text(f"{OFFLINE}first==2.0\n")
    result = run(tmp_path)
    assert (result.status, result.reason) == (TaskStatus.FAILED, Reason.ENVIRONMENT_FAILED)
    assert "there is no version of first==2.0" in result.explanation
    assert result.log is not None
    assert "there is no version of first==2.0" in Path(result.log).read_text()
    assert not result.resumable
    assert list((tmp_path / "out").glob("**/*")) == []
    (model / "requirements.txt").write_text(f"{OFFLINE}first==1.0\n")
    assert run(tmp_path).succeeded


def test_a_requirement_outside_the_package_is_refused_before_anything(tmp_path: Path, model: Path) -> None:
    (model / "requirements.txt").write_text("-r ../../theirs.txt\n")
    with pytest.raises(InvalidValue, match=r"line 1: '\.\./\.\./theirs\.txt' leads out of the package"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_deadline_holds_while_it_installs(tmp_path: Path, model: Path) -> None:
    (model / "requirements.txt").write_text("--no-index\n./slow\n")
    source(model / "slow", "    time.sleep(600)")
    result = run(tmp_path, deadline=1)
    assert (result.status, result.reason) == (TaskStatus.STOPPED, Reason.DEADLINE)
    assert list((tmp_path / "out").glob("**/*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_while_it_installs(tmp_path: Path, model: Path, number: signal.Signals) -> None:
    pid, go = tmp_path / "pid", tmp_path / "go"
    (model / "requirements.txt").write_text(f"{OFFLINE}first\n./slow\n")
    body = f"""
    open({str(pid)!r}, 'w').write(str(os.getpid()))
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)"""
    source(model / "slow", body)
    command = [sys.executable, "-m", "tidemill", "run", "--json", "--model", str(model)]
    command += ["--input", f"{tmp_path}/in/", "--output", f"{tmp_path}/out/"]
    environ = {**os.environ, "TIDEMILL_DATA": str(tmp_path / "data")}
    first = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (pid.exists() and pid.read_text()):
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(number)
    out, _ = first.communicate(timeout=30)
    if number is signal.SIGINT:
        assert first.returncode == 1
        end = json.loads(out)
        assert (end["status"], end["reason"]) == ("STOPPED", "interrupted")
        assert list((tmp_path / "out").glob("**/*")) == []
    go.touch()
    second = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert second.returncode == 0, second.stderr.decode()
    assert json.loads(second.stdout)["ok"] == 2


def test_a_run_without_requirements_loads_nothing_of_this(tmp_path: Path, model: Path) -> None:
    (model / "requirements.txt").unlink()
    (model / "batch/model_service.py").write_text("class Model:\n    def predict(self, batch):\n        return batch\n")
    code = f"""
import sys, tidemill
result = tidemill.run({{"model": {str(model)!r}, "input": "{tmp_path}/in/", "output": "{tmp_path}/out/"}})
assert result.succeeded, result.explanation
assert not {{"packaging", "uv", "tidemill.environments.finding", "importlib.metadata"}} & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "TIDEMILL_DATA": str(tmp_path / "data")}
    )
