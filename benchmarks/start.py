"""From `tidemill run` to the first record predicted, with a model that loads at once."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from pathlib import Path

from benchmarks import crowd, measure
from benchmarks.report import Measured, progress

_ROUNDS = 9


def run(folder: Path) -> list[Measured]:
    progress("tidemill run …")
    note = folder / "first-record"
    task = {**crowd.template(folder), "env": {"BENCHMARK_FIRST_RECORD": str(note)}}
    path = folder / "start.json"
    path.write_text(json.dumps(task))
    firsts, wholes = [], []
    for turn in range(_ROUNDS + 1):
        shutil.rmtree(folder / "out", ignore_errors=True)
        note.unlink(missing_ok=True)
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        cost = measure.run([str(Path(sys.executable).parent / "tidemill"), "run", "--json", str(path)], memory=False)
        if cost.returncode != 0:
            raise SystemExit(f"tidemill run: exit status {cost.returncode}\n{cost.output[-4000:]}")
        if turn:  # the first fills the page cache
            firsts.append(float(note.read_text()) - started)
            wholes.append(cost.wall_s)
    told = f"median of {_ROUNDS}, worst {max(firsts):.2f} s"
    return [
        Measured("tidemill run → first record", statistics.median(firsts), "s", 0.4, note=told),
        Measured("tidemill run of one record, exec to exit", statistics.median(wholes), "s"),
    ]
