"""The same table and model give the same predictions, however mini-batches, processes and formats divide the work."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

from tests.integration.local_world import World

COUNT = 700
FLOATS = [0.1, 1e-7, 1e16, -0.0, 5e-324, 1.7976931348623157e308, 123456789.123456789, 1e22, 2.5, -1e-300]
INTS = [0, -1, 2**31, 2**53 + 1, -(2**63), 2**63 - 1, 10**15]
TEXTS = ["", "plain", 'ü,"q"', "客\U0001f600", " lead", "1", "true", "null", "NaN", "a\tb"]


def table() -> polars.DataFrame:
    return polars.DataFrame(
        {
            "id": range(COUNT),
            "f": [FLOATS[number % len(FLOATS)] for number in range(COUNT)],
            "i": [INTS[number % len(INTS)] for number in range(COUNT)],
            "t": [TEXTS[number * 7 % len(TEXTS)] or "x" for number in range(COUNT)],
        }
    )


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table().to_dicts()))


WRITERS: dict[str, Callable[[Path], object]] = {
    "jsonl": write_jsonl,
    "csv": lambda path: table().write_csv(path),
    "parquet": lambda path: table().write_parquet(path, row_group_size=150),
}
TABLES = ("csv", "parquet")
HEAD = """
    import numpy, pandas, polars, pyarrow
    class Model:
        def load(self): return True
        def predict(self, batch: {hint}):
            {predict}
"""
ECHO = {
    "dicts": ("list[dict]", "return [{'f': r['f'], 'i': r['i'], 't': r['t'], 'h': r['f'] / 2} for r in batch]"),
    "pandas": ("pandas.DataFrame", "return batch[['f', 'i', 't']].assign(h=batch['f'] / 2)"),
    "polars": ("polars.DataFrame", "return batch.select('f', 'i', 't', (polars.col('f') / 2).alias('h'))"),
    "arrow": ("pyarrow.Table", "return batch.select(['f', 'i', 't'])"),
    "numpy": ("numpy.ndarray", "return batch / 2"),
}


def predicted(folder: Path, shape: str, kind: str, batch: dict[str, int], result: dict[str, Any]) -> dict[str, bytes]:
    """The result objects of a run, by name without the input's extension."""
    folder.mkdir()
    hint, predict = ECHO[shape]
    made = World(folder).model(HEAD.format(hint=hint, predict=predict))
    (folder / "in").mkdir()
    WRITERS[kind](folder / "in" / f"a.{kind}")
    form: dict[str, Any] = {"result": result}
    if shape == "numpy":
        form["columns"] = ["id", "f"]
    ended = made.run(format=form, batch=batch, resources={"cpu": 2, "memory": "2Gi"})
    assert (ended.status, ended.failed) == ("SUCCEED", 0), ended
    return {name.replace(f".{kind}.out", ".out"): data for name, data in made.results().items()}


@pytest.mark.parametrize(
    ("shape", "result"),
    [*((shape, "jsonl") for shape in ECHO), *((shape, kind) for shape in ("numpy", "pandas") for kind in TABLES)],
)
def test_bytes_are_those_of_any_other_way_to_divide_the_work(tmp_path: Path, shape: str, result: str) -> None:
    options = {"type": result, "keys": ["id", "t"]}
    expected = predicted(tmp_path / "first", shape, "jsonl", {"size": 1000, "processes": 1}, options)
    assert expected
    ways: list[tuple[str, dict[str, int]]] = [("jsonl", {"size": 7, "processes": 2}), ("csv", {}), ("parquet", {})]
    if result == "jsonl":
        ways += [("jsonl", {"size": 1, "processes": 2}), ("csv", {"size": 7})]
    for number, (kind, batch) in enumerate(ways):
        found = predicted(tmp_path / str(number), shape, kind, batch, options)
        assert found == expected, (kind, batch, _first_difference(expected, found))


def _first_difference(expected: dict[str, bytes], found: dict[str, bytes]) -> object:
    for name in expected.keys() | found.keys():
        one, two = expected.get(name, b"").splitlines(), found.get(name, b"").splitlines()
        for number, (left, right) in enumerate(zip(one, two, strict=False)):
            if left != right:
                return name, number, left[:300], right[:300]
    return None


SPECIAL = [
    *FLOATS, math.nan, math.inf, -math.inf, *INTS, 2**64, -(10**30), True, None, "", '客\n"q"', [1, [2.5, None]],
    {"a": {"b": [1e-7, "ü"]}}, [], {},
]  # fmt: skip
ROWS = "return [VALUES[r['id'] % len(VALUES)] for r in batch]"


@pytest.mark.parametrize("result", ["jsonl", "csv", "parquet"])
def test_values_of_all_kinds_are_the_same_in_any_mini_batch(tmp_path: Path, result: str) -> None:
    found = []
    for size in (1, 7, 1000):
        made = World(tmp_path / str(size))
        made.root.mkdir()
        body = "from math import nan, inf\n    VALUES = " + repr(SPECIAL) + HEAD.format(hint="list[dict]", predict=ROWS)
        made.model("\n    " + body).numbers("in/a.jsonl", []).file(
            "in/a.jsonl", "".join(f'{{"id": {number}}}\n' for number in range(500))
        )
        ended = made.run(format={"result": {"type": result}}, batch={"size": size})
        assert (ended.status, ended.failed) == ("SUCCEED", 0), made.results()
        found.append(made.results())
    assert found[0] == found[1] == found[2]
    if result == "jsonl":
        lines = [json.loads(line) for line in found[0]["a.jsonl.out.jsonl"].splitlines()]
        wanted = [None if isinstance(one, float) and not math.isfinite(one) else one for one in SPECIAL]
        assert lines[: len(wanted)] == wanted
        assert math.copysign(1, lines[3]) == -1
