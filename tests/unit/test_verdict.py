"""When a run ends before its time, and what an instance's fault means for its run."""

from __future__ import annotations

import pytest

from tidemill.domain.life import Reason
from tidemill.domain.verdict import Standing, may_retry, reason_of_fault, verdict
from tidemill_runtime.contract import FATAL_FAULTS, Counts, Fault


def standing(ok: int, failed: int, *, done: float = 0.5, finished: bool = False, pending: int = 0) -> Standing:
    """done: the share of the input's bytes in finished splits. pending: so many of the failed are not committed."""
    committed = Counts(ok + failed - pending, ok, failed - pending, 0)
    return Standing(committed, Counts(pending, 0, pending, 0), 1000, int(1000 * done), finished)


@pytest.mark.parametrize(
    ("seen", "tolerance", "reason"),
    [
        # Nothing but failures: after the first hundred, or at the end of less.
        (standing(0, 99), 0.01, None),
        (standing(0, 100), 0.01, Reason.MODEL_ALWAYS_FAILS),
        (standing(0, 100, pending=100, done=0), 1.0, Reason.MODEL_ALWAYS_FAILS),
        (standing(0, 3, finished=True), 1.0, Reason.MODEL_ALWAYS_FAILS),
        (standing(0, 0, finished=True), 0.01, None),
        # At the end the tolerance is exact: of all records, blank lines included, or so many.
        (standing(99, 1, finished=True), 0.01, None),
        (standing(98, 2, finished=True), 0.01, Reason.TOO_MANY_FAILED_RECORDS),
        (standing(98, 2, finished=True), 2, None),
        (standing(97, 3, finished=True), 2, Reason.TOO_MANY_FAILED_RECORDS),
        (standing(1, 1, finished=True), 0, Reason.TOO_MANY_FAILED_RECORDS),
        (standing(1, 99, finished=True), 1.0, None),
        # Before it, only what is certain: a count that is passed, or a share far above that of the expected total.
        (standing(1, 99), 2, None),
        (standing(1, 100), 99, Reason.TOO_MANY_FAILED_RECORDS),
        (standing(1, 100), 100, None),
        (standing(900, 100, done=0), 0.01, None),
        (standing(9900, 100, done=0.5), 0.01, None),
        (standing(4700, 300, done=0.5), 0.02, None),
        (standing(4699, 301, done=0.5), 0.02, Reason.TOO_MANY_FAILED_RECORDS),
    ],
)
def test_verdicts(seen: Standing, tolerance: float, reason: Reason | None) -> None:
    assert verdict(seen, tolerance) == reason


def test_every_fault_has_a_reason() -> None:
    for kind in set(FATAL_FAULTS) - {"internal", "contract_version"}:
        assert reason_of_fault(Fault(kind, "")) not in {Reason.INTERNAL, Reason.CRASHED}, kind
    assert reason_of_fault(Fault("of a later version", "")) is Reason.INTERNAL
    assert reason_of_fault(None) is Reason.CRASHED


def test_what_a_replacement_may_mend() -> None:
    assert may_retry(None)
    assert may_retry(Fault("staging_failed", ""))
    assert may_retry(Fault("of a later version", ""))
    assert not may_retry(Fault("missing_module", ""))
