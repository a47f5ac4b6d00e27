"""When a run has to end before its time, or fails at its end: pure rules over its counts and its instances' faults.

Asked by the server's loops and by `tidemill run`, so that both end the same runs for the same reasons.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.domain.life import Reason
from tidemill_runtime.contract import FATAL_FAULTS, Counts, Fault

FIRST_RECORDS = 100
"""A model that failed on each of so many first records will fail on the others too."""
EARLY_MARGIN = 1.5
"""How far over the tolerance a run must be to end early: the total is an estimate until the last record is read."""

_REASONS = {
    "model_not_found": Reason.MODEL_NOT_FOUND,
    "model_load_failed": Reason.MODEL_LOAD_FAILED,
    "missing_module": Reason.MISSING_MODULE,
    "input_changed": Reason.INPUT_CHANGED,
    "format_mismatch": Reason.FORMAT_MISMATCH,
    "input_unreadable": Reason.STORAGE_FAILED,
    "staging_failed": Reason.STORAGE_FAILED,
    "out_of_memory": Reason.OUT_OF_MEMORY,
    "contract_version": Reason.INTERNAL,
    "internal": Reason.INTERNAL,
}
_FULL = ("no space left", "disk full", "enospc", "quota exceeded", "storage is full")


@dataclass(frozen=True)
class Standing:
    """Where a run stands. committed: over all runs of the plan; pending: computed, not committed yet, of all instances.

    bytes, bytes_done: of the input; done bytes are those of finished splits. finished: nothing is left to compute.
    """

    committed: Counts
    pending: Counts
    bytes: int
    bytes_done: int
    finished: bool


def verdict(standing: Standing, tolerance: float) -> Reason | None:
    """Why the run has to fail, or None. tolerance: a float is a share of the records, an int a count of them."""
    counts = standing.committed + standing.pending
    if counts.failed and not counts.ok and (counts.failed >= FIRST_RECORDS or standing.finished):
        return Reason.MODEL_ALWAYS_FAILS
    if standing.finished:
        return Reason.TOO_MANY_FAILED_RECORDS if counts.failed > _tolerated(tolerance, counts.inputs) else None
    if counts.failed < FIRST_RECORDS:
        return None
    if isinstance(tolerance, int):
        return Reason.TOO_MANY_FAILED_RECORDS if counts.failed > tolerance else None
    if not standing.bytes_done:
        return None  # nothing to extrapolate from
    # Counts run ahead of finished splits, so that the total is overestimated, never underestimated.
    expected = counts.inputs * standing.bytes / standing.bytes_done
    return Reason.TOO_MANY_FAILED_RECORDS if counts.failed > EARLY_MARGIN * _tolerated(tolerance, expected) else None


def _tolerated(tolerance: float, inputs: float) -> float:
    return tolerance if isinstance(tolerance, int) else tolerance * inputs


def pause_of(words: str) -> Reason:
    """Which pause it is that an instance tells of in these words."""
    full = any(sign in words.lower() for sign in _FULL)
    return Reason.PAUSED_DISK_FULL if full else Reason.PAUSED_STORAGE


def reason_of_fault(fault: Fault | None) -> Reason:
    """The reason that an instance's fault is for its run; without one it died."""
    return _REASONS.get(fault.kind, Reason.INTERNAL) if fault else Reason.CRASHED


def may_retry(fault: Fault | None) -> bool:
    """Whether a replacement of the instance may do better."""
    return fault is None or FATAL_FAULTS.get(fault.kind, True)
