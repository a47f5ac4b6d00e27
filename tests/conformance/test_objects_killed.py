"""A process that is killed in the middle of writing an object leaves nothing that anybody could see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import S3Bucket

WRITER = [sys.executable, "-m", "tests.conformance.objects_writer"]


def kill_in_the_middle(*arguments: str) -> None:
    process = subprocess.Popen([*WRITER, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"in the middle\n"
        process.kill()
    assert process.wait() == -9


@pytest.mark.parametrize("what", ["put", "put_large", "compose"])
@pytest.mark.parametrize("where", ["cos://data/out/", "/out/"])
def test_local(what: str, where: str, tmp_path: Path) -> None:
    kill_in_the_middle(what, str(tmp_path), f"{tmp_path}{where}" if where == "/out/" else where)
    left = [name for _, _, files in os.walk(tmp_path) for name in files]
    assert left == (["part"] if what == "compose" else [])


@pytest.mark.parametrize("what", ["put", "put_large", "compose"])
def test_s3(what: str, s3: S3Bucket, tmp_path: Path) -> None:
    kill_in_the_middle(what, str(tmp_path), "cos://data/out/", s3.bucket, s3.endpoint, s3.key, s3.secret)
    left = [found.object_name for found in s3.client.list_objects(s3.bucket, recursive=True)]
    assert left == (["out/_tidemill/t/part"] if what == "compose" else [])
