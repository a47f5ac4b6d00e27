"""What a report says of an instance's work: counts and seconds. Used by the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_runtime import wire

if TYPE_CHECKING:
    from tidemill_runtime.pool import Pool, Worker


class Account:
    """loaded: whether load() has returned in any worker."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
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
