"""The use case of the runner door: a report of an instance in, orders out. Called by `api.runner`.

All that a report changes is one transaction of the journal: commits, leases, and what is known of the instance. An
instance that has ended as far as the server knows gets no answer any more: what it does later is nothing to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock

import sqlalchemy as sa

from tidemill.coordination.coordinator import Coordinator, CoordinatorSettings, Wish
from tidemill.coordination.messages import check_report
from tidemill.crashpoints import reach
from tidemill.domain import layout
from tidemill.domain.errors import Conflict, NotAllowed
from tidemill.domain.ids import InstanceId, RunId
from tidemill.domain.life import INSTANCE_FINAL, PAUSED, InstanceStatus, Reason, TaskStatus
from tidemill.domain.tuning import measured, model_key
from tidemill.domain.verdict import pause_of
from tidemill.ports.clock import Clock
from tidemill.services.checks import load_checked
from tidemill.services.life import change_status
from tidemill.services.regions import Regions, find_region
from tidemill.services.runs import RECONCILE, locked_instance, locked_run
from tidemill.services.tokens import Tokens
from tidemill.store.base import Store, Tx, storable
from tidemill.store.habits import keep_habit
from tidemill.store.journal import SqlJournal
from tidemill.store.plans import get_plan
from tidemill.store.records import InstanceRow
from tidemill.store.runs import get_instance, get_run, set_instance, set_run
from tidemill.store.tables import instances, runs
from tidemill.store.tasks import get_task
from tidemill.wire.taskfile import parse_task
from tidemill_runtime.contract import Counts, Orders, Report

_ASKED = (
    sa.select(instances.c.run, instances.c.status, runs.c.stop_requested, runs.c.ended)
    .join(runs, runs.c.id == instances.c.run)
    .where(instances.c.id == sa.bindparam("the_id"))
)
_HEARD = ("reported", "state", "memory_bytes", "seconds", "tuning", *(f"pending_{name}" for name in vars(Counts())))
_HEAR = (
    instances.update()
    .where(instances.c.id == sa.bindparam("the_id"))
    .values(**{name: sa.bindparam(f"new_{name}") for name in _HEARD})
)
_CACHED = 256
"""Runs whose coordinator is kept: what it knows of the plan and the listing is read again otherwise."""


@dataclass(frozen=True)
class _Asked:
    """Where the instance and its run are when a report comes."""

    run: RunId
    ended: bool
    stopping: bool


class Runner:
    """Answers reports. May be called from many threads."""

    def __init__(
        self, store: Store, regions: Regions, tokens: Tokens, clock: Clock, settings: CoordinatorSettings
    ) -> None:
        self._store = store
        self._regions = regions
        self._tokens = tokens
        self._clock = clock
        self._settings = settings
        self._coordinators: dict[RunId, Coordinator] = {}
        self._lock = Lock()

    def report(self, token: str, report: Report) -> Orders:
        """The orders for a report.

        Raises InvalidValue for what no instance says, NotAuthenticated for a token that is not good, NotAllowed for an
        instance that has ended or another's report, Conflict for a version of the contract that is not spoken here,
        Temporary where it should try again.
        """
        now = self._clock.now()
        instance, renew = self._tokens.check(token, now)
        if report.instance != instance:
            raise NotAllowed(f"this token is for {instance}, not for {report.instance[:80]!r}.", field="instance")
        check_report(report)
        asked = self._asked(instance)
        if asked is None or asked.ended:
            raise NotAllowed(f"the instance {instance} has ended.")
        if report.commits:
            reach("runner.received")
        orders = self._coordinator(asked.run).answer(report, Wish.FLUSH if asked.stopping else Wish.WORK)
        if report.commits:
            reach("runner.committed")
        return replace(orders, token=self._tokens.issue(instance, now)) if renew else orders

    def _asked(self, instance: InstanceId) -> _Asked | None:
        with self._store.read() as tx:
            row = tx.execute(_ASKED, {"the_id": instance}).one_or_none()
        if row is None:
            return None
        ended = row.ended is not None or InstanceStatus(row.status) in INSTANCE_FINAL
        return _Asked(RunId(row.run), ended, row.stop_requested is not None)

    def _coordinator(self, run: RunId) -> Coordinator:
        with self._lock:
            found = self._coordinators.get(run)
        if found is None:
            found = self._make(run)
            with self._lock:
                while len(self._coordinators) >= _CACHED:
                    del self._coordinators[next(iter(self._coordinators))]
                found = self._coordinators.setdefault(run, found)
        return found

    def _make(self, run: RunId) -> Coordinator:
        with self._store.read() as tx:
            row = get_run(tx, run)
            plan = get_plan(tx, row.plan) if row is not None and row.plan is not None else None
        if row is None or plan is None or row.checked is None:
            raise Conflict(f"the run {run} is not planned yet.")
        checked = load_checked(row.checked)
        return Coordinator(
            SqlJournal(self._store, run, on_report=self._hear, clock=self._clock),
            find_region(self._regions, row.region).objects,
            plan,
            input=checked.input_folder,
            parts=checked.output.child(layout.parts_folder(row.task)),
            clock=self._clock,
            settings=self._settings,
            instances=row.instances,
        )

    def _hear(self, tx: Tx, report: Report, now: float) -> None:
        """What a report says of its instance, as part of the exchange."""
        id_ = InstanceId(report.instance)
        seen = get_instance(tx, id_)
        running = report.state == "running"
        news = seen is not None and (seen.first_report is None or (running and seen.running is None))
        run = locked_run(tx, seen.run) if seen is not None and news else None  # always before its instances
        instance = locked_instance(tx, id_)
        if instance.status in INSTANCE_FINAL:
            raise NotAllowed(f"the instance {id_} has ended.")
        pending = {f"new_pending_{name}": count for name, count in vars(report.pending).items()}
        values = {"new_seconds": report.seconds, "new_tuning": report.tuning, "new_memory_bytes": report.memory_bytes}
        tx.execute(_HEAR, {"the_id": id_, "new_reported": now, "new_state": report.state, **values, **pending})
        self._learn(tx, instance, report, now)
        if instance.first_report is None:
            set_instance(tx, id_, {"first_report": now})
        if report.fault is not None:
            set_instance(tx, id_, {"fault": vars(report.fault)})
            tx.wake(RECONCILE)
        if run is not None and run.first_report is None:
            set_run(tx, run.id, {"first_report": now})
        if running and instance.status in (InstanceStatus.PENDING, InstanceStatus.STARTING):
            change_status(tx, instance, InstanceStatus.RUNNING, now=now)
            if run is not None and run.status is TaskStatus.STARTING:
                change_status(tx, run, TaskStatus.RUNNING, now=now)
        waiting = storable(report.waiting)
        if waiting != (instance.detail if instance.reason in PAUSED else ""):
            reason = pause_of(waiting) if waiting else Reason.NONE
            set_instance(tx, id_, {"reason": reason, "detail": waiting})
            tx.wake(RECONCILE)

    def _learn(self, tx: Tx, instance: InstanceRow, report: Report, now: float) -> None:
        """Keeps what the instance has measured since its last report, for the next run with the model."""
        found = measured(report.tuning)
        if found is None or found == measured(instance.tuning or {}):
            return
        task, run = get_task(tx, instance.task), get_run(tx, instance.run)
        if task is None or run is None:
            return
        function = parse_task(run.spec or task.spec).function
        model = model_key(task.model_digest, task.code_digest, function)
        if model is not None:
            keep_habit(tx, instance.owner, model, *found, now)
