"""An input object that changes while it is read: the run says so and publishes nothing that mixes old and new."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

from tests.integration.local_world import World, until

COUNT = 60_000
MODEL = """
    import os, time
    import numpy, pandas, polars
    class Model:
        def load(self): return True
        def predict(self, batch: {hint}):
            open(os.environ["SEEN"], "a").close()
            while not os.path.exists(os.environ["GO"]): time.sleep(0.005)
            return batch[:, 0] if {matrix} else list(batch["id"])
"""


def table(first: int) -> polars.DataFrame:
    return polars.DataFrame({"id": range(first, first + COUNT), "x": [0.25] * COUNT, "text": ["x" * 40] * COUNT})


def jsonl(first: int) -> bytes:
    return table(first).write_ndjson().encode()


def csv(first: int) -> bytes:
    return table(first).write_csv().encode()


def parquet(first: int) -> bytes:
    file = io.BytesIO()
    table(first).write_parquet(file, row_group_size=10_000, compression="uncompressed")
    return file.getvalue()


def zipped(first: int) -> bytes:
    return gzip.compress(jsonl(first), 1, mtime=0)


FORMATS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "a.jsonl": (jsonl, "polars.DataFrame"),
    "a.csv": (csv, "pandas.DataFrame"),
    "a.parquet": (parquet, "polars.DataFrame"),
    "a.jsonl.gz": (zipped, "numpy.ndarray"),
}


def rewritten(path: Path, data: bytes) -> None:
    """In place, with the old size and time: only what the file system writes down by itself tells."""
    with path.open("r+b") as file:
        file.write(data[: path.stat().st_size])


def replaced(path: Path, data: bytes) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(data)
    fresh.rename(path)


def extended(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def shortened(path: Path, data: bytes) -> None:
    os.truncate(path, path.stat().st_size // 2)


def removed(path: Path, data: bytes) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [rewritten, replaced, extended, shortened, removed])
@pytest.mark.parametrize("name", FORMATS)
def test_a_change_is_noticed(tmp_path: Path, name: str, change: Callable[[Path, bytes], None]) -> None:
    make, hint = FORMATS[name]
    columns: dict[str, Any] = {"columns": ["id", "x"]} if hint.startswith("numpy") else {}
    made = (
        World(tmp_path)
        .model(MODEL.format(hint=hint, matrix=hint.startswith("numpy")))
        .file(f"in/{name}", make(1_000_000))
    )
    seen, go = tmp_path / "seen", tmp_path / "go"
    env = {"SEEN": str(seen), "GO": str(go)}
    with made.process(env=env, format=columns, batch={"size": 1000}, retries=0) as running:
        until(seen.exists, "a first call")
        change(tmp_path / "in" / name, make(2_000_000))
        go.touch()
        ended = running.result()
    if ended["status"] == "SUCCEED":
        # One process that has had the old object open all the time: it has read exactly what was listed.
        assert name.endswith(".gz") and change in (replaced, removed)
        assert made.read(f"{name}.out.jsonl") == list(range(1_000_000, 1_000_000 + COUNT))
        return
    assert (ended["status"], ended["reason"]) == ("FAILED", "input_changed"), ended
    assert name in ended["explanation"]
    assert not [found for found in made.results() if ".out" in found]
