"""Models of columns over JSON lines: the same results however the input was cut, read, called and interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_coordinator import Bench
from tidemill_runtime.contract import InputFormat, Pins, ResultFormat

pytest.importorskip("numpy")
pytest.importorskip("polars")

ROWS = 30_000
BROKEN = {17: b"broken", 4_000: b"", 25_000: b'{"id": 25000}{"id": 1}'}
POISON = (9, 20_000)

MATRIX = """
    import os
    import numpy
    class Model:
        def load(self): self.out = numpy.zeros(1 << 20)
        def predict(self, batch: numpy.ndarray):
            if KILLS and (batch[:, 0] == KILLS).any(): os._exit(1)
            if (batch[:, 1] < 0).any(): raise ValueError("below zero")
            out = self.out[: len(batch)]  # its own array, again and again
            out[:] = batch[:, 0] * 3 + batch[:, 1]
            return out
"""
FRAME = """
    import os
    import polars
    class Model:
        def load(self): pass
        def predict(self, batch: polars.DataFrame):
            assert batch.schema == {"x": polars.Int64, "y": polars.Float64}
            if KILLS and (batch["x"] == KILLS).any(): os._exit(1)
            if (batch["y"] < 0).any(): raise ValueError("below zero")
            return {"p": batch["x"] * 3 + batch["y"]}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    lines = [
        BROKEN.get(row)
        if row in BROKEN
        else json.dumps({"id": f"r{row}", "x": row, "y": -1 if row in POISON else row / 8, "z": [row]}).encode()
        for row in range(ROWS)
    ]
    bench.file("a.jsonl", b"\n".join(each or b"" for each in lines) + b"\n")
    return bench


def wanted(named: bool, killed: int) -> list[Any]:
    found: list[Any] = []
    for row in range(ROWS):
        if row in BROKEN and not BROKEN[row]:
            continue
        value = row * 3 + row / 8
        failed = row in BROKEN or row in POISON or row == killed
        found.append(None if failed else {"id": f"r{row}", "prediction": {"p": value} if named else value})
    return found


@pytest.mark.parametrize("model", [MATRIX, FRAME], ids=["matrix", "frame"])
@pytest.mark.parametrize(
    ("size", "batch_size", "kills"), [(1 << 30, None, 0), (200_000, 700, 0), (700_000, None, 12_345)]
)
def test_records_that_fail_are_found_in_columns(
    bench: Bench, model: str, size: int, batch_size: int | None, kills: int
) -> None:
    bench.model(model.replace("KILLS", str(kills)))
    done = bench.run(
        bench.ranges(size),
        input=InputFormat("jsonl", columns=["x", "y"]),
        result=ResultFormat(keys=["id"]),
        pins=Pins(batch_size=batch_size),
        commit_every_s=0.05,
    )
    found = done.results()["a.jsonl"]
    assert [json.loads(line) for line in found.splitlines()] == wanted(model == FRAME, kills or -1)
    failed = {row: record.fault for _, row, record in done.errors()}
    killed = {kills: "crash"} if kills else {}
    assert failed == {17: "decode_error", 25_000: "decode_error", **dict.fromkeys(POISON, "model_error"), **killed}
    counts = done.counts()
    assert (counts.inputs, counts.failed, counts.skipped) == (ROWS, len(failed), 1)
