"""What all suites share: fresh databases and buckets on real servers, Hypothesis profiles, skips that count.

Tests find real servers by TIDEMILL_TEST_POSTGRES (a SQLAlchemy URL) and TIDEMILL_TEST_S3 with _KEY and _SECRET;
`dev/with-servers` sets them. Without them the tests that need one are skipped, and say so. Where nothing may be
skipped (TIDEMILL_TEST_NO_SKIP=1) a skip is a failure.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from minio import Minio
from minio.deleteobjects import DeleteObject
from sqlalchemy import make_url

POSTGRES = "TIDEMILL_TEST_POSTGRES"
S3 = "TIDEMILL_TEST_S3"
NO_SKIP = os.environ.get("TIDEMILL_TEST_NO_SKIP") == "1"
PROFILE = os.environ.get("TIDEMILL_TEST_PROFILE", "ci")

# No deadlines: the machine that runs the tests may be busy with something else. `ci` draws the same examples each time.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=60, database=None)
settings.register_profile(
    "soak", deadline=None, max_examples=2_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(PROFILE)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background with SIGINT ignored, and whatever is started inherits that: then
    # nothing that the tests start could be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

NEEDS = {"postgres_url": "postgres", "s3": "s3"}
"""Fixtures that need a real server, and the marker that a test gets by using one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real server; `database_url` marks its own parameter."""
    for item in items:
        for fixture, marker in NEEDS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Let no test be skipped where all have to run."""
    report = yield
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """The same for a whole file that skips itself."""
    report = yield
    if NO_SKIP and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A SQLAlchemy URL of a new, empty database on a real PostgreSQL; dropped afterwards."""
    server = os.environ.get(POSTGRES)
    if not server:
        pytest.skip(f"{POSTGRES} is not set: no PostgreSQL to test on (make test-postgres starts one)")
    url = make_url(server)
    name = f"test_{secrets.token_hex(6)}"
    admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # no parameters in DDL; the name is ours
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A SQLAlchemy URL of a new, empty database: once a file of SQLite, once PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("postgres_url"))


@dataclass(frozen=True)
class S3Bucket:
    """A bucket on a real S3 store, and a client by other hands than ours to look into it."""

    endpoint: str
    key: str
    secret: str
    bucket: str
    region: str
    client: Minio


@pytest.fixture
def s3() -> Iterator[S3Bucket]:
    """A new, empty bucket on a real S3 store; removed with its content afterwards."""
    endpoint = os.environ.get(S3)
    if not endpoint:
        pytest.skip(f"{S3} is not set: no S3 store to test on (make test-minio starts one)")
    key, secret = os.environ[f"{S3}_KEY"], os.environ[f"{S3}_SECRET"]
    parts = urlsplit(endpoint)
    client = Minio(parts.netloc, key, secret, secure=parts.scheme == "https", region="us-east-1")
    bucket = f"test-{secrets.token_hex(6)}"
    client.make_bucket(bucket)
    yield S3Bucket(endpoint, key, secret, bucket, "us-east-1", client)
    left = [DeleteObject(seen.object_name or "") for seen in client.list_objects(bucket, recursive=True)]
    failures = list(client.remove_objects(bucket, left))
    assert not failures, failures
    client.remove_bucket(bucket)
