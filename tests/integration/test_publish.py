"""Committed parts become results: every layout, small parts and large, errors with places, damage and conflicts."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import S3Bucket
from tests.integration.publish_world import TASK, Place, World, make_world, predict
from tidemill.domain import layout
from tidemill.domain.errors import Conflict, InvalidValue, OutputTaken, PartDamaged
from tidemill.domain.splits import Cut, Layout
from tidemill.publishing import units
from tidemill.publishing.publisher import Finished, check_result_format, read_marker
from tidemill.publishing.signing import signature_fault
from tidemill_runtime.contract import Counts, ResultFormat

Make = Callable[..., World]


@pytest.fixture
def s3_place(s3: S3Bucket, tmp_path: Path) -> Place:
    return Place(str(tmp_path), "cos://data/输出 #1/", (s3.bucket, s3.endpoint, s3.key, s3.secret))


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    remote = request.param == "s3"
    place = request.getfixturevalue("s3_place") if remote else Place(str(tmp_path), f"{tmp_path}/out/")
    return lambda *args: make_world(place, *args)


def lines(seed: int, count: int, poison: int = 0) -> bytes:
    """JSON lines with some blank and some poisonous, the last without its newline."""
    chance = random.Random(seed)
    made = [json.dumps({"n": number, "x": "ü" * chance.randrange(40)}) for number in range(count)]
    for at in chance.sample(range(count), count // 10):
        made[at] = ""
    for at in chance.sample(range(count), poison):
        made[at] = "poison"
    return "\n".join(made).encode()


def expected_lines(data: bytes) -> bytes:
    return b"".join(
        b"null\n" if line == b"poison" else predict("", line, of_files=False)
        for line in data.splitlines()
        if line.strip()
    )


def expected_errors(inputs: dict[str, bytes]) -> list[tuple[str, int]]:
    return [
        (name, number)
        for name in sorted(inputs, key=str.encode)
        for number, line in enumerate(inputs[name].splitlines(), 1)
        if line == b"poison"
    ]


def check_account(world: World) -> dict[str, bytes]:
    """Errors, receipt and marker fit the input and the results, which are returned."""
    found = world.results()
    errors = [json.loads(line) for line in found.pop(layout.ERRORS).splitlines()]
    assert [(error["object"], error["line"]) for error in errors] == expected_errors(world.inputs)
    for error in errors:
        assert (error["fault"], error["type"], error["attempts"], error["input"]) == (
            "model_error",
            "ValueError",
            2,
            "poison",
        )
        assert error["traceback"]
        assert error["fingerprint"]
    receipt_text = found.pop(layout.RECEIPT)
    receipt = json.loads(receipt_text)
    assert signature_fault(receipt, trusted=None) is None
    assert hashlib.sha256(found.pop(layout.INPUTS)).hexdigest() == receipt["input"]["listing_sha256"]
    counts = receipt["counts"]
    records = sum(len(data.splitlines()) for data in world.inputs.values())
    assert counts["inputs"] == counts["ok"] + counts["failed"] + counts["skipped"] == records
    assert counts["failed"] == len(errors)
    marker = found.pop(layout.MARKER)
    header, _, manifest = marker.partition(b"\n")
    assert hashlib.sha256(manifest).hexdigest() == receipt["results"]["manifest_sha256"]
    assert json.loads(header)["receipt_sha256"] == hashlib.sha256(receipt_text).hexdigest()
    listed = [json.loads(line) for line in manifest.splitlines()]
    assert {each["name"]: (each["size"], each["sha256"]) for each in listed} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in found.items()
    }
    assert sum((Counts(**each["counts"]) for each in listed), Counts()) == Counts(**counts)
    assert (receipt["results"]["objects"], receipt["results"]["bytes"]) == (len(found), sum(map(len, found.values())))
    return found


SMALL = {
    f"文件 {number}#%20.jsonl": lines(number, number % 7, poison=number % 3 if number % 7 > 3 else 0)
    for number in range(600)
}
MIXED = {
    "a/large.jsonl": lines(1, 9000, poison=5),
    "b.jsonl": lines(2, 30, poison=1),
    "c.jsonl": b"",
    "z/large.jsonl": lines(3, 9000),
}


@pytest.mark.parametrize("records_per_part", [7, 1_000_000])
@pytest.mark.parametrize("inputs", [SMALL, MIXED], ids=["small", "mixed"])
def test_a_result_for_each_object(make: Make, inputs: dict[str, bytes], records_per_part: int) -> None:
    if records_per_part == 7 and inputs is MIXED:
        records_per_part = 100
    world = make(inputs, Cut.RANGES, Layout.PER_OBJECT)
    world.compute(records_per_part=records_per_part)
    finished = world.run_to_end()
    assert finished.results == len(inputs)
    found = check_account(world)
    assert found == {f"{name}.out.jsonl": expected_lines(data) for name, data in inputs.items()}


def test_packs_that_do_not_fit_into_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "LOADED_BYTES_MAX", 10)
    world = make(SMALL, Cut.RANGES, Layout.PER_OBJECT)
    world.compute(records_per_part=50)
    world.run_to_end()
    assert check_account(world) == {f"{name}.out.jsonl": expected_lines(data) for name, data in SMALL.items()}


@pytest.mark.parametrize("records_per_part", [100, 1_000_000])
@pytest.mark.parametrize("inputs", [SMALL, MIXED], ids=["small", "mixed"])
def test_one_result_for_all(make: Make, inputs: dict[str, bytes], records_per_part: int) -> None:
    world = make(inputs, Cut.RANGES, Layout.SINGLE)
    world.compute(records_per_part=records_per_part)
    world.run_to_end()
    whole = b"".join(expected_lines(inputs[name]) for name in sorted(inputs, key=str.encode))
    assert check_account(world) == {"predictions.jsonl": whole}


@pytest.mark.parametrize("records_per_part", [3, 1_000_000])
def test_numbered_parts_of_files(make: Make, records_per_part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.domain.splits.PART_FILES", 100)
    inputs = {f"{number:05d}.png": b"poison" if number % 50 == 9 else b"x" * number for number in range(700)}
    world = make(inputs, Cut.FILES, Layout.PARTS)
    world.compute(records_per_part=records_per_part)
    finished = world.run_to_end()
    assert finished.results == world.plan.units > 3
    assert finished.counts == Counts(700, 686, 14, 0)
    found = world.results()
    errors = [json.loads(line) for line in found[layout.ERRORS].splitlines()]
    assert [error["object"] for error in errors] == [name for name, data in inputs.items() if data == b"poison"]
    assert all("line" not in error and "row" not in error for error in errors)
    whole = b"".join(found[f"part-{number:05d}.jsonl"] for number in range(finished.results))
    assert whole == b"".join(predict(name, data, of_files=True) for name, data in inputs.items() if data != b"poison")


def test_units_are_published_while_others_are_computed(make: Make) -> None:
    world = make(MIXED, Cut.RANGES, Layout.PER_OBJECT)
    publisher = world.publisher()
    assert publisher.publish_ready(10) == 0
    world.compute(only=world.plan.splits - 2)
    published = publisher.publish_ready(10)
    assert 0 < published < world.plan.units
    assert publisher.publish_ready(10) == 0
    assert [json.loads(line)["line"] for line in publisher.errors() if b"a/large" in line] == [
        line for name, line in expected_errors(MIXED) if name == "a/large.jsonl"
    ]
    with pytest.raises(Conflict, match="not published"):
        publisher.finish(world.receipt())
    assert layout.MARKER not in world.results()
    world.compute()
    world.run_to_end()
    check_account(world)


def test_everything_may_be_repeated(make: Make) -> None:
    world = make(MIXED, Cut.RANGES, Layout.PER_OBJECT)
    world.compute()
    first = world.run_to_end()
    found = world.results()
    assert world.run_to_end() == first
    assert world.results() == found
    world.publisher().clean()
    assert world.publisher().finish(world.receipt()) == first
    world.publisher().clean()
    assert world.results() == found
    assert world.staged() == []
    marker = read_marker(world.objects, world.output)
    assert marker is not None
    assert marker["task"] == TASK


def test_two_publishers_at_a_time(make: Make) -> None:
    """As when a server was given up and another began: they do the same, and one result comes of it."""
    world = make(MIXED, Cut.RANGES, Layout.PER_OBJECT)
    world.compute(records_per_part=500)
    start = threading.Barrier(3)
    finished: list[Finished] = []

    def publish() -> None:
        start.wait()
        finished.append(world.run_to_end())

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(finished) == 3
    assert len(set(finished)) == 1
    found = check_account(world)
    assert found == {f"{name}.out.jsonl": expected_lines(data) for name, data in MIXED.items()}


def test_a_damaged_part_is_named(make: Make) -> None:
    for kind in (Layout.PER_OBJECT, Layout.SINGLE):
        for inputs in (SMALL, MIXED):
            world = make(inputs, Cut.RANGES, kind)
            world.compute()
            victim = world.part_locations()[0]
            whole = world.objects.read(victim)
            name = victim.key.rpartition("/")[2].replace(".", r"\.")
            for damaged in (whole[:-1], b"X" + whole[1:], None):
                if damaged is None:
                    world.objects.delete([victim])
                else:
                    world.objects.put(victim, damaged)
                with pytest.raises(PartDamaged, match=name):
                    world.run_to_end()
            world.objects.put(victim, whole)
            world.run_to_end()
            check_account(world)
            world.objects.delete_below(world.output)


def test_anothers_object_in_the_way(make: Make) -> None:
    world = make(MIXED, Cut.RANGES, Layout.PER_OBJECT)
    world.compute()
    world.objects.put(world.output.child("b.jsonl.out.jsonl"), b"precious")
    with pytest.raises(OutputTaken, match=r"b\.jsonl\.out\.jsonl"):
        world.run_to_end()
    assert world.objects.read(world.output.child("b.jsonl.out.jsonl")) == b"precious"
    publisher = world.publisher(replace=True)
    world.objects.put(world.output.child(layout.MARKER), b"")
    assert publisher.publish_ready(10)
    assert layout.MARKER not in world.results()
    publisher.finish(world.receipt())
    check_account(world)


def test_parquet_without_its_library_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.publishing.publisher.find_spec", lambda name: None)
    with pytest.raises(InvalidValue, match=r"pip install 'tidemill\[parquet\]'"):
        check_result_format(ResultFormat("parquet"))
    check_result_format(ResultFormat("csv"))
