"""Peak memory of `tidemill run` at input sizes ten times apart: it must not grow with the input.

10^5 and 10^6 records, and 10^7 from scale 1 on; of workloads that are read as records (w4) and as columns (w1).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import data, measure, workloads
from benchmarks.report import Measured, progress

KINDS = ("w1_jsonl", "w1_csv", "w1_parquet", "w4")
GROWTH_GOAL_MB = 50.0
_ROWS = {"w4": data.W4_LINES}


def run(folder: Path, only: Sequence[str], scale: float) -> list[Measured]:
    measured = []
    counts = [10**5, 10**6, 10**7] if scale >= 1 else [10**5, 10**6]
    for workload in (each for each in KINDS if each in only):
        peaks = [_peak_mb(folder, workload, count) for count in counts]
        note = " / ".join(f"{peak:.0f} MB at {count:,}" for peak, count in zip(peaks, counts, strict=True))
        measured.append(
            Measured(f"{workload} more memory for more records", max(peaks) - peaks[0], "MB", GROWTH_GOAL_MB, note=note)
        )
    return measured


def _peak_mb(folder: Path, workload: str, count: int) -> float:
    contest = workloads.prepare(folder, workload, count / _ROWS.get(workload, data.W1_ROWS))
    output, _ = contest.outputs
    shutil.rmtree(output, ignore_errors=True)
    cost = measure.run(contest.product)
    if cost.returncode != 0:
        raise SystemExit(f"{' '.join(contest.product)}: exit status {cost.returncode}\n{cost.output[-4000:]}")
    progress(f"{workload}: {cost.peak_bytes / 1e6:.0f} MB at {contest.records:,} records")
    return cost.peak_bytes / 1e6
