"""How far a run is: what `progress` callbacks of `tidemill run` get. The same fields as the server's ProgressView."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tidemill.domain.life import Reason
from tidemill.ports.journal import Totals
from tidemill_runtime.contract import Counts

_WINDOW_S = 10.0
_SHOW_EVERY_S = 0.1


@dataclass(frozen=True)
class RunProgress:
    """A moment of a run.

    phase: installing, planning, starting, loading, predicting, publishing, stopping, finished. counts: of committed
    work; pending: of what is computed and not committed yet. eta_s: until the last split is done, None where nobody can
    tell.
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


class Display:
    """Hands progress on to who asked for it, a few times a second."""

    def __init__(self, progress: Callable[[RunProgress], None], task: str, instances: int) -> None:
        self._progress = progress
        self._task = task
        self._instances = instances
        self._meter = Meter()
        self._shown = ("", 0.0)

    def show(
        self,
        now: float,
        phase: str,
        *,
        totals: Totals | None,
        pending: Counts,
        running: int,
        reason: Reason,
        explanation: str,
    ) -> None:
        """now: monotonic seconds. totals: None before there is a plan. running: instances whose model has loaded."""
        if phase == self._shown[0] and now < self._shown[1] + _SHOW_EVERY_S:
            return
        self._shown = (phase, now)
        if totals is None:
            self._progress(RunProgress(self._task, phase, reason, explanation, instances=self._instances))
            return
        rate, eta_s, share = self._meter.measure(now, totals, pending)
        at_work = phase == "predicting"
        self._progress(
            RunProgress(
                self._task,
                phase,
                reason,
                explanation,
                counts=totals.counts,
                pending=pending,
                splits_total=totals.splits,
                splits_done=totals.splits_done,
                bytes_total=totals.bytes,
                bytes_done=totals.bytes_done,
                share=share,
                records_per_s=rate if at_work else None,
                eta_s=eta_s if at_work else None,
                instances=self._instances,
                instances_running=running,
            )
        )


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
