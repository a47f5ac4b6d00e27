"""`tidemill run` that is killed while it reads by columns, sorts windows or writes tables: the bytes do not show it."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

from tests.integration.local_world import World, until

COUNT = 1200
MODEL = """
    import os, time
    import numpy, pandas, polars, pyarrow
    class Model:
        def load(self): return True
        def predict(self, batch: {hint}):
            if "SEEN" in os.environ:
                time.sleep(0.001 * len(batch))
                with open(os.environ["SEEN"], "a") as seen: seen.write("x" * len(batch))
            {predict}
"""


def rows() -> list[dict[str, Any]]:
    draw = random.Random(3)
    return [
        {"id": number, "x": draw.choice([number / 7, 1e-7, 1e16, -0.0, float(number)]), "word": f'客{number}, "q"'}
        for number in range(COUNT)
    ]


def write_jsonl(path: Path, part: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part))


def write_csv(path: Path, part: list[dict[str, Any]]) -> None:
    polars.DataFrame(part).write_csv(path)


def write_parquet(path: Path, part: list[dict[str, Any]]) -> None:
    polars.DataFrame(part).write_parquet(path, row_group_size=100)


def write_text(path: Path, part: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{row['id']} {'word ' * (row['id'] * 7919 % 40)}\n" for row in part))


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
    "txt": write_text,
}
FRAME = 'if (batch["id"] % 100 == 13).any(): raise ValueError("thirteen")'
CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "jsonl-numpy-parquet": (
        "jsonl",
        "numpy.ndarray",
        'if (batch[:, 0] % 100 == 13).any(): raise ValueError("thirteen")\n            return batch * 3',
        {"columns": ["id", "x"], "result": {"type": "parquet", "keys": ["word"]}},
    ),
    "csv-pandas-csv": (
        "csv",
        "pandas.DataFrame",
        f'{FRAME}\n            return pandas.DataFrame({{"y": batch["x"] * 2, "w": batch["word"]}})',
        {"result": {"type": "csv", "form": "joined"}},
    ),
    "parquet-polars-parquet": (
        "parquet",
        "polars.DataFrame",
        f"{FRAME}\n            return batch.select((polars.col('x') * 2).alias('y'), 'word')",
        {"result": {"type": "parquet", "layout": "single"}},
    ),
    "csv-arrow-jsonl": (
        "csv",
        "pyarrow.Table",
        "return batch.select(['x', 'word'])",
        {"result": {"keys": ["id"]}},
    ),
    "text-windows": (
        "txt",
        "list[str]",
        "return numpy.array([[len(one), 1 // (int(one.split()[0]) % 100 - 13)] for one in batch])",
        {},
    ),
}


def world(folder: Path, name: str) -> World:
    kind, hint, predict, _ = CASES[name]
    made = World(folder).model(MODEL.format(hint=hint, predict=predict))
    (folder / "in").mkdir()
    for number, (first, stop) in enumerate(((0, COUNT // 2), (COUNT // 2, COUNT))):
        WRITERS[kind](folder / "in" / f"{number}.{kind}", rows()[first:stop])
    return made


def results(made: World) -> dict[str, bytes]:
    """How many calls it took to find a record is no part of what must be the same."""
    found = made.results()
    for name in found.keys() & {"errors.jsonl"}:
        lines = [{**json.loads(line), "attempts": 0} for line in found[name].splitlines()]
        found[name] = json.dumps(lines).encode()
    return found


@pytest.mark.kill
@pytest.mark.parametrize("name", CASES)
def test_killed_again_and_again(tmp_path: Path, name: str) -> None:
    for folder in ("calm", "rough"):
        (tmp_path / folder).mkdir()
    calm, rough = world(tmp_path / "calm", name), world(tmp_path / "rough", name)
    task = {"format": CASES[name][3], "tolerance": "50%", "batch": {"processes": 2}}
    assert calm.run(**task).status == "SUCCEED"
    seen = rough.root / "seen"
    task["env"] = {"SEEN": str(seen)}
    before = 0
    for times in range(2):
        with rough.process(resume=times > 0, **{**task, "batch": {"size": 7, "processes": 2}}) as running:
            until(lambda enough=before + 300: seen.exists() and seen.stat().st_size >= enough, "some records")
            running.signal(signal.SIGKILL)
            until(lambda run=running: not run.family(), "that its instances die with it")
        before = seen.stat().st_size
    with rough.process(resume=True, **task) as last:
        assert last.result()["status"] == "SUCCEED"
    assert results(rough) == results(calm)
    assert rough.left_over() == []
