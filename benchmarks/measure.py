"""Wall time and peak memory of a command with everything that it starts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_EVERY_S = 0.1


@dataclass(frozen=True)
class Cost:
    """peak_bytes: proportional set size of the whole process tree, sampled."""

    wall_s: float
    peak_bytes: int
    returncode: int
    output: str


def run(command: Sequence[str], *, memory: bool = True, env: Mapping[str, str] | None = None) -> Cost:
    """memory False leaves the sampling out, which takes some of the CPU that is measured. env: variables over our own.

    Variables of Python are left out of the environment: whoever keeps it from caching compiled modules measures that.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TIDEMILL_TEST_"))}
    started = time.perf_counter()
    process = subprocess.Popen(
        list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**own, **(env or {})}
    )
    sampler = _Sampler(process.pid)
    if memory:
        sampler.start()
    output, _ = process.communicate()
    wall_s = time.perf_counter() - started
    if memory:
        sampler.stop.set()
        sampler.join()
    return Cost(wall_s, sampler.peak_bytes, process.returncode, output)


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its descendants."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for one in (top, *top.children(recursive=True)):
            total += _proportional_bytes(one.pid)
    return total


class _Sampler(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.peak_bytes = 0
        self._pid = pid

    def run(self) -> None:
        while not self.stop.wait(_SAMPLE_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self._pid))


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
