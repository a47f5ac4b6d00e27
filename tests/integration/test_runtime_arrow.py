"""Parquet, and batches as matrices, frames and tables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_coordinator import Bench, Coordinator
from tidemill_runtime.contract import InputFormat, ResultFormat

numpy = pytest.importorskip("numpy")  # not where the runtime's own tests run with its few dependencies alone
pyarrow = pytest.importorskip("pyarrow")
parquet_files = pytest.importorskip("pyarrow.parquet")

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


def parquet(rows: int, group: int) -> bytes:
    out = io.BytesIO()
    table = pyarrow.table({"id": range(rows), "x": [i / 8 for i in range(rows)], "t": [f"t{i}" for i in range(rows)]})
    parquet_files.write_table(table, out, row_group_size=group)
    return out.getvalue()


@pytest.mark.parametrize(
    ("hint", "imports", "body"),
    [
        ("list[dict]", "", "[r['x'] for r in batch]"),
        ("np.ndarray", "import numpy as np", "batch[:, 0]"),
        ("pl.DataFrame", "import polars as pl", "batch['x']"),
        ("pa.Table", "import pyarrow as pa", "batch['x']"),
        ("'pa.Table'", "import pyarrow as pa", "{'value': batch['x']}"),
    ],
)
def test_parquet_in_every_shape(bench: Bench, hint: str, imports: str, body: str) -> None:
    (bench.root / "model/batch/model_service.py").write_text(
        f"{imports}\nclass Model:\n    def load(self): pass\n    def predict(self, batch: {hint}): return {body}\n"
    )
    bench.file("a.parquet", parquet(40_000, 3000))
    done = bench.run(bench.ranges(100_000), input=InputFormat("parquet", columns=["x"]))
    wanted = [{"value": i / 8} if "value" in body else i / 8 for i in range(40_000)]
    assert rows_of(done, "a.parquet") == wanted


def test_parquet_survives_crashes_and_carries_keys(bench: Bench) -> None:
    bench.model("""
        import os
        class Model:
            def load(self): pass
            def predict(self, batch: list[dict]):
                if any(r["id"] in (7, 4500) for r in batch): os._exit(1)
                return [r["x"] for r in batch]
    """).file("a.parquet", parquet(9000, 2000))
    done = bench.run(
        bench.whole(), input=InputFormat("parquet"), result=ResultFormat(keys=["id", "t"]), commit_every_s=0.05
    )
    assert rows_of(done, "a.parquet") == [
        None if i in (7, 4500) else {"id": i, "t": f"t{i}", "prediction": i / 8} for i in range(9000)
    ]
    assert [(row, record.fault) for _, row, record in done.errors()] == [(7, "crash"), (4500, "crash")]


def test_what_is_no_parquet(bench: Bench) -> None:
    bench.model(ECHO).file("a.parquet", b"PAR1 nonsense")
    done = bench.run(bench.whole(), expect=3, input=InputFormat("parquet"))
    assert done.fault is not None
    assert done.fault.kind == "format_mismatch"


@pytest.mark.parametrize(
    ("hint", "result", "wanted"),
    [
        ("list[str]", "[t * 2 for t in batch]", ["aa", "bb"]),
        ("list[bytes]", "[t.decode() for t in batch]", ["a", "b"]),
        ("np.ndarray", "batch", None),
        ("list[dict]", "np.array([[1.0, float('nan')]] * len(batch))", [[1.0, None]] * 2),
        ("list[dict]", "[{'p': np.float32(0.5), 'q': np.arange(2)}] * len(batch)", [{"p": 0.5, "q": [0, 1]}] * 2),
        ("list[dict]", "(r['text'] for r in batch)", ["a", "b"]),
    ],
)
def test_shapes_of_json_lines(bench: Bench, hint: str, result: str, wanted: list[object] | None) -> None:
    (bench.root / "model/batch/model_service.py").write_text(
        "import numpy as np\nclass Model:\n    def load(self): pass\n"
        f"    def predict(self, batch: {hint}): return {result}\n"
    )
    bench.file("a.jsonl", '{"text": "a"}\n{"text": "b"}\n')
    done = bench.run(bench.whole())
    if wanted is None:
        assert {record.fault for _, _, record in done.errors()} == {"decode_error"}
    else:
        assert rows_of(done, "a.jsonl") == wanted
