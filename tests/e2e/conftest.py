"""What the tests with real servers share: the job, its undisturbed result, and a server on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Job, Server, counted, results


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.make(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="session")
def undisturbed(job: Job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result of the job where nothing is killed; each record was predicted once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    server = Server(folder / "data")
    server.start()
    try:
        seen = server.finished(server.create(job.task(folder / "out", folder / "counts", record_s=0)))
    finally:
        server.stop()
    assert seen["status"] == "SUCCEED", seen
    assert sorted(counted(folder / "counts")) == sorted(job.numbers)
    return results(folder / "out")


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Server]:
    made = Server(tmp_path / "data", database_url)
    yield made
    if made.process is not None:
        made.kill()
    made.kill_instances()
