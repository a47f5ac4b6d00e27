"""Starts instances where there is capacity: runs by priority, then by age; and says of the others why they wait.

Nobody overtakes: while the first in the queue does not fit, those behind it wait too, or it would wait for ever. An
instance that died leaves a place that is filled like any other, as long as its run may go on (`seats`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidemill.crashpoints import reach
from tidemill.domain.errors import EngineFailed
from tidemill.domain.ids import InstanceId
from tidemill.domain.life import INSTANCE_FINAL, InstanceStatus, Reason, TaskStatus
from tidemill.loops.context import Context, Job
from tidemill.loops.leases import WorkLease
from tidemill.loops.loop import Due
from tidemill.loops.seats import Seat, seats
from tidemill.ports.engine import Engine, Launch, Resources
from tidemill.services.life import change_status, explain_run
from tidemill.services.runs import PLACE, PLAN, RELEASE, end_instance, locked_instance, locked_run, new_instance
from tidemill.store.base import Tx
from tidemill.store.journal import SqlJournal
from tidemill.store.records import InstanceRow, RunRow
from tidemill.store.runs import (
    get_instance,
    insert_instances,
    instances_of,
    runs_to_place,
    set_instance,
    set_run,
    taken_resources,
)
from tidemill.wire.quantities import format_bytes
from tidemill_runtime.contract import CONTRACT_VERSION, Channel, Fault, Manifest, Pins

_LOOK_S = 1.0
SUBJECT = "engine"
"""What is worked on: all capacity together, by one controller at a time, or two would give the same away."""
_MILLICORES_MIN = 100


@dataclass(frozen=True)
class _Queued:
    """A run that may get instances. missing: places to be filled now. pending: rows that may lack a process.

    again: when another place may be filled, in seconds since the epoch. begun: whether it has or had instances.
    """

    run: RunRow
    missing: Sequence[Seat]
    pending: Sequence[InstanceRow]
    again: float
    begun: bool


class PlaceLoop:
    name = PLACE
    workers = 1

    def __init__(self, context: Context) -> None:
        self._context = context

    def due(self) -> Due:
        queue = self._queue()
        again_s = min((each.again for each in queue), default=math.inf) - self._context.clock.now()
        wanted = any(each.missing or each.pending for each in queue)
        return Due([SUBJECT] if wanted else [], min(_LOOK_S, max(0.01, again_s)))

    def work(self, subject: str, lease: WorkLease) -> None:
        free: dict[Engine, Resources] = {}
        blocked: set[Engine] = set()
        for queued in self._queue():
            job = Job.load(self._context, queued.run.id) if queued.missing or queued.pending else None
            if job is None:
                continue
            if self._context.closing.is_set():
                return
            engine = job.region.engine
            if engine not in free:
                free[engine] = self._free(engine)
            each = resources_of(job, engine.capacity())
            fitting = 0 if engine in blocked else _fitting(each, free[engine], len(queued.missing))
            free[engine] = _less(free[engine], each, fitting)
            if fitting < len(queued.missing) and not queued.begun and not fitting:
                first = engine not in blocked
                why = _shortage(each, free[engine], engine.capacity()) if first else "Others are before it."
                self._wait(lease, job.run, why)
            if fitting < len(queued.missing):
                blocked.add(engine)
            self._place(job, lease, each, queued.missing[:fitting], queued.pending)

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        """The next look tries again. An instance that cannot be launched is noted where that happens."""

    def recovered(self, subject: str) -> None:
        """Nothing was noted."""

    # load

    def _queue(self) -> list[_Queued]:
        now = self._context.clock.now()
        with self._context.store.read() as tx:
            runs = self._context.known(runs_to_place(tx))
            rows = instances_of(tx, [run.id for run in runs])
            return [self._queued(tx, run, rows[run.id], now) for run in runs]

    def _queued(self, tx: Tx, run: RunRow, rows: Sequence[InstanceRow], now: float) -> _Queued:
        pending = [row for row in rows if row.status is InstanceStatus.PENDING]
        empty = [seat for seat in seats(run.instances, rows) if not seat.taken]
        if empty:  # no more places are filled than there are splits to give away
            fresh = run.number == 1 and not rows
            journal = SqlJournal(self._context.store, run.id)
            empty = empty[: (run.splits or 0) if fresh else journal.open_splits(tx, len(empty))]
        if any(seat.attempts for seat in empty):
            retries = _retries(self._context, run)
            empty = [seat for seat in empty if seat.verdict(retries, now) is None]
        missing = [seat for seat in empty if seat.due <= now]
        again = min((seat.due for seat in empty if seat.due > now), default=math.inf)
        return _Queued(run, missing, pending, again, begun=bool(rows))

    def _free(self, engine: Engine) -> Resources:
        """What no living instance of this engine takes."""
        regions = [region.name for region in self._context.regions.values() if region.engine is engine]
        with self._context.store.read() as tx:
            millicores, memory_bytes = taken_resources(tx, regions)
        capacity = engine.capacity()
        return Resources(capacity.millicores - millicores, capacity.memory_bytes - memory_bytes)

    # apply

    def _wait(self, lease: WorkLease, run: RunRow, why: str) -> None:
        if (run.reason, run.detail) == (Reason.WAITING_FOR_CAPACITY, why):
            return
        with self._context.store.write() as tx:
            lease.guard(tx)
            row = locked_run(tx, run.id)
            if row.status is TaskStatus.INIT and row.stop_requested is None:
                explain_run(tx, row, Reason.WAITING_FOR_CAPACITY, why, self._context.clock.now())

    def _place(
        self, job: Job, lease: WorkLease, each: Resources, missing: Sequence[Seat], pending: Sequence[InstanceRow]
    ) -> None:
        launches = [row.id for row in pending]
        if missing:
            model, code = self._folders(job)
            launches += self._record(job, lease, each, missing, model, code)
            reach("place.recorded")
        for instance in launches:
            self._launch(job, lease, instance, each)

    def _record(
        self,
        job: Job,
        lease: WorkLease,
        each: Resources,
        missing: Sequence[Seat],
        model: Path | None,
        code: Path | None,
    ) -> list[InstanceId]:
        """The rows of the new instances: from then on they are accounted for, whatever happens."""
        now = self._context.clock.now()
        with self._context.store.write() as tx:
            lease.guard(tx)
            run = locked_run(tx, job.run.id)
            if run.stop_requested is not None or run.computed is not None:
                return []
            found = {
                "millicores": each.millicores,
                "memory_bytes": each.memory_bytes,
                "model_path": None if model is None else str(model),
                "code_path": None if code is None else str(code),
            }
            set_run(tx, run.id, found)
            rows = [{**new_instance(run, seat.index, len(seat.attempts) + 1, now), **_limits(each)} for seat in missing]
            insert_instances(tx, rows)
            if run.status is TaskStatus.INIT:
                change_status(tx, run, TaskStatus.STARTING, now=now)
                tx.wake(PLAN)  # the next in the queue
            elif run.reason is Reason.WAITING_FOR_CAPACITY:
                explain_run(tx, run, Reason.NONE, "", now)
        return [InstanceId(row["id"]) for row in rows]

    def _folders(self, job: Job) -> tuple[Path | None, Path | None]:
        """Model and code as folders; made again from their packages where they are gone."""
        found: list[Path | None] = []
        for path, digest in ((job.run.model_path, job.task.model_digest), (job.run.code_path, job.task.code_digest)):
            if path is not None and (digest is None or Path(path).is_dir()):
                found.append(Path(path))
            else:
                found.append(None if digest is None else self._context.make_folder(digest))
        return found[0], found[1]

    def _launch(self, job: Job, lease: WorkLease, instance: InstanceId, each: Resources) -> None:
        with self._context.store.read() as tx:
            row = get_instance(tx, instance)
        fresh = Job.load(self._context, job.run.id)  # its folders are in the run's row by now
        if row is None or fresh is None or row.status is not InstanceStatus.PENDING:
            return
        limits = Resources(row.millicores, row.memory_limit_bytes, each.gpu_percent)
        try:
            fresh.region.engine.launch([Launch(instance, self._manifest(fresh, instance, limits), limits)])
        except EngineFailed as error:
            self._not_launched(lease, instance, error)
            return
        reach("place.launched")
        with self._context.store.write(durable=False) as tx:
            lease.guard(tx)
            locked_run(tx, fresh.run.id)
            row = locked_instance(tx, instance)
            if row.status is InstanceStatus.PENDING:
                change_status(tx, row, InstanceStatus.STARTING, now=self._context.clock.now())
            elif row.status in INSTANCE_FINAL:  # it was ended, and perhaps forgotten, before its process was there
                set_instance(tx, instance, {"forgotten": None})
                tx.wake(RELEASE)

    def _not_launched(self, lease: WorkLease, instance: InstanceId, error: EngineFailed) -> None:
        fault = Fault("staging_failed" if "No space left" in str(error) else "internal", str(error))
        with self._context.store.write() as tx:
            lease.guard(tx)
            row = get_instance(tx, instance)
            if row is None:
                return
            locked_run(tx, row.run)
            row = locked_instance(tx, instance)
            if row.status is InstanceStatus.PENDING:
                now = self._context.clock.now()
                told = str(error)
                end_instance(tx, row, InstanceStatus.FAILED, now, reason=Reason.INTERNAL, detail=told, fault=fault)

    def _manifest(self, job: Job, instance: InstanceId, limits: Resources) -> Manifest:
        spec, settings, run = job.spec, self._context.limits, job.run
        token = self._context.tokens.issue(instance, self._context.clock.now())
        return Manifest(
            version=CONTRACT_VERSION,
            task=run.task,
            run=run.id,
            instance=instance,
            channel=Channel("http", url=self._context.runner_url(job.region), token=token),
            model=run.model_path,
            code=run.code_path,
            command=list(spec.command) if spec.command else None,
            input=job.checked.formats.input,
            result=job.checked.formats.result,
            millicores=limits.millicores,
            memory_bytes=limits.memory_bytes,
            scratch="",  # the engine's affair
            record_timeout_s=spec.record_timeout,
            commit_every_s=settings.commit_every_s,
            orphan_after_s=settings.orphan_after_s,
            pins=Pins(spec.batch.size, spec.batch.processes, spec.batch.threads),
            env=dict(spec.env),
        )


def resources_of(job: Job, capacity: Resources) -> Resources:
    """What each instance of the run gets: as asked for, else its share of all that the engine has."""
    wanted, count = job.spec.resources, job.run.instances
    return Resources(
        millicores=wanted.cpu or max(_MILLICORES_MIN, capacity.millicores // count),
        memory_bytes=wanted.memory or capacity.memory_bytes // count,
        gpu_percent=round(wanted.gpu * 100),
    )


def _limits(each: Resources) -> dict[str, int]:
    return {"millicores": each.millicores, "memory_limit_bytes": each.memory_bytes}


def _retries(context: Context, run: RunRow) -> int:
    job = Job.load(context, run.id)
    return 0 if job is None else job.spec.retries


def _fitting(each: Resources, free: Resources, wanted: int) -> int:
    """How many instances of this size fit."""
    by_cpu = free.millicores // each.millicores
    by_memory = free.memory_bytes // each.memory_bytes
    return max(0, min(wanted, by_cpu, by_memory))


def _less(free: Resources, each: Resources, count: int) -> Resources:
    return Resources(free.millicores - count * each.millicores, free.memory_bytes - count * each.memory_bytes)


def _shortage(each: Resources, free: Resources, capacity: Resources) -> str:
    """What is asked for and what there is, in words."""
    asked = f"An instance needs {each.millicores / 1000:g} cores and {format_bytes(each.memory_bytes)}"
    if each.millicores > capacity.millicores or each.memory_bytes > capacity.memory_bytes:
        has = f"{capacity.millicores / 1000:g} cores and {format_bytes(capacity.memory_bytes)}"
        return f"{asked}; the engine has {has} in all."
    left = f"{max(0, free.millicores) / 1000:g} cores and {format_bytes(max(0, free.memory_bytes))}"
    return f"{asked}; {left} are free."
