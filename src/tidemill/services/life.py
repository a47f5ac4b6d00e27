"""Changing a status: of a run (and with it its task) or of an instance. The only place that does.

`change_status` asks the transition table, and writes the event in the transaction of the change. Called by the other
services and by the loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa

from tidemill.domain import life
from tidemill.domain.errors import IllegalTransition
from tidemill.domain.life import FINAL, INSTANCE_FINAL, PAUSED, InstanceStatus, Reason, TaskStatus, explain
from tidemill.store.base import Tx, storable
from tidemill.store.events import add_event
from tidemill.store.records import InstanceRow, RunRow
from tidemill.store.runs import begin_interval, end_interval, set_run
from tidemill.store.tables import instances, runs, tasks
from tidemill.store.tasks import count_tasks_by

COUNTS = ("inputs", "ok", "failed", "skipped")
S = TypeVar("S", RunRow, InstanceRow)


def change_status(
    tx: Tx,
    subject: S,
    status: TaskStatus | InstanceStatus,
    *,
    now: float,
    reason: Reason = Reason.NONE,
    detail: str = "",
    actor: str = "",
    values: Mapping[str, Any] | None = None,
) -> S:
    """Changes the status of a run (and with it its task's) or of an instance, and writes the event. The row, changed.

    subject: locked, and read in this transaction. values: further columns of it. Raises IllegalTransition for a move
    that the table does not have, or if the row is not what the caller has read.
    """
    detail = storable(detail)
    changed: dict[str, Any] = {"status": status, "reason": reason, "detail": detail, **(values or {})}
    if isinstance(subject, RunRow):
        life.change(subject.status, TaskStatus(status))
        changed |= _run_times(subject, TaskStatus(status), now)
        table = runs
    else:
        life.change(subject.status, InstanceStatus(status))
        changed |= _instance_times(subject, InstanceStatus(status), now)
        table = instances
    same = (table.c.id == subject.id, table.c.status == subject.status)
    if tx.execute(table.update().where(*same).values(**changed)).rowcount != 1:
        raise IllegalTransition(f"{subject.id} is no longer {subject.status}.")
    if isinstance(subject, RunRow):
        _follow(tx, subject, changed, now)
    elif status is InstanceStatus.RUNNING:
        begin_interval(tx, subject, now)
    elif status in INSTANCE_FINAL:
        end_interval(tx, subject.id, now)
    _tell(tx, subject, status, reason, detail, actor, now)
    return replace(subject, **changed)


def _run_times(run: RunRow, status: TaskStatus, now: float) -> dict[str, float]:
    if status is TaskStatus.STARTING:
        return {"placed": run.placed or now}
    if status is TaskStatus.RUNNING:
        return {"running": run.running or now}
    return {"ended": now} if status in FINAL else {}


def _instance_times(instance: InstanceRow, status: InstanceStatus, now: float) -> dict[str, float]:
    if status is InstanceStatus.STARTING:
        return {"launched": instance.launched or now}
    if status is InstanceStatus.RUNNING:
        return {"running": instance.running or now}
    return {"ended": now} if status in INSTANCE_FINAL else {}


def _follow(tx: Tx, run: RunRow, changed: Mapping[str, Any], now: float) -> None:
    """The task's status is its latest run's."""
    row = tx.execute(
        sa.select(tasks.c.status, tasks.c.tags, tasks.c.run, tasks.c.started)
        .where(tasks.c.id == run.task)
        .with_for_update()
    ).one()
    if row.run != run.id:
        return
    values = {key: changed[key] for key in ("status", "reason", "detail", *COUNTS, "ended") if key in changed}
    if "placed" in changed and row.started is None:
        values["started"] = changed["placed"]
    tx.execute(tasks.update().where(tasks.c.id == run.task).values(**values, updated=now))
    old, new = TaskStatus(row.status), TaskStatus(changed["status"])
    if old is not new:
        count_tasks_by(tx, run.owner, row.tags, {old: -1, new: 1})


_BAD = frozenset({TaskStatus.FAILED, TaskStatus.SUBMIT_FAILED, InstanceStatus.FAILED, InstanceStatus.LOST})
_SAID: dict[TaskStatus | InstanceStatus, str] = {
    TaskStatus.STARTING: "The first instances are being started.",
    TaskStatus.RUNNING: "A model has loaded; records are being predicted.",
    TaskStatus.STOPPING: "It is being stopped; what is computed is kept.",
    InstanceStatus.STARTING: "It was started.",
    InstanceStatus.RUNNING: "Its model has loaded.",
    InstanceStatus.STOPPING: "It was asked to end.",
    InstanceStatus.ENDED: "It has ended.",
    InstanceStatus.LOST: "Its engine knows nothing of it any more.",
}


def _tell(
    tx: Tx,
    subject: RunRow | InstanceRow,
    status: TaskStatus | InstanceStatus,
    reason: Reason,
    detail: str,
    actor: str,
    now: float,
) -> None:
    kind = "run" if isinstance(subject, RunRow) else "instance"
    said = "" if reason is Reason.INSTALLING else _SAID.get(status, "")
    message = " ".join(part for part in (said, explain(reason, detail)) if part) or f"{status}."
    add_event(
        tx,
        subject.owner.by(actor),
        subject.task,
        kind=kind,
        subject=subject.id,
        name=f"{kind}.status",
        message=message,
        warning=status in _BAD or reason is Reason.FINISHED_WITH_FAILED_RECORDS,
        status=status,
        reason=reason,
        now=now,
    )


def explain_run(tx: Tx, run: RunRow, reason: Reason, detail: str, now: float) -> None:
    """Why the run is where it is, without a change of status: it waits, it is paused, it goes on (Reason.NONE).

    An event is written when the reason changes, not for each new detail.
    """
    detail = storable(detail)
    if (run.reason, run.detail) == (reason, detail):
        return
    set_run(tx, run.id, {"reason": reason, "detail": detail})
    latest = (tasks.c.id == run.task, tasks.c.run == run.id)
    tx.execute(tasks.update().where(*latest).values(reason=reason, detail=detail))
    if run.reason is not reason:
        message = explain(reason, detail) or "It goes on."
        warning = reason in PAUSED
        owner = run.owner
        name = "run.reason"
        add_event(
            tx,
            owner,
            run.task,
            kind="run",
            subject=run.id,
            name=name,
            message=message,
            warning=warning,
            reason=reason,
            now=now,
        )
