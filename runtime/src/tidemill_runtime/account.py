"""What a report says of an instance's work: counts, seconds, the choices made. Used by the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidemill_runtime import wire

if TYPE_CHECKING:
    from tidemill_runtime.contract import Pins
    from tidemill_runtime.pool import Pool, Worker
    from tidemill_runtime.watch import Watch


class Account:
    """loaded: whether load() has returned in any worker. threads: what numeric libraries were told."""

    def __init__(self, pool: Pool, watch: Watch, pins: Pins, threads: int) -> None:
        self._pool = pool
        self._watch = watch
        self._pins = pins
        self._threads = threads
        self._load_s = 0.0
        self._of_the_dead = {"predict": 0.0, "read": 0.0, "write": 0.0}
        self.loaded = False

    def load_took(self, seconds: float) -> None:
        """A worker has loaded the model; the first one's time counts."""
        if not self.loaded:
            self.loaded = True
            self._load_s = seconds

    def bury(self, worker: Worker) -> None:
        """The worker is gone; the time that it spent is not."""
        totals = worker.board.totals()
        for name in self._of_the_dead:
            self._of_the_dead[name] += getattr(totals, name + "_s")

    def pending(self) -> dict[str, int]:
        """Counts of what is computed and not committed."""
        totals = [worker.board.totals() for worker in self._pool.workers]
        return {name: sum(getattr(each, name) for each in totals) for name in wire.ZERO_COUNTS}

    def seconds(self) -> dict[str, float]:
        """Time by phase, of all workers together; loading once."""
        totals = [worker.board.totals() for worker in self._pool.workers]
        spent = {
            name: round(before + sum(getattr(each, name + "_s") for each in totals), 3)
            for name, before in self._of_the_dead.items()
        }
        return {**spent, "load": round(self._load_s, 3)}

    def waiting(self) -> str:
        """What a worker waits for, in words; "" while all get on."""
        return next((words for worker in self._pool.workers if (words := worker.board.waiting())), "")

    def tuning(self) -> dict[str, Any]:
        """The choices and their reasons, for people to read."""
        pins = self._pins
        return {
            "processes": self._watch.processes,
            "processes_why": "pinned" if pins.processes else self._watch.why or "one for each core",
            "threads": self._threads,
            "threads_why": "pinned" if pins.threads else "what is left of the cores for each process",
            "batch_size": max((worker.board.totals().batch for worker in self._pool.workers), default=0),
            "batch_size_why": "pinned" if pins.batch_size else "measured: a call is to take a quarter of a second",
        }
