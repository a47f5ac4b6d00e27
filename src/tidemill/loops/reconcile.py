"""Compares runs with what the engine sees of their instances, and has ended what has to end.

Each look decides anew from rows and observations (`standing.decide`); applying it is one transaction. What is asked of
the engine may be asked any number of times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tidemill.crashpoints import reach
from tidemill.domain import layout
from tidemill.domain.errors import StoreUnavailable, TidemillError
from tidemill.domain.ids import InstanceId, RunId
from tidemill.domain.life import FINAL, INSTANCE_FINAL, InstanceStatus, Reason, TaskStatus
from tidemill.loops.context import Context, Job
from tidemill.loops.leases import WorkLease, is_held
from tidemill.loops.loop import Due, report_failure
from tidemill.loops.standing import Decision, Ending, Terms, decide
from tidemill.ports.engine import Engine, Observation
from tidemill.ports.journal import Totals
from tidemill.publishing.claims import release_claim
from tidemill.services.life import change_status
from tidemill.services.regions import find_region
from tidemill.services.runs import (
    PLAN,
    PUBLISH,
    RECONCILE,
    RELEASE,
    end_instance,
    finish,
    locked_instance,
    locked_run,
    mark,
    request_stop,
)
from tidemill.store.base import Tx
from tidemill.store.journal import SqlJournal
from tidemill.store.records import InstanceRow, RunRow
from tidemill.store.runs import get_run, instances_of, runs_to_reconcile

_ENDING_S = 0.02
"""How often instances that are about to end are looked at: nothing says that a process is gone."""
_ALIVE_S = 0.25
_LOOK_S = 1.0
_SILENT_TTLS = 3.0
"""After so many times the life of a lease an instance that says nothing is taken for lost, though its process lives."""
_GAP_S = 10.0
"""Looks are a second apart at most; a longer time between two says that something stood still."""
_MESSAGE_MAX = 500
_EXPLAINED_BY_RECORD = frozenset({Reason.MODEL_ALWAYS_FAILS, Reason.TOO_MANY_FAILED_RECORDS})


@dataclass(frozen=True)
class _Look:
    """A run and its instances as they are, and what the engine sees of those that are alive."""

    run: RunRow
    rows: Sequence[InstanceRow]
    seen: dict[InstanceId, Observation]
    totals: Totals | None

    @property
    def alive(self) -> list[InstanceRow]:
        return [row for row in self.rows if row.status not in INSTANCE_FINAL]


class ReconcileLoop:
    name = RECONCILE
    workers = 1

    def __init__(self, context: Context) -> None:
        self._context = context
        self._terms: dict[RunId, Terms] = {}
        self._journals: dict[RunId, SqlJournal] = {}
        self._asked: set[InstanceId] = set()
        self._looked = self._since = context.started
        self._paused: dict[RunId, tuple[Reason, str] | None] = {}

    def due(self) -> Due:
        now = self._context.clock.now()
        self._notice(now)
        with self._context.store.read() as tx:
            runs = self._context.known(runs_to_reconcile(tx, now))
            rows = instances_of(tx, [run.id for run in runs])
        self._forget_others({run.id for run in runs})
        looks = [look for run in runs if (look := self._look_safely(run, rows[run.id])) is not None]
        self._asked &= {row.id for look in looks for row in look.alive}
        # Whoever could not be heard could not renew a lease: all get the time for it after a restart or a jump.
        renewable = now - self._since >= self._context.limits.lease_ttl_s
        for look in looks:
            if look.totals is not None and renewable:
                self._journal(look.run).expire(now)
            # Asked again once after a restart: the server may have died between writing it down and asking.
            stopping = [row.id for row in look.alive if row.status is InstanceStatus.STOPPING]
            self._dismiss(self._engine(look.run), [each for each in stopping if each not in self._asked])
        changed = [look for look in looks if self._decide(look) != Decision(pause=self._paused.get(look.run.id))]
        return Due([look.run.id for look in changed], _pace(looks))

    def work(self, subject: str, lease: WorkLease) -> None:
        look = self._load(RunId(subject))
        if look is None or look.run.status in FINAL:
            return
        decision = self._decide(look)
        if decision.final is not None and self._is_worked_on(look.run.id):
            decision = replace(decision, final=None)
            if decision == Decision(pause=decision.pause):
                return  # the next look tries again
        if decision.ended:
            reach("reconcile.observed")
        job = Job.load(self._context, look.run.id) if decision.final or decision.stop else None
        if decision.final is not None and job is not None:
            with suppress(TidemillError):  # the release loop tries again
                release_claim(job.objects, job.output, job.run.task)
        detail = _first_error(job) if job is not None else ""
        with self._context.store.write() as tx:
            lease.guard(tx)
            self._apply(tx, look, decision, detail)
        self._paused[look.run.id] = decision.pause
        engine = self._engine(look.run)
        engine.terminate([ending.instance for ending in decision.ended if ending.kill], 0)
        self._dismiss(engine, decision.dismiss)

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        """The next look decides anew."""

    def recovered(self, subject: str) -> None:
        """Nothing was noted."""

    # load

    def _load(self, run: RunId) -> _Look | None:
        with self._context.store.read() as tx:
            row = get_run(tx, run)
            rows = instances_of(tx, [run])[run]
        return None if row is None else self._look(row, rows)

    def _look_safely(self, run: RunRow, rows: Sequence[InstanceRow]) -> _Look | None:
        """None for a run that cannot be looked at: it must not keep the others from being looked after."""
        try:
            look = self._look(run, rows)
            self._decide(look)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's
            report_failure(self.name, run.id, error)
            return None
        return look

    def _look(self, run: RunRow, rows: Sequence[InstanceRow]) -> _Look:
        totals = self._journal(run).totals() if run.plan is not None else None
        alive = [row.id for row in rows if row.status not in INSTANCE_FINAL]
        seen = self._engine(run).observe(alive) if alive else []
        return _Look(run, rows, {each.instance: each for each in seen}, totals)

    def _decide(self, look: _Look) -> Decision:
        return decide(look.run, look.rows, look.seen, look.totals, self._terms_of(look.run), self._context.clock.now())

    def _notice(self, now: float) -> None:
        """After a jump of the clock, or a time in which this process stood still, nobody could have been heard."""
        if not 0 <= now - self._looked < _GAP_S:
            self._since = now
        self._looked = now

    def _is_worked_on(self, run: RunId) -> bool:
        """Whether a loop still lists its input or writes its results; both leave it soon, as it is being stopped.

        Were it over before, another task might have its output folder by the time that they write.
        """
        with self._context.store.read() as tx:
            return is_held(tx, run, (PLAN, PUBLISH), self._context.clock.now())

    def _terms_of(self, run: RunRow) -> Terms:
        known = self._terms.get(run.id)
        if known is None:
            job = Job.load(self._context, run.id)
            assert job is not None, "its row was just read"
            silent_s = _SILENT_TTLS * self._context.limits.lease_ttl_s
            known = Terms(job.spec.tolerance, job.spec.retries, silent_s, self._since)
            self._terms[run.id] = known
        return replace(known, since=self._since)

    def _journal(self, run: RunRow) -> SqlJournal:
        return self._journals.setdefault(run.id, SqlJournal(self._context.store, run.id))

    def _engine(self, run: RunRow) -> Engine:
        return find_region(self._context.regions, run.region).engine

    def _forget_others(self, known: set[RunId]) -> None:
        """What is remembered of runs that have ended."""
        for memory in (self._terms, self._journals, self._paused):
            for run in [each for each in list(memory) if each not in known]:
                memory.pop(run, None)

    # apply

    def _apply(self, tx: Tx, look: _Look, decision: Decision, detail: str) -> None:
        """All of a decision, in one transaction. The run's row is locked before its instances'."""
        now = self._context.clock.now()
        run = locked_run(tx, look.run.id)
        if run.status in FINAL:
            return
        for ending in decision.ended:
            self._end(tx, run, ending, now)
        for instance in decision.started:
            row = locked_instance(tx, instance)
            if row.status is InstanceStatus.PENDING:
                change_status(tx, row, InstanceStatus.STARTING, now=now)
        if decision.stop is not None:
            reason, told = decision.stop
            told = told or (detail if reason in _EXPLAINED_BY_RECORD else "")
            request_stop(tx, run, reason, told, now)
            run = locked_run(tx, run.id)
        if decision.computed:
            run = self._computed(tx, run, now)
        if decision.stopping and run.status is not TaskStatus.STOPPING and run.published is None:
            reason, told = run.stop_reason or Reason.STOPPED_BY_USER, run.stop_detail or ""
            actor = run.stop_actor or ""
            run = change_status(tx, run, TaskStatus.STOPPING, reason=reason, detail=told, actor=actor, now=now)
        self._part_with(tx, decision.dismiss, now)
        if decision.released:
            run = mark(tx, run, "released", now)
            tx.wake(PUBLISH)
        if decision.final is not None and run.status is TaskStatus.STOPPING:
            status, reason, told = decision.final
            sweep_at = now + self._context.limits.scratch_ttl_s
            # Read anew: its last commits may be younger than the look.
            totals = None if run.plan is None else self._journal(run).totals_in(tx)
            finish(tx, run, status, reason, told, now, totals=totals, sweep_at=sweep_at)
        elif run.status is not TaskStatus.STOPPING:
            self._context.pause_in(tx, run, self.name, decision.pause)
        tx.wake(RECONCILE)

    def _end(self, tx: Tx, run: RunRow, ending: Ending, now: float) -> None:
        row = locked_instance(tx, ending.instance)
        if row.status in INSTANCE_FINAL:
            return
        fault, code = ending.fault, ending.exit_code
        told = ending.detail
        end_instance(tx, row, ending.status, now, reason=ending.reason, detail=told, exit_code=code, fault=fault)
        if run.plan is not None:
            self._journal(run).release_in(tx, ending.instance)
        tx.wake(RELEASE)

    def _part_with(self, tx: Tx, which: Sequence[InstanceId], now: float) -> None:
        for instance in which:
            row = locked_instance(tx, instance)
            if row.status not in INSTANCE_FINAL and row.status is not InstanceStatus.STOPPING:
                change_status(tx, row, InstanceStatus.STOPPING, now=now)

    def _computed(self, tx: Tx, run: RunRow, now: float) -> RunRow:
        """Nothing is left to compute. A resumed run may have had nothing from the beginning."""
        if run.status is TaskStatus.INIT:
            run = change_status(tx, run, TaskStatus.STARTING, now=now)
        if run.status is TaskStatus.STARTING:
            run = change_status(tx, run, TaskStatus.RUNNING, now=now)
        tx.wake(PUBLISH)
        return mark(tx, run, "computed", now)

    def _dismiss(self, engine: Engine, which: Sequence[InstanceId]) -> None:
        if which:
            engine.terminate(which, self._context.limits.stop_grace_s)
            self._asked.update(which)


def _pace(looks: Sequence[_Look]) -> float:
    """In how many seconds to look again."""
    alive = [row for look in looks for row in look.alive]
    if any(row.status is InstanceStatus.STOPPING for row in alive):
        return _ENDING_S
    return _ALIVE_S if alive else _LOOK_S


def _first_error(job: Job) -> str:
    """The first failed record that is committed, in words; nothing where there is none to be read."""
    if job.plan is None:
        return ""
    part = job.journal.first_failed_part()
    if part is None:
        return ""
    with suppress(TidemillError, ValueError, KeyError):
        location = job.output.child(layout.parts_folder(job.run.task)).child(part.name)
        text = job.objects.read(location, part.data_bytes, part.data_bytes + part.errors_bytes)
        error = json.loads(text.partition(b"\n")[0])
        return f"The first: {error['type']}: {str(error['message'])[:_MESSAGE_MAX]}"
    return ""
