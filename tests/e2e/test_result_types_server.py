"""Results as CSV, Parquet and files on a real server: the bytes of `tidemill run`, shown and accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Job, Server, counted, results, until
from tidemill.local import run
from tidemill.settings import Settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server")
    made.start()
    yield made
    made.stop()


def by_run(task: dict[str, Any], output: Path, data: Path) -> dict[str, bytes]:
    """What `tidemill run` makes of a server's task."""
    assert run({**task, "output": f"{output}/"}, settings=Settings(data=data)).succeeded
    return results(output)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_those_of_run_also_when_instances_die(server: Server, job: Job, tmp_path: Path, kind: str) -> None:
    table = {"format": {"result": {"type": kind, "keys": ["number"]}}}
    task = {**job.task(tmp_path / "out", tmp_path / "counts"), **table}
    made = server.create(task)
    until(lambda: len(counted(tmp_path / "counts")) > 300, "some hundred records")
    server.kill_instances()
    seen = server.finished(made)
    assert seen["status"] == "SUCCEED", seen
    alone = {**job.task(tmp_path / "run", tmp_path / "counts 2", record_s=0), **table}
    expected = by_run(alone, tmp_path / "run", tmp_path / "laptop")
    assert results(tmp_path / "out") == expected
    preview = server.call("GET", f"/tasks/{made}/results/preview", lines=3)
    assert preview["truncated"] and preview["name"].endswith(f".out.{kind}")
    if kind == "csv":
        assert preview["lines"] == ["input.number,number,square", "0,0,0", "1,1,1"]
    else:
        assert [json.loads(line)["input.number"] for line in preview["lines"]] == [0, 1, 2]


def test_files_are_listed_and_shown(server: Server, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model_service.py").write_text(
        "class Model:\n    def load(self): return True\n"
        "    def predict(self, path): return {'a': b'text', 'b': b'\\0bytes'}[path[-5]]\n"
    )
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "in" / name).write_bytes(b"x")
    made = server.create(
        {
            "name": "files",
            "model": str(model),
            "input": f"{tmp_path}/in/",
            "output": f"{tmp_path}/out/",
            "format": {"type": "file", "result": {"type": "file", "extension": ".bin"}},
            "resources": {"cpu": 1, "memory": "256Mi"},
            "tolerance": "50%",
        }
    )
    seen = server.finished(made)
    assert (seen["status"], seen["counts"]["ok"], seen["counts"]["failed"]) == ("SUCCEED", 2, 1), seen
    listed = server.call("GET", f"/tasks/{made}/results")["items"]
    assert [(each["name"], each["kind"]) for each in listed][:3] == [
        ("a.bin", "result"), ("b.bin", "result"), ("errors.jsonl", "errors"),
    ]  # fmt: skip
    assert results(tmp_path / "out")["b.bin"] == b"\0bytes"
    for name, lines in (("a.bin", ["text"]), ("b.bin", ["(6 bytes that are no text)"])):
        assert server.call("GET", f"/tasks/{made}/results/preview", name=name)["lines"] == lines
