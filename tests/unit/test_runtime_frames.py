"""Blocks of JSON lines as frames: a frame only where it shows exactly what the lines say."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidemill_runtime.codec.jsonl import jsonl_reader
from tidemill_runtime.contract import Access, Cursor, InputFormat, InputObject, Lease, PartTarget, local_etag
from tidemill_runtime.models.shapes import convert

polars = pytest.importorskip("polars")
numpy = pytest.importorskip("numpy")

from tidemill_runtime.codec import frames  # noqa: E402 (it imports polars)

SAMPLE = [{"i": 1, "f": 0.5, "b": True, "t": "a"}, {"i": 2, "f": 1, "b": None, "t": None}]


@pytest.fixture(autouse=True)
def _nothing_is_known() -> None:
    frames._layouts.clear()


def read(
    path: Path, lines: bytes, columns: list[str] | None = None, carried: tuple[str, ...] = (), **place: Any
) -> Any:
    path.write_bytes(lines)
    stat = path.stat()
    etag = local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    listed = InputObject(0, "a.jsonl", stat.st_size, etag, Access("path", str(path)))
    start, stop = place.get("start", 0), place.get("stop", -1)
    lease = Lease(0, 1, [listed], start, stop, Cursor(), PartTarget("p", Access("path", str(path) + ".p")))
    form = InputFormat("jsonl", columns=columns, max_record_bytes=place.get("longest", 1 << 20))
    return jsonl_reader(lease, form, {}, place.get("shape", "polars"), carried).blocks()


def joined(*records: Any) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in records)


def test_this_release_of_polars_is_trusted() -> None:
    assert frames.usable()


def test_a_plain_block_is_a_frame(tmp_path: Path) -> None:
    (block,) = read(tmp_path / "a", joined(*SAMPLE))
    assert isinstance(block, frames.FrameRecords)
    assert (block.rows, block.size, block.begin, block.end) == (2, 2, 0, len(joined(*SAMPLE)))
    assert block.items(0, 2).rows() == [(1, 0.5, True, "a"), (2, 1.0, None, None)]
    assert block.items(1, 2).rows() == [(2, 1.0, None, None)]
    assert block.fields(0, 2) == SAMPLE
    assert block.raw(1) == json.dumps(SAMPLE[1]).encode()
    assert block.cursor(1) == (0, len(joined(SAMPLE[0])))
    assert block.cursor(2) == (0, block.end)


WRONG = {
    "text for an integer": b'{"i":"1"}',
    "a float for an integer": b'{"i":1.5}',
    "a whole float for an integer": b'{"i":1.0}',
    "an integer of 65 bits": b'{"i":18446744073709551616}',
    "truth for an integer": b'{"i":true}',
    "text for a float": b'{"f":"1"}',
    "a list for a float": b'{"f":[1]}',
    "a number for truth": b'{"b":1}',
    "a number for text": b'{"t":1}',
    "truth for text": b'{"t":false}',
    "a list for text": b'{"t":["a"]}',
    "a dict for text": b'{"t":{"t":"a"}}',
    "half of a surrogate pair": b'{"t":"\\ud800"}',
    "a line that is no dict": b"5",
    "a blank line": b"",
    "blanks": b"  ",
    "two values": b'{"i":1}{"i":2}',
    "two values with a blank": b'{"i":1} {"i":2}',
    "half a value": b'{"i":1',
    "not UTF-8": b'{"t":"\xff"}',
    "not UTF-8 in what nobody reads": b'{"other":"\xff"}',
    "not JSON in what nobody reads": b'{"other":NaN}',
}


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
def test_what_is_not_the_same_in_columns_is_read_line_by_line(tmp_path: Path, line: bytes) -> None:
    layout = frames.layout_of(SAMPLE, ["i", "f", "b", "t"], ())
    assert layout is not None
    lines = joined(*SAMPLE)
    assert frames.parsed(lines, layout) is not None
    assert frames.parsed(lines + line + b"\n", layout) is None
    assert frames.parsed(line + b"\n" + lines, layout) is None


@pytest.mark.parametrize("record", [{"i": 1, "f": 1.5, "b": True}, {**SAMPLE[0], "more": 1}, {}])
def test_where_the_model_gets_every_key_each_record_has_the_same(tmp_path: Path, record: dict[str, Any]) -> None:
    layout = frames.layout_of(SAMPLE, None, ())
    assert layout is not None
    assert frames.parsed(joined(*SAMPLE), layout) is not None
    assert frames.parsed(joined(*SAMPLE, record), layout) is None


def test_keys_that_are_chosen_may_be_missing(tmp_path: Path) -> None:
    (block,) = read(tmp_path / "a", joined(*SAMPLE, {"more": [1, {"t": 2}]}), ["t", "i", "none"])
    assert block.items(0, 3).rows() == [("a", 1, None), (None, 2, None), (None, None, None)]
    assert block.items(0, 3).columns == ["t", "i", "none"]


def test_a_block_that_is_no_frame_gives_the_model_the_same(tmp_path: Path) -> None:
    lines = joined(*SAMPLE, b"broken", *SAMPLE)
    (block,) = read(tmp_path / "a", lines)
    assert not isinstance(block, frames.FrameRecords)
    (plain,) = read(tmp_path / "b", joined(*SAMPLE, *SAMPLE))
    assert block.items(0, 4).equals(plain.items(0, 4))
    assert block.items(0, 4).schema == plain.items(0, 4).schema
    assert block.fresh(0, 4).equals(plain.items(0, 4))
    assert (block.rows, block.size, list(block.bad)) == (5, 4, [2])


def test_types_are_those_of_the_beginning_of_the_object_for_every_range(tmp_path: Path) -> None:
    lines = joined({"x": 0.5}, *[{"x": 1}] * 20_000)
    (block,) = read(tmp_path / "a", lines, start=len(lines) - 50)
    assert block.items(0, 1).schema == {"x": polars.Float64}


def test_values_that_results_carry_are_the_same_however_the_block_was_read(tmp_path: Path) -> None:
    records = [{"k": 0.5, "n": 1, "x": 1.5}, {"k": 3, "n": 2**60, "x": 2}, {"x": None}]
    (plain,) = read(tmp_path / "a", joined(*records), ["x"], ("k", "n"))
    (mixed,) = read(tmp_path / "b", joined(*records, b""), ["x"], ("k", "n"))
    assert isinstance(plain, frames.FrameRecords) and not isinstance(mixed, frames.FrameRecords)
    for block in (plain, mixed):
        assert repr(block.carried(["n", "k"], 0, 3)) == "[[1, 1152921504606846976, None], [0.5, 3.0, None]]"
        assert block.items(0, 3).columns == ["x"]


def test_a_whole_number_that_is_no_float_is_carried_as_it_is(tmp_path: Path) -> None:
    (block,) = read(tmp_path / "a", joined({"k": 0.5, "x": 1}, {"k": 2**53 + 1, "x": 2}), ["x"], ("k",))
    assert block.carried(["k"], 0, 2) == [[0.5, 2**53 + 1]]


def test_a_line_that_is_too_long_is_not_hidden_in_a_frame(tmp_path: Path) -> None:
    blocks = list(read(tmp_path / "a", joined({"t": "a"}, {"t": "b" * 2000}, {"t": "c"}), longest=1000))
    assert [row.fault for block in blocks for row in block.bad.values()] == ["too_long"]
    assert [row for block in blocks if block.size for row in block.items(0, block.size).rows()] == [("a",), ("c",)]


def test_objects_without_columns_are_read_line_by_line(tmp_path: Path) -> None:
    for records in ([{"v": [1, 2]}], [[1, 2]], [{"v": 1}, {"v": "a"}]):
        (block,) = read(tmp_path / "a", joined(*records))
        assert block.items(0, len(records)) == records
    (block,) = read(tmp_path / "a", joined({"v": "1.5"}), shape="numpy")
    assert convert(block.items(0, 1), "numpy").tolist() == [[1.5]]


def test_matrices(tmp_path: Path) -> None:
    (block,) = read(tmp_path / "a", joined(*SAMPLE), ["b", "i", "f"], shape="numpy")
    matrix = convert(block.items(0, 2), "numpy")
    assert matrix.dtype == numpy.float64 and matrix.flags.writeable
    assert numpy.array_equal(matrix, [[1, 1, 0.5], [numpy.nan, 2, 1]], equal_nan=True)
    matrix[:] = 0
    assert convert(block.fresh(0, 2), "numpy")[0].tolist() == [1, 1, 0.5]


def test_a_matrix_of_all_keys_has_no_row_of_others(tmp_path: Path) -> None:
    others = [{"a": 1}, {"a": 1, "b": 2, "c": 3}, [1, 2], {"a": 1, "c": 2}]
    first = [{"a": 1, "b": 2}] * 10_000
    (block,) = read(tmp_path / "a", joined(*first, *others, {"b": 4, "a": 3}), shape="numpy")
    rows = range(10_000, 10_004)
    assert [(row, bad.fault) for row, bad in block.bad.items()] == [(row, "decode_error") for row in rows]
    assert "['a']" in block.bad[rows[0]].message and "['a', 'b']" in block.bad[rows[0]].message
    assert convert(block.items(9_999, 10_001), "numpy").tolist() == [[1, 2], [3, 4]]


def test_columns_of_a_matrix_keep_their_places_whatever_the_values(tmp_path: Path) -> None:
    (block,) = read(tmp_path / "a", joined(*[{"a": 1, "b": 2}] * 10_000, {"b": 2, "a": "1"}), shape="numpy")
    assert convert(block.items(10_000, 10_001), "numpy").tolist() == [[1, 2]]
    assert convert(block.fresh(10_000, 10_001), "numpy").tolist() == [[1, 2]]


def test_numbers_are_those_of_python(tmp_path: Path) -> None:
    chance = random.Random(1)
    floats = [struct.unpack("<d", chance.randbytes(8))[0] for _ in range(5000)]
    floats = [each for each in floats if math.isfinite(each)]
    texts = [repr(each) for each in floats] + [f"{each:.25e}" for each in floats] + ["-0", "-0.0", "5e-324", "1E5"]
    lines = b"".join(b'{"x":%b}\n' % text.encode() for text in ["0.5", *texts])
    (block,) = read(tmp_path / "a", lines)
    assert isinstance(block, frames.FrameRecords)
    wanted = [0.5, *(float(json.loads(text)) for text in texts)]
    assert repr(block.items(0, block.size)["x"].to_list()) == repr(wanted)


def test_pandas_frames_are_as_pandas_makes_them(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for records in (SAMPLE, SAMPLE[:1], [{**SAMPLE[0], "i": None}, *SAMPLE]):
        frames._layouts.clear()
        (block,) = read(tmp_path / "a", joined(*SAMPLE, *records))
        found = convert(block.items(2, block.size), "pandas")
        wanted = pandas.DataFrame.from_records([{**each, "f": float(each["f"])} for each in records])
        pandas.testing.assert_frame_equal(found, wanted)
        found.iloc[0, 0] = 5  # it is the model's own
        assert block.items(2, 3)["i"].to_list() == [records[0]["i"]]


def test_arrow_tables(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    (plain,) = read(tmp_path / "a", joined(*SAMPLE))
    (mixed,) = read(tmp_path / "a", joined(*SAMPLE, b""))
    tables = [convert(each.items(0, 2), "arrow") for each in (plain, mixed)]
    assert isinstance(tables[0], pyarrow.Table) and tables[0].equals(tables[1])
    assert tables[0].to_pylist() == [SAMPLE[0], {**SAMPLE[1], "f": 1.0}]


def test_without_polars_records_are_read_one_by_one() -> None:
    script = (
        "import sys; sys.modules['polars'] = None\n"
        "from tidemill_runtime.codec.columnar import frames_for\n"
        "assert frames_for('dict') is None\n"
        "print('quiet', file=sys.stderr, flush=True)\n"
        "assert frames_for('numpy') is frames_for('numpy') is None"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    quiet, _, told = done.stderr.partition("quiet\n")
    assert quiet == ""
    assert told.count("tidemill-runtime[columns]") == 1
