"""Who owns an output folder: one of many contenders, again and again the same, and nobody beside it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.conftest import S3Bucket
from tests.integration.publish_world import Place
from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, OutputTaken
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects
from tidemill.publishing.claims import (
    Claim,
    check_output,
    check_result_name,
    claim,
    read_claim,
    release_claim,
)

Folder = tuple[Objects, Location]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Place(str(tmp_path), f"{tmp_path}/out/").open()
    s3: S3Bucket = request.getfixturevalue("s3")
    return Place(str(tmp_path), "cos://data/out/", (s3.bucket, s3.endpoint, s3.key, s3.secret)).open()


def test_one_of_many_wins(folder: Folder) -> None:
    objects, output = folder
    start = threading.Barrier(6)
    won: list[str] = []
    refused: list[OutputTaken] = []

    def contend(task: str) -> None:
        start.wait()
        try:
            claim(objects, output, task, f"{task}-r1")
            won.append(task)
        except OutputTaken as error:
            refused.append(error)

    threads = [threading.Thread(target=contend, args=(f"batch-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 5)
    assert all(won[0] in error.message for error in refused)
    assert read_claim(objects, output) == Claim(won[0], f"{won[0]}-r1")


def test_the_owner_comes_back_and_leaves(folder: Folder) -> None:
    objects, output = folder
    assert read_claim(objects, output) is None
    release_claim(objects, output, "batch-1")
    claim(objects, output, "batch-1", "r1")
    claim(objects, output, "batch-1", "r2")
    check_output(objects, output, if_exists="refuse", task="batch-1")
    with pytest.raises(OutputTaken, match="batch-1"):
        claim(objects, output, "batch-2", "r1")
    for if_exists in ("refuse", "replace"):
        with pytest.raises(OutputTaken, match="belongs to batch-1"):
            check_output(objects, output, if_exists=if_exists, task="batch-2")
    release_claim(objects, output, "batch-2")
    assert read_claim(objects, output) is not None
    release_claim(objects, output, "batch-1")
    claim(objects, output, "batch-2", "r1")


def test_a_folder_that_holds_other_results(folder: Folder) -> None:
    objects, output = folder
    check_output(objects, output, if_exists="refuse")
    objects.put(output.child(".gitkeep"), b"")
    objects.put(output.child(f"{layout.STAGING}batch-0/parts/x"), b"left by a task that is gone")
    check_output(objects, output, if_exists="refuse")
    objects.put(output.child("sub/old.jsonl"), b"1")
    with pytest.raises(OutputTaken, match=r"sub/old\.jsonl.*replace"):
        check_output(objects, output, if_exists="refuse")
    check_output(objects, output, if_exists="replace")


def test_an_object_is_no_folder(folder: Folder) -> None:
    objects, output = folder
    objects.put(output.child("x"), b"1")
    with pytest.raises(InvalidValue, match="is an object"):
        check_output(objects, output.child("x"), if_exists="replace")


def test_a_claim_that_cannot_be_read_is_respected(folder: Folder) -> None:
    objects, output = folder
    objects.put(output.child(layout.CLAIM), b"{torn")
    with pytest.raises(OutputTaken, match="unknown"):
        claim(objects, output, "batch-1", "r1")


def test_names_that_no_store_could_hold() -> None:
    check_result_name("a" * 255)
    check_result_name("/".join(["a" * 200] * 5))
    for name in ("中" * 86, "/".join(["a" * 200] * 6)):
        with pytest.raises(InvalidValue, match="bytes"):
            check_result_name(name)
