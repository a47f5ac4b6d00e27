"""Whether the product's predictions are the bare loop's: a ratio over different work would mean nothing.

Compared one file at a time. W2 may differ in the last digits, since texts are padded to the longest of a mini-batch,
and the mini-batches are others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_APART_MAX = 1e-4
"""Of two numbers of an embedding."""


def check(workload: str, product: Path, bare: Path, records: int) -> None:
    """Raises SystemExit for the first prediction that differs, and for a number of records that does."""
    if workload in ("w2", "w3"):
        key = "id" if workload == "w2" else "path"
        seen = _unordered(workload, key, product, bare)
    else:
        seen = sum(_file(workload, ours, theirs) for ours, theirs in _pairs(workload, product, bare))
    if seen != records:
        raise SystemExit(f"{workload}: {seen:,} predictions for {records:,} records")


def _pairs(workload: str, product: Path, bare: Path) -> Iterator[tuple[Path, Path]]:
    ending = ".out.parquet" if workload == "w1_parquet" else ".out.jsonl"
    for theirs in sorted(bare.iterdir()):
        yield product / f"{theirs.name.removesuffix('.out')}{ending}", theirs


def _file(workload: str, ours: Path, theirs: Path) -> int:
    if workload.startswith("w4"):
        seen = 0
        with ours.open("rb") as one, theirs.open("rb") as two:
            while block := one.read(1 << 22):
                if block != two.read(len(block)):
                    raise SystemExit(f"{ours.name} is not what the bare loop wrote")
                seen += block.count(b"\n")
            if two.read(1):
                raise SystemExit(f"{ours.name} is shorter than what the bare loop wrote")
        return seen
    import polars

    read: Any = polars.read_parquet if workload == "w1_parquet" else polars.read_ndjson
    one, two = read(ours), read(theirs).rename({"p": "prediction"})
    if not one.select("id", "prediction").equals(two.select("id", "prediction")):
        raise SystemExit(f"{ours.name} has other predictions than the bare loop's")
    return len(one)


def _unordered(workload: str, key: str, product: Path, bare: Path) -> int:
    value = "p" if workload == "w2" else "prediction"
    expected = {each[key]: each[value] for each in _lines(bare / "out.jsonl")}
    seen = 0
    for path in sorted(product.glob("*.jsonl")):
        if path.name in ("errors.jsonl", "_inputs.jsonl"):
            continue
        for each in _lines(path):
            seen += 1
            if not _close(each["prediction"], expected[each[key]], _APART_MAX if workload == "w2" else 0.0):
                raise SystemExit(f"{path.name}: {each[key]} has another prediction than the bare loop's")
    if seen != len(expected):
        raise SystemExit(f"{seen} predictions, the bare loop has {len(expected)}")
    return seen


def _close(one: list[float], two: list[float], most: float) -> bool:
    return len(one) == len(two) and all(abs(a - b) <= most for a, b in zip(one, two, strict=True))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)
