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
from tidemill.domain.errors import EngineFailed, NotFound, StoreUnavailable, TidemillError
from tidemill.domain.ids import InstanceId, RunId
from tidemill.domain.life import INSTANCE_FINAL, InstanceStatus, Reason, TaskStatus
from tidemill.loops.context import Context, Job, is_temporary
from tidemill.loops.installing import see_to
from tidemill.loops.launching import fitting, less, manifest_of, resources_of, shortage
from tidemill.loops.leases import LeaseLost, WorkLease
from tidemill.loops.loop import Due, backoff_s, report_failure
from tidemill.loops.seats import Seat, seats
from tidemill.ports.engine import Engine, Launch, Resources, Venv
from tidemill.services.life import change_status, explain_run
from tidemill.services.runs import (
    PLACE,
    PLAN,
    RELEASE,
    end_instance,
    locked_instance,
    locked_run,
    new_instance,
    request_stop,
)
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
from tidemill_runtime.contract import Fault

_LOOK_S = 1.0
_INTERNAL_FAILURES = 5
"""An error that nobody has thought of is tried so often before the run fails of it."""
SUBJECT = "engine"
"""What is worked on: all capacity together, by one controller at a time, or two would give the same away."""


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
        self._troubles: dict[RunId, tuple[int, float]] = {}  # failures in a row, and when to try again

    def due(self) -> Due:
        queue = self._queue()
        self._context.builders.keep([queued.run.id for queued in queue])
        again_s = min((each.again for each in queue), default=math.inf) - self._context.clock.now()
        wanted = any(each.missing or each.pending for each in queue)
        return Due([SUBJECT] if wanted else [], min(_LOOK_S, max(0.01, again_s)))

    def work(self, subject: str, lease: WorkLease) -> None:
        free: dict[Engine, Resources] = {}
        blocked: set[Engine] = set()
        for queued in self._queue():
            if self._context.closing.is_set():
                return
            if not queued.missing and not queued.pending:
                continue
            try:
                self._serve(queued, lease, free, blocked)
            except (LeaseLost, StoreUnavailable):
                raise
            except Exception as error:  # noqa: BLE001 - what one run lacks must not keep the others waiting
                self._give_trouble(queued.run, error)
            else:
                if self._troubles.pop(queued.run.id, None) is not None:
                    self._context.pause(queued.run.id, self.name, None)

    def _serve(self, queued: _Queued, lease: WorkLease, free: dict[Engine, Resources], blocked: set[Engine]) -> None:
        """One run of the queue: as many of its instances as fit. free, blocked: what those before it have left."""
        job = Job.load(self._context, queued.run.id)
        if job is None:
            return
        model, code = self._folders(job)
        seen = see_to(self._context, job, lease, model, code)
        if not seen.ready:
            return
        engine = job.region.engine
        if engine not in free:
            free[engine] = self._free(engine)
        each = resources_of(job, engine.capacity())
        count = 0 if engine in blocked else fitting(each, free[engine], len(queued.missing))
        free[engine] = less(free[engine], each, count)
        if count < len(queued.missing) and not queued.begun and not count:
            first = engine not in blocked
            why = shortage(each, free[engine], engine.capacity()) if first else "Others are before it."
            self._wait(lease, job.run, why)
        if count < len(queued.missing):
            blocked.add(engine)
        launches = [row.id for row in queued.pending]
        if count:
            launches += self._record(job, lease, each, queued.missing[:count], model, code)
            reach("place.recorded")
        for instance in launches:
            self._launch(job, lease, instance, each, seen.venv)

    def _give_trouble(self, run: RunRow, error: Exception) -> None:
        """What keeps a run from being placed: waited for if it may go away, else the end of the run."""
        failures = self._troubles.get(run.id, (0, 0.0))[0] + 1
        self._troubles[run.id] = (failures, self._context.clock.monotonic() + backoff_s(failures))
        report_failure(self.name, run.id, error)
        if is_temporary(error):
            self._context.pause(run.id, self.name, error)
        elif isinstance(error, TidemillError) or failures >= _INTERNAL_FAILURES:
            reason = Reason.MODEL_NOT_FOUND if isinstance(error, NotFound) else Reason.INTERNAL
            with self._context.store.write() as tx:
                request_stop(tx, locked_run(tx, run.id), reason, str(error), self._context.clock.now())

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        """The next look tries again. An instance that cannot be launched is noted where that happens."""

    def recovered(self, subject: str) -> None:
        """Nothing was noted."""

    # load

    def _queue(self) -> list[_Queued]:
        now = self._context.clock.now()
        with self._context.store.read() as tx:
            runs = self._context.known(runs_to_place(tx))
            self._troubles = {run.id: self._troubles[run.id] for run in runs if run.id in self._troubles}
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
        if self._troubles.get(run.id, (0, 0.0))[1] > self._context.clock.monotonic():
            return _Queued(run, [], [], now + 1.0, begun=bool(rows))
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
            if row.status in (TaskStatus.INIT, TaskStatus.STARTING) and row.stop_requested is None:
                explain_run(tx, row, Reason.WAITING_FOR_CAPACITY, why, self._context.clock.now())

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

    def _launch(self, job: Job, lease: WorkLease, instance: InstanceId, each: Resources, venv: Venv | None) -> None:
        with self._context.store.read() as tx:
            row = get_instance(tx, instance)
        fresh = Job.load(self._context, job.run.id)  # its folders are in the run's row by now
        if row is None or fresh is None or row.status is not InstanceStatus.PENDING:
            return
        limits = Resources(row.millicores, row.memory_limit_bytes, each.gpu_percent)
        try:
            fresh.region.engine.launch(
                [Launch(instance, manifest_of(self._context, fresh, instance, limits), limits, venv=venv)]
            )
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


def _limits(each: Resources) -> dict[str, int]:
    return {"millicores": each.millicores, "memory_limit_bytes": each.memory_bytes}


def _retries(context: Context, run: RunRow) -> int:
    job = Job.load(context, run.id)
    return 0 if job is None else job.spec.retries
