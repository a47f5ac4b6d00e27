"""How far a run is: what `progress` callbacks of `tidemill run` get. The same fields as the server's ProgressView."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tidemill.domain.life import Reason
from tidemill.ports.journal import Totals
from tidemill_runtime.contract import Counts

_WINDOW_S = 10.0


@dataclass(frozen=True)
class RunProgress:
    """A moment of a run.

    phase: planning, starting, loading, predicting, publishing, stopping, finished. counts: of committed work; pending:
    of what is computed and not committed yet. eta_s: until the last split is done, None where nobody can tell.
    instances_running: those whose model has loaded. share: done, from 0 to 1.
    """

    task: str
    phase: str
    reason: Reason = Reason.NONE
    explanation: str = ""
    counts: Counts = Counts()
    pending: Counts = Counts()
    splits_total: int | None = None
    splits_done: int = 0
    bytes_total: int | None = None
    bytes_done: int = 0
    share: float = 0.0
    records_per_s: float | None = None
    eta_s: float | None = None
    instances: int = 1
    instances_running: int = 0


class Meter:
    """Speed over the last seconds, and what follows from it."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def measure(self, now: float, totals: Totals, pending: Counts) -> tuple[float | None, float | None, float]:
        """Records per second, seconds to go, and the share that is done. now: monotonic seconds."""
        records = totals.counts.inputs + pending.inputs
        self._seen.append((now, records))
        while len(self._seen) > 2 and self._seen[1][0] < now - _WINDOW_S:
            self._seen.popleft()
        begun, before = self._seen[0]
        rate = (records - before) / (now - begun) if now > begun and records > before else None
        if not totals.bytes:
            return rate, None, totals.splits_done / max(1, totals.splits)
        share = totals.bytes_done / totals.bytes
        if not totals.bytes_done or rate is None:
            return rate, None, share
        # Records of finished splits are not counted apart, so the total is taken from all that is committed.
        expected = max(records, totals.counts.inputs / share)
        return rate, (expected - records) / rate, share
