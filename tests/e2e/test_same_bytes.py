"""One task file: `tidemill run`, a server with local folders, a server with MinIO. The same bytes come out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import S3Bucket
from tests.e2e.harness import TIDEMILL, Job, Server, results, without_attempts


def on_server(folder: Path, task: dict[str, Any], extra: dict[str, str]) -> dict[str, Any]:
    """The task once it is finished on a server of its own."""
    server = Server(folder / "data", extra=extra)
    server.start()
    try:
        return server.finished(server.create(task))
    finally:
        server.stop()


def test_run_gives_the_same_bytes_as_a_server(job: Job, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    task = job.task(tmp_path / "out", tmp_path / "counts", record_s=0)
    (tmp_path / "task.json").write_text(json.dumps(task))
    command = [str(TIDEMILL), "run", "--json", str(tmp_path / "task.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["status"], summary["failed"]) == ("SUCCEED", 3)
    assert results(tmp_path / "out") == undisturbed


def test_local_bucket_gives_the_same_bytes(job: Job, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    (bucket / "in").mkdir(parents=True)
    for path in (job.folder / "input").iterdir():
        (bucket / "in" / path.name).write_bytes(path.read_bytes())
    extra = {"TIDEMILL_REGIONS__LOCAL__BUCKETS__DATA__URL": f"file://{bucket}"}
    task = job.task(tmp_path, tmp_path / "counts", record_s=0)
    seen = on_server(tmp_path, {**task, "input": "cos://data/in/", "output": "cos://data/out/"}, extra)
    assert seen["status"] == "SUCCEED", seen
    assert results(bucket / "out") == undisturbed


def test_minio_gives_the_same_bytes(s3: S3Bucket, job: Job, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    for path in (job.folder / "input").iterdir():
        s3.client.fput_object(s3.bucket, f"in/{path.name}", str(path))
    section = {
        "URL": f"s3://{s3.bucket}",
        "ENDPOINT": s3.endpoint,
        "ACCESS_KEY": s3.key,
        "SECRET_KEY": s3.secret,
        "REGION": s3.region,
    }
    extra = {f"TIDEMILL_REGIONS__LOCAL__BUCKETS__DATA__{name}": value for name, value in section.items()}
    task = job.task(tmp_path, tmp_path / "counts", record_s=0)
    seen = on_server(tmp_path, {**task, "input": "cos://data/in/", "output": "cos://data/out/"}, extra)
    assert seen["status"] == "SUCCEED", seen
    listed = s3.client.list_objects(s3.bucket, "out/", recursive=True)
    names = {(found.object_name or "").removeprefix("out/") for found in listed}
    assert {name for name in names if not name.startswith("_tidemill/")} == {
        *undisturbed,
        "receipt.json",
        "_SUCCESS",
        "_inputs.jsonl",
    }
    for name, expected in undisturbed.items():
        found = s3.client.get_object(s3.bucket, f"out/{name}").read()
        assert (without_attempts(found) if name == "errors.jsonl" else found) == expected, name
