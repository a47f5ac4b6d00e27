"""What the tests with real servers share: the job, its undisturbed result, and a server on each database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.report import machine
from tests.e2e.harness import KILLS, Job, Server, counted, results

SOAK = Path(__file__).parents[2] / "docs" / "soak.md"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Writes down what a long run with kills has come to."""
    if os.environ.get("TIDEMILL_TEST_PROFILE") == "soak" and KILLS:
        outcome = "all passed" if exitstatus == 0 else f"{session.testsfailed} FAILED"
        SOAK.write_text(
            f"""# The last long run

`make soak` kills servers and instances at every named point and at random, on SQLite and PostgreSQL, and compares the
results byte for byte with those of an undisturbed run. It writes this page.

| | |
|---|---|
| machine | {machine()} |
| kills of servers | {KILLS["server"]} |
| kills of instances | {KILLS["instance"]} |
| tests | {session.testscollected}, {outcome} |
"""
        )


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
    made.wipe()
