"""The whole way of a task through the Python client, on each database: in, predicted, looked at, released."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import until
from tests.e2e.live import Live, live_server
from tidemill.domain.errors import Conflict, NotFound
from tidemill.wire.views import ProgressView


@pytest.fixture
def live(tmp_path: Path, database_url: str) -> Iterator[Live]:
    with live_server(tmp_path / "data", database_url) as made:
        with made.client() as client:
            client.models.import_("doubler", made.put_model())
        yield made


def test_a_task_from_its_folder_to_its_results(live: Live, tmp_path: Path) -> None:
    live.put_input("in")
    with live.client() as client:
        seen: list[ProgressView] = []
        task = client.tasks.create(live.task(name="一月", instances=2))
        done = client.wait(task, progress=seen.append, timeout_s=60)
        assert (done.status, done.reason) == ("SUCCEED", "finished_with_failed_records")
        assert done.warning == "3 records of 120 failed; errors.jsonl in the output folder says which and why."
        assert done.counts.model_dump() == {"inputs": 120, "ok": 117, "failed": 3, "skipped": 0}
        assert done.seconds.total >= done.seconds.predict > 0
        assert done.tuning
        assert seen[-1].final
        assert [view.counts.inputs for view in seen] == sorted(view.counts.inputs for view in seen)

        results = list(client.tasks.results(task.id))
        assert [(found.name, found.kind) for found in results] == [
            ("0.jsonl.out.jsonl", "result"), ("1.jsonl.out.jsonl", "result"), ("2.jsonl.out.jsonl", "result"),
            ("errors.jsonl", "errors"), ("receipt.json", "receipt"), ("_SUCCESS", "marker"),
        ]  # fmt: skip
        assert client.tasks.preview(task.id, lines=3).lines == ["0", "2", "4"]
        assert client.tasks.preview(task.id, "1.jsonl.out.jsonl", lines=100).truncated is False
        for found in results:
            file = client.tasks.download(task.id, found.name, tmp_path / "down" / found.name)
            assert file.stat().st_size == found.size_bytes
        lines = (tmp_path / "down" / "0.jsonl.out.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [None if x == 13 else 2 * x for x in range(40)]
        with pytest.raises(NotFound):
            client.tasks.download(task.id, "../in/0.jsonl", tmp_path / "x")
        with pytest.raises(NotFound):
            client.tasks.download(task.id, "nothing", tmp_path / "x")

        errors = list(client.tasks.errors(task.id))
        assert [(error.object, error.line, error.type) for error in errors] == [
            (f"{n}.jsonl", 14, "ValueError") for n in range(3)
        ]
        [group] = client.tasks.error_groups(task.id)
        assert (group.count, group.message) == (3, "unlucky")
        assert len(list(client.tasks.errors(task.id, fingerprint=group.fingerprint, limit=2))) == 2
        assert not list(client.tasks.errors(task.id, fingerprint="another"))

        receipt = client.tasks.receipt(task.id)
        assert (receipt.task, receipt.counts.inputs, receipt.version) == (task.id, 120, 1)
        instances = list(client.tasks.instances(task.id))
        assert {instance.status for instance in instances} == {"ENDED"}
        assert any("the model is loaded" in piece.text for piece in client.tasks.logs(task.id, follow=True))
        names = [event.name for event in client.tasks.events(task.id)]
        assert names[0] == "task.created"
        assert "run.planned" in names
        assert client.tasks.delete(task.id).removed
        assert not (live.data / "buckets/data/out/_tidemill").exists() or not list(
            (live.data / "buckets/data/out/_tidemill").iterdir()
        )
        assert client.objects.read("cos://data/out/1.jsonl.out.jsonl").startswith(b"0\n2\n")


def test_errors_are_seen_while_it_runs_then_stop_and_resume(live: Live) -> None:
    live.put_input("in", files=2, lines=60, seconds=0.05)
    with live.client() as client:
        task = client.tasks.create(live.task(tolerance=50))
        until(lambda: client.tasks.progress(task.id).counts.failed or None, "a failed record that is committed")
        early = list(client.tasks.errors(task.id))
        assert early
        assert {error.line for error in early} <= {14, None}
        assert early[0].object == "0.jsonl"
        assert client.tasks.error_groups(task.id)[0].message == "unlucky"
        stopped = client.tasks.stop(task.id)
        assert stopped.status in ("RUNNING", "STOPPING", "STOPPED")
        stopped = client.wait(task, timeout_s=30)
        assert (stopped.status, stopped.reason) == ("STOPPED", "stopped_by_user")
        kept = stopped.counts.inputs
        assert 0 < kept < 120
        assert client.tasks.error_groups(task.id)[0].count >= 1
        with pytest.raises(Conflict):
            client.tasks.receipt(task.id)
        resumed = client.tasks.resume(task.id, {"instances": 2})
        assert resumed.runs == 2
        done = client.wait(task, timeout_s=60)
        assert (done.status, done.counts.inputs, done.counts.failed) == ("SUCCEED", 120, 2)
        assert [run.number for run in client.tasks.runs(task.id)] == [2, 1]


def test_a_model_that_always_fails_shows_why(live: Live) -> None:
    live.put_input("in", files=1, lines=100_000)
    broken = "class M:\n    def load(self): ...\n    def predict(self, batch: list): raise KeyError('column')\n"
    with live.client() as client:
        task = client.tasks.create(live.task(model=str(live.put_model("broken", broken))))
        done = client.wait(task, timeout_s=60)
        assert (done.status, done.reason) == ("FAILED", "model_always_fails")
        assert 100 <= done.counts.failed < 1000
        groups = client.tasks.error_groups(task.id)
        assert groups[0].type == "KeyError"
        assert groups[0].example.object == "0.jsonl"
