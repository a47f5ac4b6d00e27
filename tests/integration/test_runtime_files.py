"""Whole files as records: a model gets paths, or what is in them if it says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.runtime_coordinator import Bench
from tidemill_runtime.contract import InputFormat


@pytest.mark.parametrize(
    ("hint", "length"),
    [
        ("list[bytes]", "len(each)"),
        ("list[str]", "os.path.getsize(each)"),
        ("list[pathlib.Path]", "each.stat().st_size"),
    ],
)
def test_a_file_in_every_shape(tmp_path: Path, hint: str, length: str) -> None:
    bench = Bench(tmp_path).model(f"""
        import os, pathlib
        class Model:
            def load(self): return True
            def predict(self, batch: {hint}):
                if any({length} == 33 for each in batch): raise ValueError("33")
                return [{length} for each in batch]
    """)
    for number in range(70):
        bench.file(f"{number:03d}.bin", b"\xff" * number)
    done = bench.run(bench.whole(per_split=50), input=InputFormat("file"))
    found = [json.loads(line) for line in done.results()["part"].splitlines()]
    assert found == [None if number == 33 else number for number in range(70)]
