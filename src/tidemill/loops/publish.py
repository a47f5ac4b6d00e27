"""Committed parts become results while the rest is computed; when all is done: errors, receipt, marker, SUCCEED.

Results do not wait for instances, nor instances for results: they are released as soon as no split is open. Only the
account is written when they are gone.
"""

from __future__ import annotations

import platform
from dataclasses import replace

from tidemill import __version__
from tidemill.crashpoints import reach
from tidemill.domain.errors import OutputTaken, PartDamaged, TidemillError
from tidemill.domain.ids import RunId
from tidemill.domain.life import FINAL, Reason, TaskStatus
from tidemill.domain.plan import Plan, how_finished
from tidemill.domain.receipt import Receipt
from tidemill.loops.context import Context, Job, is_temporary
from tidemill.loops.leases import WorkLease
from tidemill.loops.loop import Due
from tidemill.planning.check import input_account
from tidemill.planning.only_new import made_with
from tidemill.publishing.claims import release_claim
from tidemill.publishing.publisher import Publisher
from tidemill.services.runs import PUBLISH, finish, locked_run, mark, request_stop
from tidemill.services.task_views import seconds_view
from tidemill.store.journal import SqlJournal
from tidemill.store.runs import get_run, list_instances, list_runs, runs_to_publish
from tidemill.wire.taskpublic import dump_public

_BATCH_UNITS = 64
_PHASES = ("queue", "environment", "start", "load", "predict", "publish")
_PAUSE_S = 1.0
"""Between two batches while the run computes: each ends with a sync of the disk."""
_LOOK_S = 1.0
_INTERNAL_FAILURES = 5


class PublishLoop:
    name = PUBLISH
    workers = 2

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: dict[RunId, float] = {}

    def due(self) -> Due:
        with self._context.store.read() as tx:
            runs = self._context.known(runs_to_publish(tx))
        now = self._context.clock.monotonic()
        self._last = {run.id: self._last.get(run.id, -_PAUSE_S) for run in runs}
        found, again_s = [], _LOOK_S
        for run in runs:
            wait_s = 0.0 if run.computed is not None else self._last[run.id] + _PAUSE_S - now
            if wait_s > 0:
                again_s = min(again_s, wait_s)
            elif run.released is not None or SqlJournal(self._context.store, run.id).units_ready(1):
                found.append(run.id)
        return Due(found, again_s)

    def work(self, subject: str, lease: WorkLease) -> None:
        job = Job.load(self._context, RunId(subject))
        if job is None or job.plan is None:
            return
        publisher = self._publisher(job, job.plan)
        while self._is_wanted(job.run.id):
            self._last[job.run.id] = self._context.clock.monotonic()
            if not publisher.publish_ready(_BATCH_UNITS):
                break
            if job.run.computed is None:
                return  # the rest is gathered for a moment
        self._finish(job, job.plan, publisher, lease)

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        run = RunId(subject)
        if is_temporary(error):
            self._context.pause(run, self.name, error)
        elif isinstance(error, TidemillError) or failures >= _INTERNAL_FAILURES:
            self._give_up(run, error)

    def recovered(self, subject: str) -> None:
        self._context.pause(RunId(subject), self.name, None)

    def _publisher(self, job: Job, plan: Plan) -> Publisher:
        return Publisher(
            job.journal,
            job.objects,
            plan,
            job.output,
            job.run.task,
            job.checked.formats.result,
            sign=self._context.sign,
            replace=job.spec.output.if_exists == "replace",
        )

    def _is_wanted(self, run: RunId) -> bool:
        if self._context.closing.is_set():
            return False
        with self._context.store.read() as tx:
            row = get_run(tx, run)
        return row is not None and row.status is TaskStatus.RUNNING and row.stop_requested is None

    def _finish(self, job: Job, plan: Plan, publisher: Publisher, lease: WorkLease) -> None:
        """All that is left once every unit is published and every instance gone; nothing before."""
        totals = job.journal.totals()
        if totals.units_published < totals.units or not self._begin_end(job.run.id, lease):
            return
        reach("finish.released")
        run = Job.load(self._context, job.run.id)
        assert run is not None, "a run under way is not deleted"
        finished = publisher.finish(self._receipt(run, plan))
        release_claim(job.objects, job.output, job.run.task)
        failed = finished.counts.failed
        reason, told = how_finished(finished.counts, plan)
        failures = f"{failed} of {finished.counts.inputs} records failed." if failed else ""
        detail = " ".join(filter(None, (failures, told)))
        totals = replace(totals, counts=finished.counts)  # of merged results, not only of what was computed
        now = self._context.clock.now()
        with self._context.store.write() as tx:
            lease.guard(tx)
            row = locked_run(tx, job.run.id)
            if row.status is TaskStatus.RUNNING:
                finish(tx, row, TaskStatus.SUCCEED, reason, detail, now, totals=totals, sweep_at=now)

    def _begin_end(self, run: RunId, lease: WorkLease) -> bool:
        """Whether the account may be written; from then on the run can no longer be stopped."""
        with self._context.store.write() as tx:
            lease.guard(tx)
            row = locked_run(tx, run)
            if row.status is not TaskStatus.RUNNING or row.released is None or row.computed is None:
                return False
            if row.stop_requested is not None and row.published is None:
                return False
            mark(tx, row, "published", self._context.clock.now())
            return True

    def _receipt(self, job: Job, plan: Plan) -> Receipt:
        run, task, now = job.run, job.task, self._context.clock.now()
        with self._context.store.read() as tx:
            runs = [each.id for each in list_runs(tx, run.task) if each.number <= run.number]
            instances = list_instances(tx, run.id)
        spent, used = seconds_view(run, now), run.requirements
        digest = {"digest": used.digest} if used is not None and used.digest is not None else {}
        return Receipt(
            task=task.id,
            run=run.id,
            name=task.name,
            status=TaskStatus.SUCCEED,
            actor=run.actor,
            region=run.region,
            input=input_account(job.checked, plan),
            created=run.created,
            finished=now,
            phases_s={phase: getattr(spent, phase) for phase in _PHASES},
            instances=run.instances,
            retries=sum(each.attempt > 1 for each in instances),
            runs=tuple(runs),
            model=task.model,
            model_sha256=task.model_digest,
            code_sha256=task.code_digest,
            environment={"python": platform.python_version(), "tidemill": __version__, **digest},
            packages=used.packages if used is not None else {},
            spec=dump_public(job.spec),
            made_with=made_with(job.spec, job.checked.formats),
            since=plan.since.account if plan.since else None,
        )

    def _give_up(self, run: RunId, error: Exception) -> None:
        """What cannot be published ends the run; the instances that still compute are dismissed first."""
        now = self._context.clock.now()
        reason = _reason(error)
        with self._context.store.write() as tx:
            row = locked_run(tx, run)
            if row.status in FINAL:
                return
            if row.published is None:
                request_stop(tx, row, reason, str(error), now)
                return
            totals = SqlJournal(self._context.store, run).totals_in(tx)
            sweep_at = now + self._context.limits.scratch_ttl_s
            finish(tx, row, TaskStatus.FAILED, reason, str(error), now, totals=totals, sweep_at=sweep_at)


def _reason(error: Exception) -> Reason:
    if isinstance(error, PartDamaged):
        return Reason.RESULT_DAMAGED
    if isinstance(error, OutputTaken):
        return Reason.OUTPUT_TAKEN
    return Reason.STORAGE_FAILED if isinstance(error, TidemillError) else Reason.INTERNAL
