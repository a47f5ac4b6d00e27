"""The contract's messages in JSON: what the runtime writes is read, what a coordinator writes the runtime reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.coordination.messages import read_report, write_manifest, write_orders
from tidemill.domain.errors import InvalidValue
from tidemill_runtime import wire
from tidemill_runtime.contract import (
    Access,
    Channel,
    Commit,
    Counts,
    Cursor,
    Fault,
    Held,
    InputFormat,
    InputObject,
    Lease,
    Manifest,
    Orders,
    PartTarget,
    Pins,
    Report,
    ResultFormat,
)

numbers = st.integers(0, 2**62)
texts = st.text(max_size=20)
cursors = st.builds(Cursor, numbers, numbers)
counts = st.builds(
    lambda ok, failed, skipped: Counts(ok + failed + skipped, ok, failed, skipped), numbers, numbers, numbers
)
seconds = st.floats(0, 1e9)
commits = st.builds(
    Commit,
    split=numbers,
    fence=numbers,
    part=texts,
    begin=cursors,
    end=cursors,
    done=st.booleans(),
    data_bytes=numbers,
    errors_bytes=numbers,
    index_bytes=numbers,
    sha256=texts,
    counts=counts,
    seconds=seconds,
)
faults = st.builds(Fault, st.sampled_from(["internal", "missing_module"]), texts, texts, texts)
reports = st.builds(
    Report,
    version=numbers,
    instance=texts,
    state=st.sampled_from(["starting", "loading", "running", "stopping"]),
    commits=st.lists(commits, max_size=3),
    held=st.lists(st.builds(Held, numbers, numbers), max_size=3),
    want=numbers,
    pending=counts,
    memory_bytes=numbers,
    seconds=st.dictionaries(texts, seconds, max_size=3),
    tuning=st.dictionaries(texts, texts | numbers, max_size=3),
    waiting=texts,
    fault=st.none() | faults,
)


@given(reports)
def test_reports_read_back(report: Report) -> None:
    assert read_report(json.dumps(asdict(report)).encode()) == report


def test_a_report_of_the_runtime_is_read() -> None:
    text = wire.dumps(
        wire.report(
            "i",
            "running",
            commits=[],
            held=[{"split": 1, "fence": 2}],
            want=3,
            pending=wire.ZERO_COUNTS,
            memory_bytes=4,
            seconds={"load": 0.5},
            tuning={"processes": 2},
            waiting="for the storage",
            fault=wire.fault("internal", "m", "e", "t"),
        )
    )
    report = read_report(text)
    assert report.held == [Held(1, 2)]
    assert (report.want, report.memory_bytes, report.seconds) == (3, 4, {"load": 0.5})
    assert report.waiting == "for the storage"
    assert report.fault == Fault("internal", "m", "e", "t")


GOOD: dict[str, Any] = asdict(
    Report(1, "i", "running", [Commit(1, 1, "p", Cursor(), Cursor(1), True, 1, 0, 0, "s", Counts(1, 1))], [Held(1, 1)])
)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("version", "1", "version"),
        ("version", True, "version"),
        ("version", -1, "version"),
        ("instance", 5, "instance"),
        ("instance", "x" * 70_000, "instance"),
        ("state", "dancing", "state"),
        ("want", -1, "want"),
        ("want", 1.5, "want"),
        ("held", {}, "held"),
        ("held", [1], "held"),
        ("held.0.split", None, "split"),
        ("commits.0.done", 1, "done"),
        ("commits.0.begin", [0, 0], "begin"),
        ("commits.0.end.offset", "x", "offset"),
        ("commits.0.counts", None, "counts"),
        ("commits.0.counts.ok", 5, "does not add up"),
        ("commits.0.seconds", float("inf"), "seconds"),
        ("pending", [1], "counts"),
        ("seconds", [1], "seconds"),
        ("seconds", {"load": "long"}, "seconds.load"),
        ("fault", "bang", "fault"),
        ("fault", {"kind": 5}, "kind"),
    ],
)
def test_reports_are_not_taken_on_trust(path: str, value: object, told: str) -> None:
    report = json.loads(json.dumps(GOOD))
    *above, last = path.split(".")
    inner = report
    for key in above:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[last] = value
    with pytest.raises(InvalidValue, match=told):
        read_report(json.dumps(report).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b'"x"', b"{}"])
def test_what_is_no_report(text: bytes) -> None:
    with pytest.raises(InvalidValue):
        read_report(text)


def test_unknown_kinds_of_faults_are_internal_and_long_texts_are_cut() -> None:
    fault = read_report(json.dumps({**GOOD, "fault": {"kind": "gremlins", "message": "x" * 100_000}}).encode()).fault
    assert fault is not None
    assert (fault.kind, len(fault.message)) == ("internal", 64 * 1024)


def test_orders_are_read_by_the_runtime() -> None:
    lease = Lease(
        3,
        2,
        [InputObject(7, "一 \udcff.jsonl", 10, "e", Access("url", "http://x/?a=b", {"If-Match": "e"}))],
        5,
        9,
        Cursor(0, 4),
        PartTarget("p", Access("path", "/parts/p")),
    )
    orders = Orders("work", [lease], [Held(1, 1)], 0.5, "token")
    read = wire.read_orders(write_orders(orders))
    assert (read["directive"], read["report_every_s"], read["token"]) == ("work", 0.5, "token")
    assert read["refused"] == [{"split": 1, "fence": 1}]
    found = wire.read_lease(read["leases"][0])
    assert (found.split, found.fence, found.start, found.stop) == (3, 2, 5, 9)
    assert (found.cursor.offset, found.part.name, found.part.put.location) == (4, "p", "/parts/p")
    assert (found.objects[0].name, found.objects[0].get.headers) == ("一 \udcff.jsonl", {"If-Match": "e"})
    assert json.loads(write_orders(orders)) == json.loads(json.dumps(asdict(orders)))


def test_manifests_are_read_by_the_runtime(tmp_path: object) -> None:
    manifest = Manifest(
        1, "t", "r", "i", Channel("fd", fd=5), "/m", None, None, InputFormat("jsonl"), ResultFormat(), 1000, 10, "/s",
        pins=Pins(batch_size=4), env={"A": "ü"},
    )  # fmt: skip
    assert json.loads(write_manifest(manifest)) == json.loads(json.dumps(asdict(manifest)))
