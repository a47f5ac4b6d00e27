"""The smaller pieces of `tidemill run`: lock, models' digests, timeline, meter, result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidemill.domain.errors import (
    InputChanged,
    OutputTaken,
    PartDamaged,
    StorageDenied,
    StorageFull,
    StorageUnavailable,
)
from tidemill.domain.life import Reason, TaskStatus
from tidemill.domain.location import Location, parse_location
from tidemill.local.ending import Timeline, end_of
from tidemill.local.models import digest_of, stamp_of
from tidemill.local.place import FolderLock, home_of, noted_scratch, noted_task
from tidemill.local.progress import Meter
from tidemill.local.result import Result
from tidemill.objects.region import open_region
from tidemill.ports.journal import Totals
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret
from tidemill_runtime.contract import Counts

OUTPUT = Location("file", None, "/out/")


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "home", OUTPUT)
    lock.note("batch-1", f"{tmp_path}/tidemill-x y")
    with pytest.raises(OutputTaken, match=f"process {os.getpid()}"):
        FolderLock(tmp_path / "home", OUTPUT)
    lock.release(remove=False)
    lock.release(remove=True)
    assert noted_task(tmp_path / "home") == "batch-1"
    assert noted_scratch(tmp_path / "home") is None  # it is gone by itself
    (tmp_path / "tidemill-x y").mkdir()
    assert noted_scratch(tmp_path / "home") == tmp_path / "tidemill-x y"
    again = FolderLock(tmp_path / "home", OUTPUT)
    assert noted_task(tmp_path / "home") == "batch-1"
    again.note("b", "/")
    assert noted_task(tmp_path / "home") == "b"
    assert noted_scratch(tmp_path / "home") is None  # that was none of ours
    again.release(remove=True)
    assert not (tmp_path / "home").exists()
    assert noted_task(tmp_path / "home") is None


def test_the_home_of_an_output_is_beside_it_or_in_the_data_folder(tmp_path: Path) -> None:
    s3 = BucketSection(url="s3://b", endpoint="http://127.0.0.1:1", access_key="k", secret_key=Secret("s"), region="r")
    objects = open_region({"data": BucketSection(), "far": s3}, tmp_path / "data", local_paths=True)
    assert home_of(objects, OUTPUT, tmp_path) == Path("/out/_tidemill")
    bucket = home_of(objects, parse_location("cos://data/x/", field="f"), tmp_path)
    assert bucket == tmp_path / "data/buckets/data/x/_tidemill"
    far = home_of(objects, parse_location("cos://far/x/", field="f"), tmp_path / "data")
    assert far.parent == tmp_path / "data/runs"
    assert far == home_of(objects, parse_location("s3://far/x/", field="f"), tmp_path / "data")


def test_digests_know_content_and_stamps_know_writes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "batch").mkdir(parents=True)
        (tmp_path / folder / "batch/model_service.py").write_text("x = 1\n")
        (tmp_path / folder / "__pycache__").mkdir()
        (tmp_path / folder / "__pycache__/x.pyc").write_text(folder)
    first, second = tmp_path / "a", tmp_path / "b"
    assert digest_of(first) == digest_of(second)
    assert stamp_of([first]) != stamp_of([second])
    before = stamp_of([first])
    (first / "__pycache__/y.pyc").write_text("")
    assert stamp_of([first]) == before
    os.utime(first / "batch/model_service.py", (1, 1))
    assert stamp_of([first]) != before
    (second / "more").write_text("")
    assert digest_of(first) != digest_of(second)


def test_phases_add_up_also_where_some_were_not_reached() -> None:
    times = Timeline(10.0, 11.0, 12.0, 14.0, 15.0)
    assert times.seconds(17.0) == {
        "queue": 1, "environment": 0, "start": 1, "load": 2, "predict": 1, "publish": 2, "total": 7
    }  # fmt: skip
    assert Timeline(10.0, 11.0).seconds(13.0) == {
        "queue": 1, "environment": 0, "start": 2, "load": 0, "predict": 0, "publish": 0, "total": 3
    }  # fmt: skip
    installed = Timeline(10.0, 13.0, 14.0, installing=10.5).seconds(15.0)
    assert (installed["queue"], installed["environment"], installed["start"]) == (0.5, 2.5, 1)
    given_up = Timeline(10.0, installing=10.5).seconds(12.0)
    assert (given_up["queue"], given_up["environment"], given_up["total"]) == (0.5, 1.5, 2)
    resumed = Timeline(10.0, 11.0, 12.5, None, 12.0).seconds(13.0)  # nothing was left to compute
    assert resumed["start"] == 1
    assert resumed["publish"] == 1
    assert sum(resumed.values()) == 2 * resumed["total"]


def test_speed_and_time_to_go() -> None:
    meter = Meter()
    assert meter.measure(0.0, Totals(10, 0, 1000, 0, Counts(), 10, 0), Counts()) == (None, None, 0.0)
    rate, eta_s, share = meter.measure(5.0, Totals(10, 5, 1000, 500, Counts(50, 50), 10, 0), Counts(10, 10))
    assert (rate, share) == (12.0, 0.5)
    assert eta_s == pytest.approx(40 / 12)
    for second in range(6, 40):
        rate, _, _ = meter.measure(float(second), Totals(10, 5, 1000, 500, Counts(60, 60), 10, 0), Counts())
    assert rate is None  # it stands still
    assert meter.measure(41.0, Totals(4, 2, 0, 0, Counts(), 1, 0), Counts())[2] == 0.5


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (StorageFull("x"), TaskStatus.STOPPED, Reason.DISK_FULL),
        (PartDamaged("x"), TaskStatus.FAILED, Reason.RESULT_DAMAGED),
        (InputChanged("x"), TaskStatus.FAILED, Reason.INPUT_CHANGED),
        (OutputTaken("x"), TaskStatus.FAILED, Reason.OUTPUT_TAKEN),
        (StorageUnavailable("x"), TaskStatus.FAILED, Reason.STORAGE_FAILED),
        (StorageDenied("x"), TaskStatus.FAILED, Reason.STORAGE_FAILED),
        (OSError("x"), TaskStatus.FAILED, Reason.STORAGE_FAILED),
        (AssertionError("x"), TaskStatus.FAILED, Reason.INTERNAL),
    ],
)
def test_what_errors_mean_for_a_run(error: Exception, status: TaskStatus, reason: Reason) -> None:
    end = end_of(error)
    assert (end.status, end.reason, end.detail) == (status, reason, "x")


def test_a_notebook_shows_the_account_and_escapes_it() -> None:
    errors = [b'{"object":"<a>.jsonl","line":%d,"type":"E","message":"<b>"}' % n for n in range(9)]
    reason = Reason.FINISHED_WITH_FAILED_RECORDS
    result = Result(
        "t",
        TaskStatus.SUCCEED,
        reason,
        "why",
        Counts(10, 1, 9, 0),
        "/<o>/",
        {"load": 1.0},
        _errors=lambda: iter(errors),
    )
    page = result._repr_html_()
    assert "SUCCEED WITH 9 FAILED RECORDS" in page
    assert page.count("&lt;a&gt;.jsonl line") == 5
    assert "<a>" not in page and "<b>" not in page.replace("<b>SUCCEED", "") and "<o>" not in page
    one = Result("t", TaskStatus.FAILED, Reason.CRASHED, "died", Counts(), "/o/", {})
    assert one.headline == "FAILED"
    assert "died" in one._repr_html_()
    assert (list(one.results()), list(one.errors()), list(one.predictions())) == ([], [], [])
