"""CSV as the `csv` module reads it, whatever the blocks and the ranges; by columns as by rows."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tidemill_runtime import contract
from tidemill_runtime.codec import csv_rows, csv_table
from tidemill_runtime.codec.columnar import frames_for
from tidemill_runtime.contract import Access, Cursor, InputFormat, InputObject, Lease, PartTarget
from tidemill_runtime.faults import FatalError

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

PIECES = st.lists(
    st.sampled_from(
        ["1", "22", "-3", "0.5", "a", "ü", "é\U0001f600", ",", ",", ",", "\n", "\n", "\r\n", '"', '""', " "]
    ),
    max_size=80,
)
FIELDS = st.sampled_from(
    ["1", "-22", "007", "1.5", "1e3", "nan", "", "x", "ü", " 4", "5 ", "1_0", "+7", "9" * 25, "\x00"]
)
TIDY = st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=40)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", 24)
    csv_table._tables.clear()


def read(
    path: Path, data: bytes, cuts: list[int], shape: str = "record", **options: Any
) -> list[tuple[int, dict[str, Any] | None]]:
    """(row, values) of all rows but the blank ones, where the object is cut like this; None for a bad row."""
    path.write_bytes(data)
    stat = os.stat(path)
    etag = contract.local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    listed = InputObject(0, "a.csv", len(data), etag, Access("path", str(path)))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    ranges = list(zip(edges[:-1], edges[1:])) if cuts else [(0, -1)]  # noqa: B905, RUF007 (Python 3.9)
    found: list[tuple[int, dict[str, Any] | None]] = []
    row = 0
    csv_table._tables.clear()
    for start, stop in ranges:
        lease = Lease(0, 1, [listed], start, stop, Cursor(), PartTarget("p", Access("path", "p")))
        reader = csv_rows.CsvReader(lease, InputFormat("csv", **options), {}, shape, [])
        end = None
        for records in reader.blocks():
            assert end is None or records.begin >= end
            end = records.end
            items = records.items(0, records.size)
            values = items if isinstance(items, list) else items.to_dicts()
            again = records.fresh(0, records.size)
            assert len(values) == records.size == len(again)
            rows = records.item_rows or range(records.rows)
            seen = dict(zip(rows, values))  # noqa: B905 (Python 3.9)
            for each in range(records.rows):
                if each in seen or each in records.bad:
                    found.append((row + each, seen.get(each)))
                assert records.cursor(each)[1] < records.end
            row += records.rows
        reader.close()
    return found


def wanted(text: str) -> list[tuple[int, dict[str, str] | None]]:
    """The same by the `csv` module, as text."""
    rows = csv.reader(io.StringIO(text, newline="\n"))
    header: list[str] | None = None
    found: list[tuple[int, dict[str, str] | None]] = []
    number = -1
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return found
        except csv.Error:
            row = ["bad"] * 1000
        if header is None:
            header = row or None
            continue
        number += 1
        if row and not (len(header) > 1 and len(row) == 1 and not row[0].strip()):
            found.append((number, dict(zip(header, row)) if len(row) == len(header) else None))  # noqa: B905


@hypothesis.given(pieces=PIECES, block=st.integers(1, 60))
def test_rows_are_those_of_the_csv_module(tmp_path_factory: Any, pieces: list[str], block: int) -> None:
    text = "name,what\n" + "".join(pieces)
    path = tmp_path_factory.getbasetemp() / "whole.csv"
    csv_rows.BLOCK_BYTES = block  # type: ignore[misc]
    header_only = [(row, values) for row, values in read(path, text.encode(), [])]
    assert texts(header_only) == texts(wanted(text))


@hypothesis.given(pieces=PIECES, cuts=st.lists(st.integers(1, 120), min_size=1, max_size=5), block=st.integers(1, 60))
def test_any_cut_gives_the_same_rows_or_says_that_it_must_not_be(
    tmp_path_factory: Any, pieces: list[str], cuts: list[int], block: int
) -> None:
    text = "name,what\n" + "".join(pieces)
    path = tmp_path_factory.getbasetemp() / "ranges.csv"
    csv_rows.BLOCK_BYTES = block  # type: ignore[misc]
    whole = read(path, text.encode(), [])
    refused = None
    try:
        found = read(path, text.encode(), cuts)
    except FatalError as error:
        refused = error
    if refused is None:
        assert texts(found) == texts(whole)
    else:
        assert '"' in text
        assert refused.kind == "format_mismatch"
        assert "format.split" in refused.message


@hypothesis.given(rows=TIDY, cuts=st.lists(st.integers(1, 400), max_size=4), ends=st.sampled_from(["\n", "\r\n"]))
def test_rows_of_one_line_are_always_cut(
    tmp_path_factory: Any, rows: list[tuple[str, ...]], cuts: list[int], ends: str
) -> None:
    lines = ["ä,b,c", *(",".join(f'"{field}"' if field == "x" else field for field in row) for row in rows)]
    data = b"\xef\xbb\xbf" + ends.join(lines).encode()
    path = tmp_path_factory.getbasetemp() / "tidy.csv"
    assert exactly(read(path, data, cuts)) == exactly(read(path, data, []))


@pytest.mark.skipif(frames_for("polars") is None, reason="polars is not installed")
@hypothesis.given(
    first=st.tuples(FIELDS, FIELDS, FIELDS),
    rows=TIDY,
    blank=st.sampled_from(["", "\n", "   \n", "1,2\n", "1,2,3,4\n", "\xff,1,2\n", "1,\r,2\n"]),
    columns=st.sampled_from([None, ["c", "a"]]),
    cuts=st.lists(st.integers(1, 400), max_size=2),
)
def test_columns_have_the_values_of_rows(
    tmp_path_factory: Any,
    first: tuple[str, ...],
    rows: list[tuple[str, ...]],
    blank: str,
    columns: list[str] | None,
    cuts: list[int],
) -> None:
    from tidemill_runtime.codec import csv_frames

    lines = "".join(",".join(row) + "\n" for row in rows)
    data = ("a,b,c\n" + ",".join(first) + "\n").encode() + blank.encode("latin-1") + lines.encode()
    path = tmp_path_factory.getbasetemp() / "columns.csv"
    before = csv_frames.FRAME_BYTES
    csv_frames.FRAME_BYTES = 40  # type: ignore[misc]
    try:
        by_columns = read(path, data, cuts, "polars", columns=columns)
    finally:
        csv_frames.FRAME_BYTES = before  # type: ignore[misc]
    by_rows = read(path, data, cuts, columns=columns)
    assert exactly(by_columns) == exactly(by_rows)


@pytest.mark.skipif(frames_for("polars") is None, reason="polars is not installed")
def test_tidy_csv_is_read_into_frames(tmp_path: Path) -> None:
    from tidemill_runtime.codec import csv_frames
    from tidemill_runtime.codec.frames import FrameRecords

    assert csv_frames.usable()
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b,c\n" + b"1,2.5,x\n" * 10)
    stat = path.stat()
    etag = contract.local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    listed = InputObject(0, "a.csv", stat.st_size, etag, Access("path", str(path)))
    lease = Lease(0, 1, [listed], 0, -1, Cursor(), PartTarget("p", Access("path", "p")))
    form = InputFormat("csv", columns=["b", "a"])
    (records,) = csv_rows.CsvReader(lease, form, {}, "numpy", ["c"]).blocks()
    assert isinstance(records, FrameRecords)
    assert records.items(0, 1).to_dicts() == [{"b": 2.5, "a": 1}]
    assert records.carried(["c"], 0, 2) == [["x", "x"]]
    assert records.fields(9, 10) == [{"a": 1, "b": 2.5, "c": "x"}]


@pytest.mark.parametrize(("compression", "shape"), [("none", "record"), ("none", "polars"), ("gzip", "record")])
def test_an_object_that_changes_meanwhile_is_noticed(tmp_path: Path, compression: str, shape: str) -> None:
    path = tmp_path / "a.csv"

    def write(count: int) -> None:
        data = b"a,b\n" + b"1,x\n" * count
        path.write_bytes(gzip.compress(data) if compression == "gzip" else data)

    write(200_000)
    stat = path.stat()
    etag = contract.local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    listed = InputObject(0, "a.csv", stat.st_size, etag, Access("path", str(path)))
    lease = Lease(0, 1, [listed], 0, -1, Cursor(), PartTarget("p", Access("path", "p")))
    reader = csv_rows.CsvReader(lease, InputFormat("csv", compression=compression), {}, shape, [])
    blocks = reader.blocks()
    next(blocks)
    write(200_001)
    with pytest.raises(FatalError) as failed:
        list(blocks)
    assert failed.value.kind == "input_changed"
    reader.close()


@hypothesis.given(
    rows=TIDY,
    members=st.integers(1, 4),
    ends=st.sampled_from(["\n", "\r\n"]),
    compression=st.sampled_from(["gzip", "zstd"]),
)
def test_compressed_members_are_one_object(
    tmp_path_factory: Any, rows: list[tuple[str, ...]], members: int, ends: str, compression: str
) -> None:
    data = ends.join(["a,b,c", *(",".join(row) for row in rows)]).encode()
    step = len(data) // members + 1
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    if compression == "gzip":
        packed = b"".join(map(gzip.compress, pieces))
    else:
        packed = b"".join(map(pytest.importorskip("zstandard").ZstdCompressor().compress, pieces))
    path = tmp_path_factory.getbasetemp() / "packed.csv"
    assert exactly(read(path, packed, [], compression=compression)) == exactly(read(path, data, []))


def texts(found: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Values as numbers where they are some, so that those of the `csv` module compare."""
    return [
        (row, None if values is None else {key: _plain(value) for key, value in values.items()})
        for row, values in found
    ]


def _plain(value: Any) -> Any:
    try:
        value = float(value)
    except (TypeError, ValueError):
        return value or ""
    return "nan" if math.isnan(value) else value


def exactly(found: list[tuple[int, Any]]) -> str:
    return repr(found)  # shows types, and NaN is like NaN
