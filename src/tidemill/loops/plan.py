"""From an accepted run to splits: the output folder is claimed, the input listed, the splits stored.

A resumed run has a plan already; it claims the folder anew and goes on.
"""

from __future__ import annotations

import time
from contextlib import suppress

from tidemill.crashpoints import reach
from tidemill.domain.errors import OutputTaken, Refused, StorageDenied, TidemillError
from tidemill.domain.ids import RegionName, RunId
from tidemill.domain.life import FINAL, Reason, TaskStatus
from tidemill.domain.plan import NOTE_ONLY_NEW, NOTE_UNCUT
from tidemill.loops.context import Context, Job, is_temporary
from tidemill.loops.launching import resources_of
from tidemill.loops.leases import WorkLease
from tidemill.loops.loop import Due
from tidemill.planning.plan import make_plan, processes_of
from tidemill.publishing.claims import claim, release_claim
from tidemill.services.runs import PLACE, PLAN, RECONCILE, finish, locked_run, mark
from tidemill.store.events import add_event
from tidemill.store.plans import ready, save_plan
from tidemill.store.runs import runs_to_plan

_LOOK_S = 1.0
_AHEAD = 16
"""So many runs at the head of a region's queue are planned: enough that capacity never waits for a plan, and a thousand
tasks that were created at once do not keep the server from answering."""
_INTERNAL_FAILURES = 5
"""An error that nobody has thought of is tried so often before the run fails of it."""


class _Unwanted(Exception):
    """The run was stopped, or the server is about to end, while the input was listed."""


class PlanLoop:
    name = PLAN
    workers = 2

    def __init__(self, context: Context) -> None:
        self._context = context

    def due(self) -> Due:
        with self._context.store.read() as tx:
            return Due(
                [run for region in self._context.regions for run in runs_to_plan(tx, RegionName(region), _AHEAD)],
                _LOOK_S,
            )

    def work(self, subject: str, lease: WorkLease) -> None:
        job = Job.load(self._context, RunId(subject))
        if job is None or job.run.planned is not None or job.run.stop_requested is not None:
            return
        run = job.run
        claim(job.objects, job.output, run.task, run.id)
        reach("plan.claimed")
        plan = job.plan
        if plan is None:
            try:
                plan, splits = make_plan(
                    job.objects,
                    job.checked,
                    run.task,
                    processes=processes_of(
                        job.spec, run.instances, resources_of(job, job.region.engine.capacity()).millicores
                    ),
                    tick=_Tick(self._context, run.id),
                )
            except _Unwanted:
                return
            reach("plan.listed")
            save_plan(self._context.store, run.owner, run.id, run.task, plan, splits, self._context.clock.now())
        with self._context.store.write() as tx:
            lease.guard(tx)
            now = self._context.clock.now()
            row = locked_run(tx, run.id)
            if row.status is not TaskStatus.INIT:
                return
            if row.plan is None:
                ready(tx, run.id, now)
            mark(tx, row, "planned", now)
            if job.plan is None and plan.note:
                message = f"{plan.note[0].upper()}{plan.note[1:]}."
                name = NOTE_ONLY_NEW if plan.since else NOTE_UNCUT
                add_event(tx, row.owner, row.task, kind="run", subject=row.id, name=name, message=message, now=now)
            tx.wake(PLACE, RECONCILE)
        reach("plan.stored")

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        if is_temporary(error):
            self._context.pause(RunId(subject), self.name, error)
        elif isinstance(error, TidemillError) or failures >= _INTERNAL_FAILURES:
            self._give_up(RunId(subject), error)

    def recovered(self, subject: str) -> None:
        self._context.pause(RunId(subject), self.name, None)

    def _give_up(self, run: RunId, error: Exception) -> None:
        job = Job.load(self._context, run)
        if job is None:
            return
        with suppress(TidemillError):  # the storage may be what refuses; the release loop tries again
            release_claim(job.objects, job.output, job.run.task)
        first = job.run.number == 1
        now = self._context.clock.now()
        with self._context.store.write() as tx:
            row = locked_run(tx, run)
            if row.status in FINAL:
                return
            status = TaskStatus.SUBMIT_FAILED if first and row.status is TaskStatus.INIT else TaskStatus.FAILED
            sweep_at = now if first else now + self._context.limits.scratch_ttl_s
            finish(tx, row, status, _reason(error), str(error), now, totals=None, sweep_at=sweep_at)


def _reason(error: Exception) -> Reason:
    if isinstance(error, OutputTaken):
        return Reason.OUTPUT_TAKEN
    if isinstance(error, StorageDenied):
        return Reason.STORAGE_FAILED
    return Reason.PLAN_FAILED if isinstance(error, Refused) else Reason.INTERNAL


class _Tick:
    """Ends the listing of a run that nobody wants any more; looks about once a second."""

    def __init__(self, context: Context, run: RunId) -> None:
        self._context = context
        self._run = run
        self._next = time.monotonic() + _LOOK_S

    def __call__(self, _listed: int) -> None:
        if self._context.closing.is_set():
            raise _Unwanted
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOOK_S
            job = Job.load(self._context, self._run)
            if job is None or job.run.stop_requested is not None or job.run.status in FINAL:
                raise _Unwanted
