"""Gives back what runs and instances no longer need: folders of ended instances, staging, plans, logs, packages.

Staging goes right after a good end, and after its time to live where the task could be resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from tidemill.crashpoints import reach
from tidemill.domain import layout
from tidemill.domain.ids import RunId
from tidemill.domain.life import FINAL
from tidemill.loops.context import Context, Job
from tidemill.loops.leases import WorkLease
from tidemill.loops.loop import Due
from tidemill.publishing.claims import release_claim
from tidemill.services.runs import RELEASE, locked_run
from tidemill.store.plans import delete_plans
from tidemill.store.runs import instances_to_forget, runs_to_sweep, set_instance, set_run

_LOOK_S = 5.0
_AT_ONCE = 100
_HOUSEKEEPING_S = 3600.0
HOUSEKEEPING = "housekeeping"
BEING_SWEPT = 0.0
"""`runs.sweep_at` from the moment on at which staging may be incomplete: nobody resumes the run any more."""


@runtime_checkable
class KeepsLogs(Protocol):
    """An engine that keeps logs of instances it has forgotten."""

    def drop_logs_before(self, epoch_s: float) -> None: ...


class ReleaseLoop:
    """sweeps: remove what nobody uses, packages and environments; called now and then."""

    name = RELEASE
    workers = 1

    def __init__(self, context: Context, *sweeps: Callable[[], object]) -> None:
        self._context = context
        self._sweeps = sweeps
        self._cleaned_at = float("-inf")

    def due(self) -> Due:
        with self._context.store.read() as tx:
            found = dict.fromkeys(instances_to_forget(tx))
            found |= dict.fromkeys(run.id for run in runs_to_sweep(tx, self._context.clock.now(), _AT_ONCE))
        subjects: list[str] = list(found)
        if self._context.clock.monotonic() - self._cleaned_at >= _HOUSEKEEPING_S:
            subjects.append(HOUSEKEEPING)
        return Due(subjects, _LOOK_S)

    def work(self, subject: str, lease: WorkLease) -> None:
        if subject == HOUSEKEEPING:
            self._keep_house()
            return
        job = Job.load(self._context, RunId(subject))
        if job is None:
            return
        self._forget(job)
        if job.run.sweep_at is not None and self._may_sweep(job.run.id, lease):
            reach("release.forgotten")
            self._sweep(job, lease)

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        """Tried again, as long as it takes; nothing depends on it but space."""

    def recovered(self, subject: str) -> None:
        """Nothing was noted."""

    def _forget(self, job: Job) -> None:
        with self._context.store.read() as tx:
            ended = instances_to_forget(tx).get(job.run.id, [])
        if not ended:
            return
        job.region.engine.forget(ended)
        now = self._context.clock.now()
        with self._context.store.write(durable=False) as tx:
            for instance in ended:
                set_instance(tx, instance, {"forgotten": now})

    def _may_sweep(self, run: RunId, lease: WorkLease) -> bool:
        """Decides it for good, so that a resumption and this never meet."""
        with self._context.store.write() as tx:
            lease.guard(tx)
            row = locked_run(tx, run)
            if row.status not in FINAL or row.sweep_at is None or row.sweep_at > self._context.clock.now():
                return False
            set_run(tx, run, {"sweep_at": BEING_SWEPT})
            return True

    def _sweep(self, job: Job, lease: WorkLease) -> None:
        task = job.run.task
        job.objects.delete_below(job.output.child(layout.task_folder(task)))
        release_claim(job.objects, job.output, task)
        reach("release.swept")
        delete_plans(self._context.store, task)
        with self._context.store.write() as tx:
            lease.guard(tx)
            set_run(tx, job.run.id, {"sweep_at": None})

    def _keep_house(self) -> None:
        before = self._context.clock.now() - self._context.limits.log_ttl_s
        for engine in {region.engine for region in self._context.regions.values()}:
            if isinstance(engine, KeepsLogs):
                engine.drop_logs_before(before)
        for sweep in self._sweeps:
            sweep()
        self._cleaned_at = self._context.clock.monotonic()
