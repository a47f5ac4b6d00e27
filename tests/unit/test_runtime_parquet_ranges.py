"""Parquet: any cut into ranges yields each row once and in order, and small files have a share for each process."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pytest

from tidemill_runtime import contract
from tidemill_runtime.contract import Access, Cursor, InputFormat, InputObject, Lease, PartTarget
from tidemill_runtime.faults import FatalError

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")
pyarrow = pytest.importorskip("pyarrow")
parquet_files = pytest.importorskip("pyarrow.parquet")

from tidemill_runtime.codec import parquet  # noqa: E402 - it imports pyarrow


def write(path: Path, rows: int, group: int) -> InputObject:
    table = pyarrow.table({"id": range(rows), "t": [f"text {number}" for number in range(rows)]})
    parquet_files.write_table(table, path, row_group_size=group)
    return listed(path)


def listed(path: Path) -> InputObject:
    stat = path.stat()
    etag = contract.local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return InputObject(0, path.name, stat.st_size, etag, Access("path", str(path)))


def reader(of: InputObject, start: int, stop: int, cursor: int = 0, **forced: Any) -> parquet.ParquetReader:
    lease = Lease(0, 1, [of], start, stop, Cursor(0, cursor), PartTarget("p", Access("path", "p")))
    return parquet.ParquetReader(lease, InputFormat("parquet"), forced.get("forced", {}))


def ids(of: parquet.ParquetReader) -> list[int]:
    found = [number for records in of.blocks() for number in records.carried(["id"], 0, records.size)[0]]
    of.close()
    return found


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    rows=st.integers(0, 300),
    group=st.integers(1, 120),
    cuts=st.lists(st.integers(1, 12_000), max_size=6),
    shared=st.sampled_from([0, 1500, 2**20]),
    block=st.sampled_from([1, 7, 16384]),
)
def test_each_row_is_in_one_range(
    tmp_path_factory: Any, rows: int, group: int, cuts: list[int], shared: int, block: int
) -> None:
    of = write(tmp_path_factory.getbasetemp() / "a.parquet", rows, group)
    edges = sorted({0, of.size, *(cut for cut in cuts if cut < of.size)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "SHARED_BYTES", shared)
        patch.setattr(parquet, "BLOCK_ROWS", block)
        found = [ids(reader(of, start, stop)) for start, stop in zip(edges[:-1], edges[1:])]  # noqa: B905, RUF007
        for (start, stop), own in zip(zip(edges[:-1], edges[1:]), found):  # noqa: B905, RUF007
            assert ids(reader(of, start, stop, len(own) // 2)) == own[len(own) // 2 :]
    assert [number for own in found for number in own] == list(range(rows))


def test_a_small_file_of_one_group_is_shared(tmp_path: Path) -> None:
    of = write(tmp_path / "a.parquet", 1000, 1000)
    step = of.size // 8
    shares = [len(ids(reader(of, start, min(of.size, start + step)))) for start in range(0, of.size, step)]
    assert sum(shares) == 1000
    assert max(shares) < 300


def test_values_of_every_kind_can_be_carried(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table(
        {
            "list": [[1, 2], None],
            "struct": [{"a": 1, "b": ["x"]}, {"a": None, "b": []}],
            "word": pyarrow.array(["x", "x"]).dictionary_encode(),
            "at": [datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), None],  # noqa: UP017 (Python 3.9)
            "day": [datetime.date(2026, 1, 2), None],
            "price": [decimal.Decimal("1.50"), None],
            "raw": [b"\x00\xff", None],
        }
    )
    parquet_files.write_table(table, path)
    of = reader(listed(path), 0, -1)
    (records,) = of.blocks()
    assert records.fields(0, 2) == table.to_pylist()
    assert json.loads(records.raw(0))["list"] == [1, 2]


def test_a_file_without_rows_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet_files.write_table(pyarrow.table({"id": pyarrow.array([], pyarrow.int64())}), path)
    assert ids(reader(listed(path), 0, -1)) == []
    assert ids(reader(listed(path), 0, path.stat().st_size)) == []


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    of = reader(write(path, 1000, 100), 0, -1)
    blocks = of.blocks()
    next(blocks)
    write(path, 999, 100)
    with pytest.raises(FatalError) as failed:
        list(blocks)
    assert failed.value.kind == "input_changed"
    of.close()
