"""Records that fail in every way there is, at random places of a large input: `tidemill run` names exactly those.

Every other record is in the results exactly once, in order. What a record does to the model is part of it (`kind`).
Cheap faults come among 10^5 records; those that end a worker are fewer, as each costs some restarts of it.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from tests.e2e.harness import TIDEMILL

MODEL = '''
import os, signal, time
from pathlib import Path
{imports}

CALLS = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
RAISE, SHORT, SIGSEGV, EXIT, HANG, MEMORY = 1, 2, 3, 4, 5, 6


class Model:
    def load(self):
        return True

    def predict(self, batch: {hint}):
        os.write(CALLS, b".")
        ids, kinds = self.told(batch)
        kinds = set(kinds)
        if SIGSEGV in kinds:
            os.kill(os.getpid(), signal.SIGSEGV)
        if EXIT in kinds:
            os._exit(7)
        if MEMORY in kinds:
            self.hold = b"x" * (1 << 30)
            time.sleep(60)
        if HANG in kinds:
            time.sleep(60)
        if RAISE in kinds:
            raise ValueError("a bad record")
        return {returned}[int(SHORT in kinds) :]

    def told(self, batch):
        """(ids, kinds) of the records."""
        {told}
'''
RAISE, SHORT, SIGSEGV, EXIT, HANG, MEMORY, UNREADABLE, WRONG_TYPE = range(1, 9)
FAULTS = {
    RAISE: "model_error",
    SHORT: "wrong_length",
    SIGSEGV: "crash",
    EXIT: "crash",
    HANG: "timeout",
    MEMORY: "out_of_memory",
    UNREADABLE: "decode_error",
}
CHEAP = (RAISE, SHORT, UNREADABLE, WRONG_TYPE)
DEADLY = (SIGSEGV, EXIT, HANG, MEMORY)


@dataclass(frozen=True)
class Shape:
    """What a model takes: the hint, the statement that tells ids and kinds, and how it returns twice the ids.

    wrong: the fault of a record whose `x` is text instead of a number.
    """

    hint: str
    told: str
    returned: str = "[2 * int(one) for one in ids]"
    imports: str = ""
    wrong: str = "model_error"

    @property
    def source(self) -> str:
        return MODEL.format(**{name: getattr(self, name) for name in ("hint", "told", "returned", "imports")})


SHAPES = {
    "dicts": Shape(
        "list[dict]",
        'sum(one["x"] for one in batch); return [one["id"] for one in batch], [one["kind"] for one in batch]',
    ),
    "numpy": Shape(
        "numpy.ndarray", "return batch[:, 0], batch[:, 2].tolist()", "2 * ids", "import numpy", "decode_error"
    ),
    "pandas": Shape(
        "pandas.DataFrame",
        'batch["x"].sum() + 0.5; return batch["id"], batch["kind"].tolist()',
        '(2 * ids).to_frame("prediction")',
        "import pandas",
    ),
    "polars": Shape(
        "polars.DataFrame",
        'batch["x"].sum() + 0.5; return batch["id"], batch["kind"].to_list()',
        'polars.DataFrame({"prediction": 2 * ids})',
        "import polars",
    ),
    "text": Shape(
        "list[str]",
        'parts = [one.split("|") for one in batch]; return zip(*[map(int, p[:2]) for p in parts])',
    ),
    "paths": Shape(
        "list[Path]",
        'parts = [one.read_text().split("|") for one in batch]; return zip(*[map(int, p[:2]) for p in parts])',
    ),
}


def jsonl(folder: Path, kinds: list[int]) -> None:
    lines = []
    for number, kind in enumerate(kinds):
        line = json.dumps({"id": number, "x": "many" if kind == WRONG_TYPE else number / 4, "kind": kind})
        lines.append(line[:-3] if kind == UNREADABLE else line)
    _halves(folder, lines, "jsonl")


def csv_rows(folder: Path, kinds: list[int]) -> None:
    lines = [f"{number},{number / 4},{kind}{',9,9' if kind == UNREADABLE else ''}" for number, kind in enumerate(kinds)]
    _halves(folder, lines, "csv", "id,x,kind\n")


def text(folder: Path, kinds: list[int]) -> None:
    """Lines of very different lengths, so that they are sorted by them."""
    lines = [
        f"{number}|{kind}|{'word ' * (number * 7919 % 50)}{chr(0xDCFF) if kind == UNREADABLE else ''}"
        for number, kind in enumerate(kinds)
    ]
    _halves(folder, lines, "txt")


def files(folder: Path, kinds: list[int]) -> None:
    for number, kind in enumerate(kinds):
        (folder / f"{number:06d}.bin").write_text(f"{number}|{kind}")


def _halves(folder: Path, lines: list[str], extension: str, header: str = "") -> None:
    """In two objects, of which the second has a few records only."""
    cut = len(lines) * 9 // 10
    for name, part in (("a", lines[:cut]), ("b", lines[cut:])):
        data = header + "".join(f"{line}\n" for line in part)
        (folder / f"{name}.{extension}").write_bytes(data.encode(errors="surrogateescape"))


def seeded(count: int, faults: dict[int, int], seed: int) -> list[int]:
    """The kind of each record: 0, but for so many of each fault at random places."""
    draw = random.Random(seed)
    kinds = [0] * count
    wanted = [kind for kind, times in faults.items() for _ in range(times)]
    for place, kind in zip(draw.sample(range(count), len(wanted)), wanted, strict=True):
        kinds[place] = kind
    return kinds


@dataclass(frozen=True)
class Ended:
    summary: dict[str, Any]
    predictions: list[Any]
    errors: list[dict[str, Any]]
    calls: int


def ran(
    place: Path,
    shape: str,
    make: Callable[[Path, list[int]], None],
    kinds: list[int],
    *,
    fails: bool = False,
    **changes: Any,
) -> Ended:
    """`tidemill run` of the records. predictions: of all objects in order, None for what failed."""
    source, model = place / "in", place / "model"
    source.mkdir()
    model.mkdir()
    make(source, kinds)
    (model / "model_service.py").write_text(SHAPES[shape].source)
    form = changes.pop("format", {})
    task = {
        "name": "faults",
        "model": str(model),
        "input": f"{source}/",
        "output": f"{place / 'out'}/",
        "env": {"CALLS": str(place / "calls")},
        "resources": {"memory": "900Mi"},
        "tolerance": "100%",
        "format": form,
        **changes,
    }
    (place / "task.json").write_text(json.dumps(task))
    command = [str(TIDEMILL), "run", "--json", str(place / "task.json")]
    env = {**os.environ, "TIDEMILL_DATA": str(place / "data")}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=place, env=env, check=False)
    assert ended.returncode == (1 if fails else 0), ended.stderr[-6000:]
    results = sorted(path for path in (place / "out").iterdir() if ".out" in path.name or path.name.startswith("part-"))
    errors = place / "out" / "errors.jsonl"
    return Ended(
        json.loads(ended.stdout),
        [one for path in results for one in predictions(path)],
        [json.loads(line) for line in errors.read_bytes().splitlines()] if errors.exists() else [],
        (place / "calls").stat().st_size,
    )


def predictions(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        column: list[Any] = pyarrow.parquet.read_table(path)["prediction"].to_pylist()
        return column
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [float(row["prediction"]) if row["prediction"] else None for row in csv.DictReader(file)]
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    found = [one["prediction"] if isinstance(one, dict) and "path" in one else one for one in found]
    return [one["prediction"] if isinstance(one, dict) else one for one in found]


def check(ended: Ended, kinds: list[int], shape: str, batch: int, *, of_files: bool = False) -> None:
    """Exactly those that fail are errors, each with its fault and place; calls are few."""
    fault_of = {0: "", **FAULTS, WRONG_TYPE: SHAPES[shape].wrong}
    failed = {number: fault_of[kind] for number, kind in enumerate(kinds) if kind}
    assert ended.predictions == [None if number in failed else 2 * number for number in range(len(kinds))]
    assert {name: ended.summary[name] for name in ("inputs", "ok", "failed", "skipped")} == {
        "inputs": len(kinds),
        "ok": len(kinds) - len(failed),
        "failed": len(failed),
        "skipped": 0,
    }
    cut = len(kinds) * 9 // 10

    def number_of(error: dict[str, Any]) -> int:
        if of_files:
            return int(error["object"].split(".")[0])
        return int(error["line" if "line" in error else "row"]) - 1 + (0 if error["object"].startswith("a.") else cut)

    assert [(number_of(error), error["fault"]) for error in ended.errors] == sorted(failed.items())
    for error in ended.errors:
        assert error["fault"] == "decode_error" or of_files or str(number_of(error)) in error["input"], error
    each = 2 * math.ceil(math.log2(max(2, batch))) + 2
    deaths = sum(kind in DEADLY for kind in kinds)
    within = 3 * len(kinds) / batch + 60 + each * len(failed) + 120 * deaths
    assert ended.calls <= within, f"{ended.calls} calls of the model, where {within:.0f} are enough"


CASES: dict[str, tuple[str, Callable[[Path, list[int]], None], dict[str, Any]]] = {
    "jsonl-dicts": ("dicts", jsonl, {}),
    "jsonl-dicts-to-parquet": ("dicts", jsonl, {"result": "parquet"}),
    "jsonl-numpy": ("numpy", jsonl, {}),
    "jsonl-numpy-to-parquet": ("numpy", jsonl, {"result": "parquet"}),
    "csv-pandas": ("pandas", csv_rows, {}),
    "csv-polars-to-csv": ("polars", csv_rows, {"result": "csv"}),
    "text": ("text", text, {}),
    "files": ("paths", files, {"type": "file"}),
}


def of_case(name: str) -> tuple[str, Callable[[Path, list[int]], None], dict[str, Any], Callable[..., None]]:
    shape, make, form = CASES[name]
    return shape, make, form, functools.partial(check, of_files=make is files)


def cheap(name: str, times: int) -> dict[int, int]:
    _shape, make, _form = CASES[name]
    possible = {RAISE, SHORT}
    if make is not files:
        possible.add(UNREADABLE)
    if make is jsonl:
        possible.add(WRONG_TYPE)
    return dict.fromkeys(sorted(possible), times)


@pytest.mark.parametrize("name", CASES)
def test_exceptions_wrong_lengths_and_bad_records(tmp_path: Path, name: str) -> None:
    shape, make, form, verify = of_case(name)
    kinds = seeded(2_000 if make is files else 100_000, cheap(name, 12), seed=len(name))
    ended = ran(tmp_path, shape, make, kinds, format=form, batch={"size": 1024})
    verify(ended, kinds, shape, 1024)


@pytest.mark.parametrize(
    ("name", "deadly", "options"),
    [
        ("text", (SIGSEGV, EXIT, HANG), {"record_timeout": "1s"}),
        ("jsonl-numpy-to-parquet", (EXIT, MEMORY), {}),
    ],
)
def test_crashes_exits_hangs_and_memory(
    tmp_path: Path, name: str, deadly: tuple[int, ...], options: dict[str, Any]
) -> None:
    shape, make, form, verify = of_case(name)
    kinds = seeded(20_000, dict.fromkeys(deadly, 1) | cheap(name, 3), seed=len(name))
    ended = ran(tmp_path, shape, make, kinds, format=form, batch={"size": 1024}, **options)
    verify(ended, kinds, shape, 1024)


@pytest.mark.parametrize("size", [None, 4096])
def test_a_model_that_always_fails_is_found_out_early(tmp_path: Path, size: int | None) -> None:
    batch = {"size": size} if size else {}
    ended = ran(tmp_path, "dicts", jsonl, [RAISE] * 100_000, batch=batch, tolerance="1%", fails=True)
    assert ended.summary["status"] == "FAILED"
    # Each of the processes bisects one mini-batch at most before it stops.
    assert ended.calls <= 2 * 2 * (size or 100) + 200


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_all_of_them_at_length(tmp_path: Path, name: str, seed: int) -> None:
    shape, make, form, verify = of_case(name)
    kinds = seeded(2_000 if make is files else 100_000, dict.fromkeys(DEADLY, 5) | cheap(name, 25), seed=seed)
    ended = ran(tmp_path, shape, make, kinds, format=form, record_timeout="4s")
    verify(ended, kinds, shape, 16384)
