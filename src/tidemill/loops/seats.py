"""The places of a run's instances: who sits there, who may sit there next and when, and when a run has to give up.

Pure rules over instances' rows, shared by the loops `place` and `reconcile`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidemill.domain.life import INSTANCE_FINAL, PAUSED, InstanceStatus, Reason
from tidemill.domain.verdict import may_retry, pause_of, reason_of_fault
from tidemill.store.records import InstanceRow
from tidemill_runtime.contract import EXIT_DONE, EXIT_ORPHANED, Fault

STORAGE_FAULTS = frozenset({"input_unreadable", "staging_failed"})
"""Faults that are the storage's: they are waited for, not counted."""
STORAGE_WITHIN_S = 600.0
"""How long instances may find the storage unusable, one after the other, before the run fails."""
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.1, 30.0


@dataclass(frozen=True)
class Seat:
    """One place of a run. attempts: its instances, the first first."""

    index: int
    attempts: Sequence[InstanceRow]

    @property
    def last(self) -> InstanceRow | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def taken(self) -> bool:
        """Whether an instance sits there."""
        return self.last is not None and self.last.status not in INSTANCE_FINAL

    @property
    def failures(self) -> int:
        """How often an instance failed here, as `retries` counts it."""
        return sum(_counts(each) for each in self.attempts)

    @property
    def due(self) -> float:
        """When the next instance may be started here, in seconds since the epoch; 0 for the first."""
        if self.last is None or self.last.ended is None or _ended_well(self.last):
            return 0.0
        trouble = 0
        for each in reversed(self.attempts):
            if each.running is not None and each is not self.last:
                break
            trouble += 1
        return self.last.ended + min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 4.0 ** min(trouble - 1, 10))

    def verdict(self, retries: int, now: float) -> tuple[Reason, str] | None:
        """Why the run has to fail of what happened here, or None."""
        last = self.last
        if last is None or self.taken or _ended_well(last) or last.exit_code == EXIT_ORPHANED:
            return None
        fault = fault_of(last)
        if fault is not None and fault.kind in STORAGE_FAULTS:
            since = self._unusable_since()
            return None if since is None or now - since < STORAGE_WITHIN_S else (Reason.STORAGE_FAILED, last.detail)
        if not may_retry(fault):
            return reason_of_fault(fault), last.detail
        return None if self.failures <= retries else (reason_of_fault(fault), last.detail)

    def pause(self) -> tuple[Reason, str] | None:
        """What is waited for: what the instance here says that it waits for, or the storage that the last one, or the
        one before it, could not use.
        """
        if self.taken and self.last is not None and self.last.reason in PAUSED:
            return self.last.reason, self.last.detail
        if self.taken and self.last is not None and self.last.running is None:
            seen = self.attempts[-2] if len(self.attempts) > 1 else None
        else:
            seen = None if self.taken else self.last
        fault = None if seen is None else fault_of(seen)
        if seen is None or fault is None or fault.kind not in STORAGE_FAULTS:
            return None
        return pause_of(f"{fault.message} {fault.evidence}"), seen.detail

    def _unusable_since(self) -> float | None:
        since = None
        for each in reversed(self.attempts):
            fault = fault_of(each)
            if fault is None or fault.kind not in STORAGE_FAULTS:
                break
            since = each.ended
        return since


def seats(count: int, rows: Sequence[InstanceRow]) -> Iterator[Seat]:
    """The places of a run with `count` instances. rows: all its instances, by place and attempt."""
    for index in range(count):
        yield Seat(index, [row for row in rows if row.index == index])


def fault_of(instance: InstanceRow) -> Fault | None:
    """What it said that it failed of."""
    return None if instance.fault is None else Fault(**instance.fault)


def _counts(instance: InstanceRow) -> bool:
    if instance.status not in (InstanceStatus.FAILED, InstanceStatus.LOST) or instance.exit_code == EXIT_ORPHANED:
        return False
    fault = fault_of(instance)
    return fault is None or fault.kind not in STORAGE_FAULTS


def _ended_well(instance: InstanceRow) -> bool:
    return instance.status is InstanceStatus.ENDED or instance.exit_code == EXIT_DONE
