"""Results as CSV, Parquet and files, from the task to what others read; what goes wrong in between does not show."""

from __future__ import annotations

import csv
import io
import json
import math
import signal
from pathlib import Path
from typing import Any

import polars
import pyarrow.parquet
import pytest

from tests.conftest import S3Bucket
from tests.integration.local_world import World, until
from tidemill.domain.errors import InvalidValue
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret

MODEL = """
    import os, time
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]):
            if "GATE" in os.environ:
                time.sleep(0.01 * len(batch))
                with open(os.environ["GATE"] + ".seen", "a") as seen: seen.writelines("%d\\n" % r["x"] for r in batch)
            return [self.one(record["x"]) for record in batch]
        def one(self, x):
            if x % 50 == 13: raise ValueError("thirteen")
            if x % 50 == 14: return object()
            if x % 2: return {"label": "ü,\\n%d" % x, "score": x / 4 if x % 3 else x}
            return {"label": None, "score": float("nan") if x % 10 == 4 else x, "more": {"list": list(range(x % 3))}}
"""
COUNT = 120


def lines(start: int, stop: int) -> str:
    """Records, one of them blank and one that cannot be read."""
    records = [json.dumps({"x": x, "id": f"客{x}"}, ensure_ascii=False) for x in range(start, stop)]
    return "\n".join([*records[:3], "", "{broken", *records[3:]]) + "\n"


