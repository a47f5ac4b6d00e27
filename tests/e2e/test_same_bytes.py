"""One task file: `tidemill run`, a server with local folders, a server with MinIO. The same bytes come out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from minio import Minio

from tests.e2e.harness import TIDEMILL, Job, Server, results

ENDPOINT = "TIDEMILL_TEST_S3"
BUCKET = "same-bytes"


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


@pytest.fixture
def minio() -> Iterator[Minio]:
    """A bucket of its own, removed afterwards."""
    if ENDPOINT not in os.environ:
        pytest.skip(f"{ENDPOINT} is not set")
    key, secret = os.environ["TIDEMILL_TEST_S3_KEY"], os.environ["TIDEMILL_TEST_S3_SECRET"]
    client = Minio(urlsplit(os.environ[ENDPOINT]).netloc, key, secret, secure=False)
    if not client.bucket_exists(BUCKET):
        client.make_bucket(BUCKET)
    yield client
    for found in client.list_objects(BUCKET, recursive=True):
        client.remove_object(BUCKET, found.object_name)


@pytest.mark.s3
def test_minio_gives_the_same_bytes(minio: Minio, job: Job, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    for path in (job.folder / "input").iterdir():
        minio.fput_object(BUCKET, f"in/{path.name}", str(path))
    section = {
        "URL": f"s3://{BUCKET}",
        "ENDPOINT": os.environ[ENDPOINT],
        "ACCESS_KEY": os.environ["TIDEMILL_TEST_S3_KEY"],
        "SECRET_KEY": os.environ["TIDEMILL_TEST_S3_SECRET"],
        "REGION": "us-east-1",
    }
    extra = {f"TIDEMILL_REGIONS__LOCAL__BUCKETS__DATA__{name}": value for name, value in section.items()}
    task = job.task(tmp_path, tmp_path / "counts", record_s=0)
    seen = on_server(tmp_path, {**task, "input": "cos://data/in/", "output": "cos://data/out/"}, extra)
    assert seen["status"] == "SUCCEED", seen
    names = [found.object_name.removeprefix("out/") for found in minio.list_objects(BUCKET, "out/", recursive=True)]
    assert set(names) == {*undisturbed, "receipt.json", "_SUCCESS"} | {
        name for name in names if name.startswith("_tidemill/")
    }
    for name, expected in undisturbed.items():
        assert minio.get_object(BUCKET, f"out/{name}").read() == expected, name
