"""The light messages of the runtime are the contract's, key for key and default for default."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import msgspec

from tidemill_runtime import contract, sink, wire
from tidemill_runtime.source import file_etag
from tidemill_runtime.suspicion import Failure


def test_defaults_are_those_of_the_contract() -> None:
    for name, defaults in wire.DEFAULTS.items():
        kind = getattr(contract, name)
        wanted = {}
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING:
                wanted[field.name] = msgspec.to_builtins(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                wanted[field.name] = field.default_factory()
        if name == "Manifest":
            wanted["pins"] = {}
        assert defaults == wanted, name


def test_constants() -> None:
    names = ("CONTRACT_VERSION", "EXIT_DONE", "EXIT_FATAL", "EXIT_ORPHANED", "EXIT_STOPPED")
    assert [getattr(wire, name) for name in names] == [getattr(contract, name) for name in names]


def test_report_and_error_record_have_every_field() -> None:
    report = wire.report(
        "inst-1",
        "running",
        commits=[],
        held=[],
        want=0,
        pending=wire.ZERO_COUNTS,
        memory_bytes=0,
        seconds={},
        tuning={},
        waiting="",
        fault=wire.fault("internal", "x"),
    )
    assert set(report) == {field.name for field in dataclasses.fields(contract.Report)}
    msgspec.json.decode(wire.dumps(report), type=contract.Report)
    record = sink.error_record(0, 1, Failure("crash", "T", "m", "", 1), b"raw")
    assert set(record) == {field.name for field in dataclasses.fields(contract.ErrorRecord)}
    msgspec.convert(record, contract.ErrorRecord)


def test_manifest_and_lease_survive(tmp_path: Path) -> None:
    manifest = contract.Manifest(
        version=1,
        task="t",
        run="r",
        instance="i",
        channel=contract.Channel("fd", fd=3),
        model="/m",
        code=None,
        command=None,
        input=contract.InputFormat("csv", delimiter=";"),
        result=contract.ResultFormat(),
        millicores=500,
        memory_bytes=1,
        scratch="/s",
        env={"A": "1"},
    )
    path = tmp_path / "manifest.json"
    path.write_bytes(msgspec.json.encode(manifest))
    read = wire.read_manifest(str(path))
    assert read.input.delimiter == ";"
    assert read.channel.fd == 3
    assert read.env == {"A": "1"}
    assert read.pins.batch_size is None
    listed = contract.InputObject(0, "a", 1, "e", contract.Access("url", "http://x", {"h": "v"}))
    part = contract.PartTarget("p", contract.Access("path", "/p"))
    lease = contract.Lease(1, 2, [listed], 0, -1, contract.Cursor(3, 4), part)
    values = json.loads(msgspec.json.encode(lease))
    found = wire.read_lease(values)
    assert found.objects[0].get.headers == {"h": "v"}
    assert (found.cursor.object, found.cursor.offset) == (3, 4)
    assert found.part.put.kind == "path"


def test_the_etag_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    stat = (tmp_path / "a").stat()
    assert file_etag(stat) == contract.local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def test_fingerprints_do_not_depend_on_values() -> None:
    first = Failure("model_error", "KeyError", "'a7'", 'File "m.py", line 3, in predict', 1)
    second = first._replace(message="'b9'", attempts=4)
    third = first._replace(traceback='File "m.py", line 4, in predict')
    assert sink.fingerprint(first) == sink.fingerprint(second) != sink.fingerprint(third)


def test_input_of_an_error_is_capped_at_a_character() -> None:
    raw = "é".encode() * 20_000
    record = sink.error_record(0, 0, Failure("model_error", "T", "m", "", 1), b"x" + raw)
    assert record["input_truncated"]
    assert not record["input_base64"]
    assert record["input"].endswith("é")
