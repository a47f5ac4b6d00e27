"""What follows from where a run stands: pure, asked by the loop `reconcile` at each look.

In: the rows of a run and its instances, what the engine sees of them, the account of its plan. Out: a `Decision`, which
is empty while all is as it should be.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidemill.domain.ids import InstanceId
from tidemill.domain.life import INSTANCE_FINAL, InstanceStatus, Reason, TaskStatus
from tidemill.domain.verdict import Standing, may_retry, reason_of_fault, verdict
from tidemill.loops.seats import fault_of, seats
from tidemill.ports.engine import Observation, Seen
from tidemill.ports.journal import Totals
from tidemill.services.runs import ORDERLY
from tidemill.store.records import InstanceRow, RunRow
from tidemill_runtime.contract import EXIT_DONE, EXIT_ORPHANED, EXIT_STOPPED, Counts, Fault

_EVIDENCE_MAX = 2000


@dataclass(frozen=True)
class Terms:
    """What the run was promised. tolerance: of failed records. retries: for each place.

    silent_s: how long an instance may say nothing. since: it cannot have been heard before that (the server was away).
    """

    tolerance: float | int
    retries: int
    silent_s: float
    since: float


@dataclass(frozen=True)
class Ending:
    """An instance that is over. kill: what is left of its process has to go."""

    instance: InstanceId
    status: InstanceStatus
    reason: Reason = Reason.NONE
    detail: str = ""
    exit_code: int | None = None
    fault: Fault | None = None
    kill: bool = False


@dataclass(frozen=True)
class Decision:
    """started: rows whose process is there. stop: why the run has to end before its time. dismiss: instances that are
    asked to end. stopping, computed, released: what the run comes to. final: how it ends. pause: what it waits for.
    """

    ended: Sequence[Ending] = ()
    started: Sequence[InstanceId] = ()
    stop: tuple[Reason, str] | None = None
    dismiss: Sequence[InstanceId] = ()
    stopping: bool = False
    computed: bool = False
    released: bool = False
    final: tuple[TaskStatus, Reason, str] | None = None
    pause: tuple[Reason, str] | None = None


@dataclass(frozen=True)
class _Draft:
    ended: list[Ending] = field(default_factory=list)
    started: list[InstanceId] = field(default_factory=list)


def decide(
    run: RunRow,
    rows: Sequence[InstanceRow],
    seen: Mapping[InstanceId, Observation],
    totals: Totals | None,
    terms: Terms,
    now: float,
) -> Decision:
    """What to do about a run that is not at its end. rows: all its instances. seen: of those that are alive."""
    computed = totals is not None and totals.splits_done == totals.splits
    expected = computed or run.stop_requested is not None
    draft = _Draft()
    for row in rows:
        if row.status not in INSTANCE_FINAL:
            _judge(row, seen.get(row.id), expected, terms, now, draft)
    over = {ending.instance for ending in draft.ended}
    alive = [row for row in rows if row.status not in INSTANCE_FINAL and row.id not in over]
    stop = None if run.published is not None else _stop(run, rows, alive, draft, totals, terms, now)
    ending = run.stop_requested is not None or stop is not None
    pause = _pause(run, rows) if not ending and not computed else None
    return Decision(
        ended=tuple(draft.ended),
        started=tuple(draft.started),
        stop=stop,
        dismiss=tuple(row.id for row in alive if (ending or computed) and row.status is not InstanceStatus.STOPPING),
        stopping=ending and run.published is None and run.status is not TaskStatus.STOPPING,
        computed=computed and not ending and run.computed is None,
        released=computed and not alive and run.released is None and run.computed is not None,
        final=_final(run) if run.status is TaskStatus.STOPPING and not alive else None,
        pause=pause,
    )


def _judge(row: InstanceRow, seen: Observation | None, expected: bool, terms: Terms, now: float, draft: _Draft) -> None:
    """What became of an instance that is alive as far as its row knows."""
    if seen is None:
        return
    fault = fault_of(row) or seen.fault
    if seen.seen is Seen.UNKNOWN:
        if row.status is not InstanceStatus.PENDING:  # a pending one is launched again by `place`
            told = "Its engine has no trace of it: was the machine restarted?"
            draft.ended.append(Ending(row.id, InstanceStatus.LOST, Reason.CRASHED, told))
        elif expected:
            draft.ended.append(Ending(row.id, InstanceStatus.ENDED, detail="It was never started."))
    elif seen.seen is Seen.EXITED:
        draft.ended.append(_exited(row, seen, fault, expected))
    elif fault is not None:
        reason = reason_of_fault(fault)
        draft.ended.append(Ending(row.id, InstanceStatus.FAILED, reason, _told(fault), fault=fault, kill=True))
    elif row.status is InstanceStatus.PENDING:
        draft.started.append(row.id)
    elif now - max(row.reported or row.launched or row.created, terms.since) > terms.silent_s:
        told = f"It said nothing for {terms.silent_s:.0f} s."
        draft.ended.append(Ending(row.id, InstanceStatus.FAILED, Reason.CRASHED, told, kill=True))


def _exited(row: InstanceRow, seen: Observation, fault: Fault | None, expected: bool) -> Ending:
    code = seen.exit_code
    good = code in (EXIT_DONE, EXIT_STOPPED) or row.status is InstanceStatus.STOPPING
    if fault is None and (code == EXIT_DONE or (expected and good)):
        return Ending(row.id, InstanceStatus.ENDED, exit_code=code)
    if code == EXIT_ORPHANED:
        told = "It gave up: the server had not answered for too long."
        return Ending(row.id, InstanceStatus.FAILED, Reason.INTERRUPTED, told, code)
    detail = _told(fault) if fault is not None else _how(code, seen.evidence)
    return Ending(row.id, InstanceStatus.FAILED, reason_of_fault(fault), detail, code, fault)


def _how(code: int | None, evidence: str) -> str:
    if code is None:
        how = "It ended, nobody saw how"
    elif code < 0:
        how = f"It was killed by {_signal(-code)}"
    else:
        how = f"It ended with exit code {code}"
    last = evidence.strip().splitlines()[-1:]
    return f"{how}{': ' + last[0][:_EVIDENCE_MAX] if last else ''}."


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _told(fault: Fault) -> str:
    more = "" if fault.evidence in fault.message else f" ({fault.evidence})"
    return f"{fault.message}{more}"[:_EVIDENCE_MAX]


def _stop(
    run: RunRow,
    rows: Sequence[InstanceRow],
    alive: Sequence[InstanceRow],
    draft: _Draft,
    totals: Totals | None,
    terms: Terms,
    now: float,
) -> tuple[Reason, str] | None:
    """Why the run has to end before its time, if nothing said so before."""
    if run.stop_requested is not None:
        return None
    if run.deadline is not None and run.deadline <= now and run.computed is None:
        return Reason.DEADLINE, ""
    for ending in draft.ended:
        if ending.status is InstanceStatus.FAILED and not may_retry(ending.fault):
            return ending.reason, ending.detail
    if totals is None:
        return None
    pending = sum((row.pending for row in alive), Counts())
    standing = Standing(
        totals.counts, pending, totals.bytes, totals.bytes_done, finished=totals.splits_done == totals.splits
    )
    reason = verdict(standing, terms.tolerance)
    if reason is not None:
        return reason, ""
    if standing.finished:
        return None
    for seat in seats(run.instances, rows):
        found = seat.verdict(terms.retries, now)
        if found is not None:
            return found
    return None


def _pause(run: RunRow, rows: Sequence[InstanceRow]) -> tuple[Reason, str] | None:
    return next((found for seat in seats(run.instances, rows) if (found := seat.pause()) is not None), None)


def _final(run: RunRow) -> tuple[TaskStatus, Reason, str]:
    reason = run.stop_reason or Reason.STOPPED_BY_USER
    status = TaskStatus.STOPPED if reason in ORDERLY else TaskStatus.FAILED
    return status, reason, run.stop_detail or ""
