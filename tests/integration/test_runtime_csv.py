"""CSV: types, quotes, ranges; and that what a model does to its records does no harm."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_coordinator import Bench, Coordinator
from tidemill_runtime.contract import InputFormat, ResultFormat

ECHO = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]): return batch
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def rows_of(done: Coordinator, name: str) -> list[Any]:
    return [json.loads(line) for line in done.results()[name].splitlines()]


def test_csv_types_quotes_and_bad_rows(bench: Bench) -> None:
    bench.model(ECHO).file(
        "a.csv",
        '\ufeffid,zip,price,name\r\n1,007,1.5,plain\r\n2,012,,"two\nlines, ""quoted"""\r\n'.encode()
        + "\r\n3,1,2,3,4\r\n4,9,x,Zoë\r\n".encode()
        + b"5,1,2,\xff\r\n6,1,7,last",
    )
    done = bench.run(bench.whole(), input=InputFormat("csv"))
    assert rows_of(done, "a.csv") == [
        {"id": 1, "zip": "007", "price": "1.5", "name": "plain"},
        {"id": 2, "zip": "012", "price": "", "name": 'two\nlines, "quoted"'},
        None,
        {"id": 4, "zip": "9", "price": "x", "name": "Zoë"},
        None,
        {"id": 6, "zip": "1", "price": "7", "name": "last"},
    ]
    assert [(row, record.type) for _, row, record in done.errors()] == [(3, "WrongWidth"), (5, "UnicodeDecodeError")]
    assert done.counts().skipped == 1


@pytest.mark.parametrize("size", [2, 400_000])  # by rows, and large enough for frames
def test_long_identifiers_lose_no_digit_and_nan_is_a_float(bench: Bench, size: int) -> None:
    first = "1000000000000000001,18446744073709551615,0.5,9007199254740993"
    other = "9223372036854775807,5,NaN,nan"
    bench.model("""
        class Model:
            def load(self): return True
            def predict(self, batch: list[dict]): return [[str(v) for v in r.values()] for r in batch]
    """).file("a.csv", "\n".join(["snowflake,hash,score,id", *[first, other] * (size // 2)]))
    rows = rows_of(bench.run(bench.whole(), input=InputFormat("csv")), "a.csv")
    assert len(rows) == size
    assert rows[:2] == rows[-2:] == [first.split(","), [*other.split(",")[:2], "nan", "nan"]]


@pytest.mark.parametrize("commit_every_s", [5.0, 0.0])
def test_csv_ranges_read_the_header_from_the_start(bench: Bench, commit_every_s: float) -> None:
    lines = ["id;x"] + [f"{i};{i / 4}" for i in range(5000)]
    bench.model(ECHO).file("a.csv", "\n".join(lines))
    form = InputFormat("csv", delimiter=";", columns=["x"])
    done = bench.run(bench.ranges(7_001), input=form, commit_every_s=commit_every_s)
    assert rows_of(done, "a.csv") == [{"x": i / 4} for i in range(5000)]


def test_csv_of_quoted_newlines_crosses_blocks(bench: Bench) -> None:
    dice = random.Random(3)
    rows = [[str(i), "x\n" * dice.randrange(200) + '"'] for i in range(4000)]
    out = io.StringIO()
    csv.writer(out).writerows([["id", "text"], *rows])
    bench.model("""
        import os
        class Model:
            def load(self): pass
            def predict(self, batch: list[dict]):
                if any(r["id"] == 3333 for r in batch): os._exit(1)
                return [[r["id"], len(r["text"])] for r in batch]
    """).file("a.csv", out.getvalue())
    done = bench.run(bench.whole(), input=InputFormat("csv"), commit_every_s=0.05)
    wanted = [[i, len(text)] if i != 3333 else None for i, (_, text) in enumerate(rows)]
    assert rows_of(done, "a.csv") == wanted
    assert [(row, record.fault) for _, row, record in done.errors()] == [(3333, "crash")]


def test_a_model_that_changes_its_records(bench: Bench) -> None:
    """What bisecting calls again gets the records as they were read."""
    bench.model("""
        class Model:
            def load(self): pass
            def predict(self, batch: list[dict]):
                return [1 / r.pop("x") for r in batch]
    """).file("a.jsonl", "".join(f'{{"x": {i}}}\n' for i in (1, 2, 4, 0, 5, 8, 10, 20)))
    done = bench.run(bench.whole(), result=ResultFormat(form="joined"))
    rows = rows_of(done, "a.jsonl")
    assert [row and row["x"] for row in rows] == [1, 2, 4, None, 5, 8, 10, 20]  # type: ignore[index,call-overload]
    assert done.counts().failed == 1


@pytest.mark.parametrize("shape", ["list[dict]", "'pl.DataFrame'"])
def test_a_row_of_several_lines_where_an_object_was_cut_ends_the_run(bench: Bench, shape: str) -> None:
    """Whoever meets it says so, before anything of the object is published."""
    pytest.importorskip("polars")
    bench.model(f"""
        import polars as pl
        class Model:
            def load(self): return True
            def predict(self, batch: {shape}): return [1] * len(batch)
    """)
    rows = "".join(f"{number},plain\n" for number in range(3000))
    bench.file("a.csv", f'id,text\n{rows}3000,"' + "many\nlines\n" * 300 + f'"\n{rows}')
    done = bench.run(bench.ranges(3000), expect=3, input=InputFormat("csv"))
    assert done.fault is not None
    assert done.fault.kind == "format_mismatch"
    assert "set format.split to whole" in done.fault.message
    whole = bench.run(bench.whole(), input=InputFormat("csv"))
    assert whole.counts().ok == 6001
