"""Watching over the workers: time limits, memory, and what to do when one has died. Used by the agent.

A worker that dies leaves on its board which records it was predicting. They come under suspicion, and whoever gets the
lease next takes them in small steps, until one record is left that is at fault.
"""

from __future__ import annotations

import signal
import time
from typing import Any, Optional

from tidemill_runtime import board as boards
from tidemill_runtime import wire
from tidemill_runtime.faults import log
from tidemill_runtime.leases import HeldLease, LeaseBook
from tidemill_runtime.pool import Pool, Worker

LOOK_EVERY_S = 0.2
DEATHS_UNEXPLAINED = 3
"""So many deaths outside of predict (in reading, writing, loading) before the instance gives up."""


class Watch:
    """processes: how many workers there are to be (fewer once memory was short)."""

    def __init__(self, pool: Pool, book: LeaseBook, memory_limit_bytes: int) -> None:
        self._pool = pool
        self._book = book
        self._limit_bytes = memory_limit_bytes
        self._wanted = 1
        self._look_at = 0.0
        self._deaths_without_work = 0
        self.processes = 1
        self._most: dict[int, int] = {}
        self.memory_bytes = 0
        self.why = ""

    @property
    def most(self) -> Optional[int]:
        """The largest mini-batch that is permitted: each split in which a worker was killed for its memory bounds it,
        until it turns out to have been a single record.
        """
        return min(self._most.values(), default=None)

    def expect(self, processes: int) -> None:
        """So many workers there are to be from now on."""
        self.processes = self._wanted = processes

    def progress(self) -> None:
        """Something was committed: earlier deaths were no habit."""
        self._deaths_without_work = 0

    def look(self) -> Optional[dict[str, Any]]:
        """Kills what is over its time or the memory; the fault if that cannot help."""
        now = time.monotonic()
        if now < self._look_at:
            return None
        self._look_at = now + LOOK_EVERY_S
        for worker in self._pool.workers:
            phase = worker.board.phase()
            if phase.phase == boards.PREDICTING and worker.killed_for is None:
                limit_s = worker.board.window().limit_s
                if limit_s and now - phase.since > limit_s:
                    worker.killed_for = "timeout"
                    worker.kill()
        self.memory_bytes = self._pool.measure()
        if self._limit_bytes and self.memory_bytes > self._limit_bytes:
            self._relieve()
        return None

    def _relieve(self) -> None:
        """Memory is over the limit: the largest worker goes."""
        alive = [worker for worker in self._pool.workers if worker.killed_for is None]
        self.memory_bytes = self._pool.measure_exactly()
        if len(alive) < len(self._pool.workers) or not alive or self.memory_bytes <= self._limit_bytes:
            return
        largest = max(alive, key=lambda worker: worker.memory_bytes)
        largest.killed_for = "out_of_memory"
        largest.kill()

    def died(self, worker: Worker, status: int) -> Optional[dict[str, Any]]:
        """A worker ended that should not have. Its lease waits for another; the fault if the instance cannot go on."""
        fault = worker.killed_for or ("out_of_memory" if status == -signal.SIGKILL else "crash")
        phase = worker.board.phase().phase
        lease = self._book.get(worker.split)
        how = _how(worker, status)
        _tell(worker, phase, lease, how)
        crowded = worker.killed_for == "out_of_memory" and self.processes > 1
        if crowded:
            self.processes -= 1
            self.why = f"{self.processes + 1} did not fit into memory"
        if phase in (boards.STARTING, boards.LOADING):
            return None if crowded else self._died_loading(worker, how)
        if lease is None or lease.ticket != worker.ticket:
            return None if crowded else self._died_idle(how)
        if phase == boards.PREDICTING:
            self._accuse(lease, worker, fault, how, certain=not crowded)
        else:
            lease.deaths += 1
        self._book.put_back(lease)
        if lease.deaths > DEATHS_UNEXPLAINED:
            kind = "out_of_memory" if fault == "out_of_memory" else "internal"
            return wire.fault(kind, f"workers died {lease.deaths} times in split {lease.split}; the last {how}", how)
        return None

    def _died_loading(self, worker: Worker, how: str) -> Optional[dict[str, Any]]:
        if worker.killed_for == "out_of_memory":
            return wire.fault(
                "out_of_memory",
                f"the model alone needs more than the {self._limit_bytes} bytes of memory that the instance may use; "
                "raise resources.memory",
                how,
            )
        self._deaths_without_work += 1
        if self._deaths_without_work < DEATHS_UNEXPLAINED:
            return None
        return wire.fault("model_load_failed", f"the worker {how} while loading the model", how)

    def _died_idle(self, how: str) -> Optional[dict[str, Any]]:
        self._deaths_without_work += 1
        if self._deaths_without_work < DEATHS_UNEXPLAINED:
            return None
        return wire.fault("internal", f"the worker {how} without having anything to do", how)

    def _accuse(self, lease: HeldLease, worker: Worker, fault: str, how: str, certain: bool) -> None:
        window = worker.board.window()
        suspect = lease.suspect(window, fault)
        if fault == "out_of_memory" and window.size > 1 and certain:
            call = min(window.size, worker.board.totals().batch or window.size)  # a window may be several calls
            self._most[lease.split] = max(1, call // 2)
        if window.size == 1 and certain and suspect.deaths >= _deaths_needed(fault):
            lease.condemn(suspect, _message(how))
            if fault == "out_of_memory":  # it was this record, neither the number of workers nor of records
                self.processes = self._wanted
                self._most.pop(lease.split, None)


def _tell(worker: Worker, phase: int, lease: Optional[HeldLease], how: str) -> None:
    """A line in the instance's log."""
    where = boards.NAMES[phase]
    if phase == boards.PREDICTING and lease is not None:
        window = worker.board.window()
        name = lease.values["objects"][window.object]["name"]
        where += f" {window.size} records of {name} (from number {window.first} after its offset {window.begin})"
    log(f"worker {worker.pid} {how} while {where}")


def _deaths_needed(fault: str) -> int:
    """Deaths in one single record that prove it. A kill may come from outside, memory may have leaked before."""
    return 2 if fault == "out_of_memory" else 1


def _how(worker: Worker, status: int) -> str:
    if worker.killed_for == "timeout":
        return f"was killed after {worker.board.window().limit_s:.1f} s in one call"
    if worker.killed_for == "out_of_memory":
        return f"was killed at {worker.memory_bytes} bytes of memory"
    if status < 0:
        try:
            return f"died of {signal.Signals(-status).name}"
        except ValueError:
            return f"died of signal {-status}"
    return f"exited with status {status}"


def _message(how: str) -> str:
    return f"the worker process {how} in this record"
