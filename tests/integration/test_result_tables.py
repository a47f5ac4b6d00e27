"""Tables of frames: whatever the mini-batches were, the same bytes, and in them what the model returned."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import polars
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.domain.errors import PartDamaged
from tidemill.publishing.csv_tables import csv_table
from tidemill.publishing.parquet_tables import parquet_table
from tidemill.publishing.parts import Source
from tidemill_runtime.codec.records import Bad
from tidemill_runtime.contract import InputObject, ResultFormat
from tidemill_runtime.encoder import Encoder, make_encoder
from tidemill_runtime.isolation import Piece

TABLES = {"csv": csv_table, "parquet": parquet_table}


class Given:
    """Records that are there already."""

    object = begin = end = 0
    item_rows: list[int] | None = None
    of_files = False

    def __init__(self, records: list[Any]) -> None:
        self.records = records
        self.rows = self.size = len(records)
        self.bad: dict[int, Bad] = {}

    def items(self, first: int, stop: int) -> list[Any]:
        return self.records[first:stop]

    fresh = fields = items

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        return [[record.get(name) for record in self.records[first:stop]] for name in names]

    def raw(self, row: int) -> bytes:
        return json.dumps(self.records[row]).encode()

    def cursor(self, row: int) -> tuple[int, int]:
        return 0, row


def table(
    kind: str,
    predictions: Any,
    bounds: list[int],
    *,
    failed: tuple[int, ...] = (),
    records: list[Any] | None = None,
    result: ResultFormat | None = None,
    form: Callable[[Any], Any] = lambda part: part,
) -> bytes:
    """The table of predictions that were made in mini-batches with these bounds."""
    objects: list[InputObject] = []
    encoder: Encoder = make_encoder(result or ResultFormat(kind), objects)
    given_records = Given(records or [{} for _ in predictions])
    frames = []
    for first, stop in zip([0, *bounds], [*bounds, len(predictions)], strict=True):
        at = first
        while at < stop:
            if at in failed:
                frames.append(encoder.failed(given_records, at))
                at += 1
                continue
            end = min([stop, *(f for f in failed if f > at)])
            piece = Piece(first, stop, form(predictions[first:stop]))
            frames.append(encoder.rows(given_records, piece, at, end))
            at = end
    half = len(frames) // 2
    return read(kind, [b"".join(frames[:half]), b"".join(frames[half:])], [0, 0], len(predictions))


def read(kind: str, parts: list[bytes], rows: list[int], total: int) -> bytes:
    """The parts as one table; all rows are said to be where they are found."""
    found = [sum(json.loads(line)["rows"] for line in headers(part)) for part in parts]
    assert sum(found) == total
    sources = [source(part, count) for part, count in zip(parts, found, strict=True)]
    return b"".join(TABLES[kind](sources))


def source(part: bytes, rows: int) -> Source:
    def chunks() -> Iterator[bytes]:
        for start in range(0, len(part), 37):  # frames lie across chunks
            yield part[start : start + 37]

    return Source(chunks, rows, "00000000.1.x")


def headers(part: bytes) -> Iterator[bytes]:
    while part:
        line, _, rest = part.partition(b"\n")
        yield line
        part = rest[json.loads(line)["bytes"] :]


def rows_of_csv(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def parquet(data: bytes) -> pyarrow.Table:
    return pyarrow.parquet.read_table(io.BytesIO(data))


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.integers(-9, 9),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        st.binary(max_size=3),
        st.dates(),
        st.sampled_from([decimal.Decimal("1.50"), datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), (1, 2)]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=12), st.data())
def test_bytes_never_show_where_mini_batches_ended(values: list[Any], data: st.DataObject) -> None:
    bounds = sorted(data.draw(st.sets(st.integers(1, len(values)), max_size=len(values))) - {len(values)})
    failed = tuple(sorted(data.draw(st.sets(st.integers(0, len(values) - 1), max_size=3))))
    for kind in TABLES:
        whole = table(kind, values, [], failed=failed)
        assert table(kind, values, bounds, failed=failed) == whole
        assert table(kind, values, list(range(1, len(values))), failed=failed) == whole
        count = len(rows_of_csv(whole)) if kind == "csv" else parquet(whole).num_rows
        assert count == len(values)


@pytest.mark.parametrize(
    ("predictions", "kind", "expected"),
    [
        ([1, 2, None], pyarrow.int64(), [1, 2, None]),
        ([1, 2.5], pyarrow.float64(), [1.0, 2.5]),
        ([2**60 + 1, 2.5], pyarrow.string(), ["1152921504606846977", "2.5"]),
        ([2**60 + 1, 3], pyarrow.int64(), [2**60 + 1, 3]),
        ([2**63, None], pyarrow.uint64(), [2**63, None]),
        ([True, False], pyarrow.bool_(), [True, False]),
        ([True, 1], pyarrow.string(), ["true", "1"]),
        ([1, "a", None], pyarrow.string(), ["1", '"a"', None]),
        (["ü", "a\nb"], pyarrow.string(), ["ü", "a\nb"]),
        ([[1, 2], [2.5], []], pyarrow.list_(pyarrow.float64()), [[1.0, 2.0], [2.5], []]),
        ([[1], "a"], pyarrow.string(), ["[1]", '"a"']),
        ([b"\x00\xff"], pyarrow.binary(), [b"\x00\xff"]),
        ([datetime.date(2026, 1, 2)], pyarrow.date32(), [datetime.date(2026, 1, 2)]),
        ([datetime.date(2026, 1, 2), 1], pyarrow.string(), ['"2026-01-02"', "1"]),
        ([None, None], pyarrow.null(), [None, None]),
    ],
)
def test_a_column_has_the_type_that_holds_all_its_values(
    predictions: list[Any], kind: Any, expected: list[Any]
) -> None:
    for bounds in ([], list(range(1, len(predictions)))):
        found = parquet(table("parquet", predictions, bounds))
        assert (found.column_names, found.schema.field(0).type) == (["prediction"], kind)
        assert found.column(0).to_pylist() == expected


def test_records_have_a_column_for_each_field_and_structs_grow() -> None:
    predictions = [{"label": "a", "more": {"x": 1}}, {"label": "b", "score": 0.5, "more": {"y": [1]}}, None, {}]
    found = parquet(table("parquet", predictions, [1], failed=(2,)))
    assert found.column_names == ["label", "more", "score"]
    assert found.to_pylist() == [
        {"label": "a", "more": {"x": 1, "y": None}, "score": None},
        {"label": "b", "more": {"x": None, "y": [1]}, "score": 0.5},
        {"label": None, "more": None, "score": None},
        {"label": None, "more": None, "score": None},
    ]
    rows = rows_of_csv(table("csv", predictions, [1], failed=(2,)))
    assert rows[0] == {"label": "a", "more": '{"x":1}', "score": ""}
    assert rows[1] == {"label": "b", "more": '{"y":[1]}', "score": "0.5"}
    assert rows[2] == rows[3] == {"label": "", "more": "", "score": ""}


def test_a_struct_beside_text_is_text_with_nothing_lost() -> None:
    predictions = [{"r": {"x": 1, "y": None}}, {"r": "failed"}, {"r": {}}]
    found = parquet(table("parquet", predictions, [1]))
    assert found.column("r").to_pylist() == ['{"x":1}', '"failed"', "{}"]


def test_what_a_struct_without_fields_is_parquet_cannot_hold() -> None:
    assert parquet(table("parquet", [{"r": {}}, {"r": None}], [])).column("r").to_pylist() == ["{}", None]


FRAMES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "numpy": (numpy.arange(6, dtype="float32") / 4, lambda part: part),
    "matrix": (numpy.arange(12, dtype="int32").reshape(6, 2), lambda part: part),
    "numbers in an array of objects": (numpy.array([1, "a", None, 2.5, True, {"x": 1}], dtype=object), lambda p: p),
    "columns": (list(range(6)), lambda part: {"n": part, "half": numpy.array(part) / 2}),
    "polars": (list("abcdef"), lambda part: polars.DataFrame({"t": part, "n": [[1, 2]] * len(part)})),
    "polars series": (list("abcdef"), polars.Series),
    "arrow": (list("abcdef"), lambda part: pyarrow.table({"t": pyarrow.array(part).dictionary_encode()})),
    "large arrow": (list("abcdef"), lambda part: pyarrow.array(part, pyarrow.large_string())),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("kind", TABLES)
def test_whatever_form_the_model_returns(name: str, kind: str) -> None:
    predictions, form = FRAMES[name]
    whole = table(kind, predictions, [], form=form)
    assert table(kind, predictions, [1, 2, 5], form=form) == whole
    assert table(kind, predictions, [3], form=form, failed=(1, 4)) != whole
    found = rows_of_csv(whole) if kind == "csv" else parquet(whole).to_pylist()
    expected: list[Any] = {
        "numpy": [{"prediction": n / 4} for n in range(6)],
        "matrix": [{"prediction": [2 * n, 2 * n + 1]} for n in range(6)],
        "columns": [{"n": n, "half": n / 2} for n in range(6)],
        "polars": [{"t": letter, "n": [1, 2]} for letter in "abcdef"],
        "polars series": [{"prediction": letter} for letter in "abcdef"],
        "arrow": [{"t": letter} for letter in "abcdef"],
        "large arrow": [{"prediction": letter} for letter in "abcdef"],
    }.get(name, [])
    if kind == "csv":
        expected = [
            {
                key: json.dumps(each).replace(" ", "") if isinstance(each, list) else str(each)
                for key, each in row.items()
            }
            for row in expected
        ]
    if expected:
        assert found == expected


def test_what_is_missing_in_pandas_is_null() -> None:
    pandas = pytest.importorskip("pandas")

    def form(part: list[int]) -> Any:
        columns = {"n": part, "t": [None if n == 2 else f"t{n}" for n in part], "f": [n / 2 for n in part]}
        frame = pandas.DataFrame(columns, index=[n + 100 for n in part])
        return frame.assign(f=frame["f"].where(frame["n"] != 3), c=pandas.Categorical(["a"] * len(part)))

    for kind in TABLES:
        assert table(kind, list(range(6)), [], form=form) == table(kind, list(range(6)), [2, 3, 4], form=form)
    whole = table("csv", list(range(6)), [], form=form)
    assert whole.splitlines()[:5] == [b"n,t,f,c", b"0,t0,0.0,a", b"1,t1,0.5,a", b"2,,1.0,a", b"3,t3,,a"]
    found = parquet(table("parquet", list(range(6)), [], form=form))
    assert found.to_pylist()[2:4] == [{"n": 2, "t": None, "f": 1.0, "c": "a"}, {"n": 3, "t": "t3", "f": None, "c": "a"}]


def test_nan_is_not_nothing() -> None:
    values = [math.nan, None, math.inf, -0.0]
    assert table("csv", values, []) == b'prediction\nNaN\n""\ninf\n-0.0\n'
    found = parquet(table("parquet", values, [2])).column(0).to_pylist()
    assert math.isnan(found[0]) and found[1:] == [None, math.inf, -0.0]


def test_what_is_carried_stands_first_also_beside_failures() -> None:
    records = [{"id": n, "label": "t"} for n in range(4)]
    keys = ResultFormat("csv", keys=["id"])
    options: dict[str, Any] = {"records": records, "failed": (1,)}
    assert (
        table("csv", [0.5, None, 1.5, 2.5], [2], result=keys, **options) == b"id,prediction\n0,0.5\n1,\n2,1.5\n3,2.5\n"
    )
    joined = ResultFormat("csv", form="joined")
    predictions = [{"label": n, "p": 1} for n in range(4)]
    assert table("csv", predictions, [2], result=joined, **options) == (
        b"id,input.label,label,p\n0,t,0,1\n1,t,,\n2,t,2,1\n3,t,3,1\n"
    )
    found = parquet(table("parquet", predictions, [2], result=ResultFormat("parquet", form="joined"), **options))
    assert found.column_names == ["id", "input.label", "label", "p"]
    assert found.column("id").to_pylist() == [0, 1, 2, 3]


def test_without_records_there_is_a_table_all_the_same() -> None:
    assert b"".join(csv_table([])) == b"prediction\n"
    found = parquet(b"".join(parquet_table([])))
    assert (found.column_names, found.num_rows) == (["prediction"], 0)


def test_csv_is_read_by_others_as_it_was_written() -> None:
    texts = ['a,"b"', "c\r\nd", "e\rf", "\0", " g ", "", "NaN", "é" * 200_000]
    whole = table("csv", [{"t": text, "n": 1} for text in texts], [3])
    csv.field_size_limit(2**31)
    assert [row["t"] for row in rows_of_csv(whole)] == texts
    assert polars.read_csv(io.BytesIO(whole))["t"].to_list()[:6] == [*texts[:5], None]
    mixed = [{"t": text} if number % 2 else {"n": 1, "t": text} for number, text in enumerate(texts)]
    assert table("csv", mixed, []) == table("csv", mixed, [1, 2, 3, 4, 5, 6, 7])


def test_row_groups_are_cut_by_rows_and_sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.publishing.parquet_tables.GROUP_BYTES", 200_000)
    rng = random.Random(4)
    values = ["x" * rng.randrange(200) for _ in range(6000)]
    whole = table("parquet", values, [])
    metadata = pyarrow.parquet.ParquetFile(io.BytesIO(whole)).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [2048, 2048, 1904]
    for _ in range(3):
        assert table("parquet", values, sorted(rng.sample(range(1, 6000), 40))) == whole
    assert parquet(whole).column(0).to_pylist() == values


def test_rows_that_are_not_those_of_the_commit_are_damage() -> None:
    frame = make_encoder(ResultFormat("csv"), []).rows(Given([{}]), Piece(0, 1, [1]), 0, 1)
    with pytest.raises(PartDamaged, match="has 1 rows where 2"):
        b"".join(csv_table([source(frame, 2)]))
    with pytest.raises(PartDamaged, match="cannot be read"):
        b"".join(csv_table([source(frame[:-1], 1)]))
    with pytest.raises(PartDamaged, match="no Arrow stream"):
        b"".join(parquet_table([source(frame, 1)]))