def expected(start: int, stop: int) -> list[tuple[int | None, dict[str, Any] | None]]:
    """x and prediction of each row, (x, None) where it failed."""
    rows: list[tuple[int | None, dict[str, Any] | None]] = []
    for x in range(start, stop):
        if x == start + 3:
            rows.append((None, None))
        if x % 50 in (13, 14):
            rows.append((x, None))
        elif x % 2:
            rows.append((x, {"label": f"ü,\n{x}", "score": x / 4 if x % 3 else x, "more": None}))
        else:
            more = {"list": list(range(x % 3))}
            rows.append((x, {"label": None, "score": math.nan if x % 10 == 4 else x, "more": more}))
    return rows


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path).model(MODEL)
    made.file("in/a.jsonl", lines(0, COUNT // 2)).file("in/b/c.jsonl", lines(COUNT // 2, COUNT))
    return made.file("in/empty.jsonl", "")


def result_task(kind: str, **result: Any) -> dict[str, Any]:
    return {"format": {"result": {"type": kind, **result}}, "tolerance": "50%"}


def table(data: bytes, name: str) -> list[dict[str, Any]]:
    if name.endswith(".parquet"):
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
        return rows
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def told(value: Any) -> str:
    """A value as CSV tells it."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    return "NaN" if isinstance(value, float) and math.isnan(value) else str(value)


def check(
    found: list[dict[str, Any]], rows: list[tuple[int | None, dict[str, Any] | None]], carried: list[str]
) -> None:
    assert len(found) == len(rows)
    is_csv = isinstance(found[0]["score"], str)
    for row, (x, prediction) in zip(found, rows, strict=True):
        wanted: dict[str, Any] = {key: (prediction or {}).get(key) for key in ("label", "score", "more")}
        wanted |= {name: None if x is None else {"x": x, "id": f"客{x}"}[name] for name in carried}
        if is_csv:
            assert row == {key: told(value) for key, value in wanted.items()}
            continue
        assert list(row)[: len(carried)] == carried
        score, meant = row.pop("score"), wanted.pop("score")
        assert row == wanted
        assert score == meant or (math.isnan(score) and math.isnan(meant))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("options", "carried"),
    [({}, []), ({"keys": ["id"], "layout": "single"}, ["id"]), ({"form": "joined"}, ["x", "id"])],
)
def test_tables_hold_what_the_model_returned(
    world: World, kind: str, options: dict[str, Any], carried: list[str]
) -> None:
    result = world.run(**result_task(kind, **options), batch={"size": 7})
    failed = sum(prediction is None for _, prediction in expected(0, COUNT)) + 1
    assert (result.status, result.failed, result.skipped) == ("SUCCEED", failed, 2)
    results = world.results()
    if "layout" in options:
        whole = table(results[f"predictions.{kind}"], kind if kind == "csv" else ".parquet")
        check(whole, expected(0, COUNT // 2) + expected(COUNT // 2, COUNT), carried)
    else:
        assert list(result.results()) == [f"{n}.jsonl.out.{kind}" for n in ("a", "b/c", "empty")]
        check(table(results[f"a.jsonl.out.{kind}"], f".{kind}"), expected(0, COUNT // 2), carried)
        check(table(results[f"b/c.jsonl.out.{kind}"], f".{kind}"), expected(COUNT // 2, COUNT), carried)
        assert table(results[f"empty.jsonl.out.{kind}"], f".{kind}") == []
    rows = list(result.predictions())
    assert len(rows) == COUNT + 2
    assert rows[1]["label"] == "ü,\n1" and rows[14]["score"] is None
    # And the same bytes, however it was divided.
    world.run(**result_task(kind, **options), batch={"size": 1}, output=str(world.root / "out2"))
    again = {
        path.relative_to(world.root / "out2").as_posix(): path.read_bytes()
        for path in (world.root / "out2").rglob("*.*")
    }
    assert {name: again[name] for name in results if name.endswith(kind)} == {
        name: data for name, data in results.items() if name.endswith(kind)
    }


def test_others_read_the_tables(world: World) -> None:
    world.run(**result_task("csv", keys=["id"]))
    frame = polars.read_csv(world.root / "out/a.jsonl.out.csv")
    assert (frame.height, frame["id"][0], frame["label"][1]) == (COUNT // 2 + 1, "客0", "ü,\n1")


def test_numbers_alone_are_one_column(tmp_path: Path) -> None:
    world = World(tmp_path).model().numbers("in/a.jsonl", range(5))
    result = world.run(**result_task("parquet"))
    assert list(result.predictions()) == [0, 2, 4, 6, 8]
    world = World(tmp_path / "csv").model().numbers("in/a.jsonl", [1, "a", 2])
    result = world.run(**result_task("csv"))
    assert world.results()["a.jsonl.out.csv"] == b"prediction\n2\naa\n4\n"
    assert list(result.predictions()) == ["2", "aa", "4"]


FILES = """
    import pathlib, tempfile
    class Model:
        def load(self): return True
        def predict(self, batch: list[pathlib.Path]):
            return [self.one(path, path.read_bytes()) for path in batch]
        def one(self, path, data):
            if data == b"bad": raise ValueError("bad file")
            if data == b"number": return 5
            if data == b"text": return "täxt"
            if data != b"path": return data[::-1]
            made = pathlib.Path(tempfile.mkdtemp()) / "made"
            made.write_bytes(b"\\0" * 100)
            return made
"""
GIVEN = {
    "a.jpg": b"abc", "b/c.tar.gz": b"xyz", "bad.jpg": b"bad", "empty.png": b"", "m.png": b"path", "n": b"number",
    "t.txt": b"text",
}  # fmt: skip
MADE = {"a": b"cba", "b/c.tar": b"zyx", "empty": b"", "m": bytes(100), "t": "täxt".encode()}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_for_each_file(tmp_path: Path, batch: int) -> None:
    world = World(tmp_path).model(FILES)
    for name, data in GIVEN.items():
        world.file(f"in/{name}", data)
    task = {**result_task("file", extension=".bin"), "batch": {"size": batch}}
    task["format"]["type"] = "file"
    result = world.run(**task)
    assert (result.status, result.ok, result.failed) == ("SUCCEED", 5, 2)
    assert list(result.results()) == [f"{name}.bin" for name in MADE]
    assert list(result.predictions()) == list(MADE.values())
    found = world.results()
    assert {name: found[name] for name in result.results()} == {f"{name}.bin": data for name, data in MADE.items()}
    assert [error["object"] for error in result.errors()] == ["bad.jpg", "n"]
    del task["format"]["result"]["extension"]
    assert "b/c.tar.gz.out" in world.run(**task, output=str(tmp_path / "out2")).results()


@pytest.mark.parametrize(("one", "other"), [("a.jpg", "a.png"), ("a", "a.b"), ("a.b", "a.b.c"), ("x/a-1.b", "x/a-1.c")])
def test_two_inputs_never_share_a_result(tmp_path: Path, one: str, other: str) -> None:
    world = World(tmp_path).model(FILES)
    for name in (one, other, "a-0.x", "a.bb.c", "x/b.jpg"):
        world.file(f"in/{name}", b"1")
    options: dict[str, Any] = result_task("file", extension=".bin")
    options["format"]["type"] = "file"
    if (one, other) == ("a.b", "a.b.c"):  # a and a.b: no two of them are called alike
        assert world.run(**options).ok == 5
        return
    with pytest.raises(InvalidValue, match=r"format\.result\.extension: .* would have the same result"):
        world.run(**options)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_killed_in_the_middle_it_ends_in_the_same_bytes(world: World, kind: str) -> None:
    task = {**result_task(kind, layout="single"), "batch": {"size": 4}}
    world.run(**task, output=str(world.root / "undisturbed"))
    task["env"] = {"GATE": str(world.gate)}
    for records in (40, 80):
        with world.process(resume=records > 40, **task) as running:
            until(lambda enough=records: len(set(world.seen())) >= enough, f"{records} records")
            running.signal(signal.SIGKILL)
            until(lambda: not running.family(), "that its instances die with it")
    with world.process(resume=True, **task) as last:
        assert last.result()["status"] == "SUCCEED"
    name = f"predictions.{kind}"
    assert world.results()[name] == (world.root / "undisturbed" / name).read_bytes()


def test_in_a_bucket_and_larger_than_memory_is_given(
    world: World, s3: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.publishing.assembling.SPOOLED_BYTES_MAX", 1000)
    monkeypatch.setattr("tidemill.publishing.units.LOADED_BYTES_MAX", 1000)
    section = BucketSection(
        url=f"s3://{s3.bucket}", endpoint=s3.endpoint, access_key=s3.key, secret_key=Secret(s3.secret), region=s3.region
    )
    world.bucket("lake", section)
    for kind in ("csv", "parquet"):
        world.run(**result_task(kind))
        ended = world.run(**result_task(kind), output=f"s3://lake/{kind}/")
        assert ended.status == "SUCCEED"
        names = {seen.object_name or "" for seen in s3.client.list_objects(s3.bucket, f"{kind}/", recursive=True)}
        assert not any("_tidemill" in name for name in names)
        for name in ended.results():
            found = s3.client.get_object(s3.bucket, f"{kind}/{name}").read()
            assert found == (world.root / "out" / name).read_bytes()
        assert list(ended.predictions())[1]["label"] == "ü,\n1"
        (world.root / "out").rename(world.root / f"out-{kind}")
