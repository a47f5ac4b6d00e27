"""The life of runs and instances as small transactions: created, planned, placed, stopped, ended, resumed.

Everything here takes the transaction it is part of. Called by `services.tasks`, `services.runner` and the loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tidemill.domain import ids
from tidemill.domain.errors import Conflict, NotFound, OutputTaken
from tidemill.domain.ids import InstanceId, RegionName, RunId, TaskId
from tidemill.domain.life import (
    FINAL,
    RESUMABLE,
    InstanceStatus,
    Reason,
    TaskStatus,
    explain,
)
from tidemill.domain.location import Location
from tidemill.ports.journal import Totals
from tidemill.services.life import COUNTS, change_status
from tidemill.store.base import Tx, storable
from tidemill.store.events import add_event
from tidemill.store.records import InstanceRow, Owner, RunRow, TaskRow
from tidemill.store.runs import (
    claim_output,
    get_instance,
    get_run,
    insert_run,
    release_claim,
    set_run,
)
from tidemill.store.tables import tasks
from tidemill.store.tasks import count_tasks_by, get_task, insert_task
from tidemill_runtime.contract import Fault

PLAN, PLACE, RECONCILE, PUBLISH, RELEASE = "plan", "place", "reconcile", "publish", "release"
"""The loops, as `Tx.wake` names them."""

ORDERLY = frozenset({Reason.STOPPED_BY_USER, Reason.DEADLINE, Reason.INTERRUPTED, Reason.DISK_FULL})
"""Reasons of an end before the time that make a run STOPPED; any other makes it FAILED."""


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """What a run is started with. deadline: seconds since the epoch. spec: only where it differs from the task's.

    checked: as `services.checks` writes it. model_path, code_path: folders that are there already; otherwise they are
    made from the task's digests when the run is placed. claim: the output folder, see `output_uri`.
    """

    instances: int
    priority: int
    deadline: float | None
    checked: Mapping[str, Any]
    claim: str
    model_path: str | None = None
    code_path: str | None = None
    spec: Mapping[str, Any] | None = None


def output_uri(region: RegionName, output: Location) -> str:
    """How an output folder is claimed: the same for `cos` and `s3`, and for each way to write a path."""
    folder = output.as_folder()
    return f"file:{folder.key}" if folder.is_local else f"{region}:{folder.bucket}/{folder.key}"


def create_task(tx: Tx, owner: Owner, task: TaskId, values: Mapping[str, Any], new: NewRun, now: float) -> RunId:
    """A task and its first run. values: columns of `tasks` that only the caller knows (name, description, spec, tags,
    output, model…, idempotency…). Raises OutputTaken if another run owns the output folder.
    """
    run = ids.run_id(task, 1)
    created = {"status": TaskStatus.INIT, "run": run, "created": now, "updated": now}
    run_values = {"instances": new.instances, "priority": new.priority, "deadline": new.deadline}
    insert_task(tx, {**values, "id": task, **owner.values, **created, **run_values})
    message = f"Task {values['name']} was created."
    add_event(tx, owner, task, kind="task", subject=task, name="task.created", message=message, now=now)
    _begin_run(tx, owner, task, 1, None, new, now)
    return run


def resume_task(tx: Tx, owner: Owner, task: TaskRow, new: NewRun, now: float) -> RunId:
    """A new run of a task (locked) that ended early; it goes on with the plan, if there is one still.

    Raises Conflict where the task cannot be resumed, OutputTaken if another run owns the output folder by now.
    """
    last = get_run(tx, task.run)
    if task.status not in RESUMABLE or last is None:
        raise Conflict(
            f"a task that is {task.status} cannot be resumed.",
            field="status",
            remedy="Only stopped and failed tasks can be.",
        )
    if last.plan is not None and not last.sweep_at:  # null: it is swept; 0: it is being swept
        raise Conflict(
            "what it had computed is no longer kept.", field="task", remedy="Create the task anew (`task create`)."
        )
    set_run(tx, last.id, {"sweep_at": None})
    number = last.number + 1
    run = _begin_run(tx, owner, task.id, number, last.plan, new, now)
    count_tasks_by(tx, task.owner, task.tags, {task.status: -1, TaskStatus.INIT: 1})
    begun = {"status": TaskStatus.INIT, "reason": Reason.NONE, "detail": "", "run": run, "runs": number, "ended": None}
    changed = {"instances": new.instances, "priority": new.priority, "deadline": new.deadline, "updated": now}
    tx.execute(tasks.update().where(tasks.c.id == task.id).values(**begun, **changed))
    return run


def _begin_run(tx: Tx, owner: Owner, task: TaskId, number: int, plan: str | None, new: NewRun, now: float) -> RunId:
    run = ids.run_id(task, number)
    values = {
        "id": run,
        "task": task,
        "number": number,
        **owner.values,
        "status": TaskStatus.INIT,
        "priority": new.priority,
        "spec": None if new.spec is None else dict(new.spec),
        "checked": dict(new.checked),
        "model_path": new.model_path,
        "code_path": new.code_path,
        "instances": new.instances,
        "plan": plan,
        "deadline": new.deadline,
        "created": now,
    }
    insert_run(tx, values)
    taken_by = claim_output(tx, owner, new.claim, task, run, now)
    if taken_by is not None:
        raise OutputTaken(
            f"the output folder belongs to {taken_by}, which is not finished.",
            field="output.path",
            remedy="Choose another folder, or wait for it to end.",
        )
    message = "The first run was created." if number == 1 else f"Run {number} goes on with what is missing."
    status = TaskStatus.INIT
    add_event(tx, owner, task, kind="run", subject=run, name="run.status", message=message, status=status, now=now)
    tx.wake(PLAN)
    return run


def locked_run(tx: Tx, run: RunId) -> RunRow:
    """The run; nobody else changes it until the transaction ends. Raises NotFound."""
    row = get_run(tx, run, lock=True)
    if row is None:
        raise NotFound(f"no run {run!r}.", field="run")
    return row


def request_stop(tx: Tx, run: RunRow, reason: Reason, detail: str, now: float, *, actor: str = "") -> None:
    """Has a run (locked) end before its time; the reconcile loop sees to it. The first reason stays."""
    if run.status in FINAL or run.stop_requested is not None:
        return
    detail = storable(detail)
    values = {"stop_requested": now, "stop_reason": reason, "stop_detail": detail, "stop_actor": actor}
    set_run(tx, run.id, values)
    add_event(
        tx,
        run.owner.by(actor),
        run.task,
        kind="run",
        subject=run.id,
        name="run.stop_requested",
        message=explain(reason, detail),
        warning=reason not in ORDERLY,
        reason=reason,
        now=now,
    )
    tx.wake(RECONCILE)


def mark(tx: Tx, run: RunRow, moment: str, now: float) -> RunRow:
    """Notes when a phase of the run (locked) was over: "planned", "computed", "released" or "published". Once."""
    if getattr(run, moment) is not None:
        return run
    set_run(tx, run.id, {moment: now})
    if moment in _MARKED:
        name, message = f"run.{moment}", _MARKED[moment]
        add_event(tx, run.owner, run.task, kind="run", subject=run.id, name=name, message=message, now=now)
    changed: RunRow = replace(run, **{moment: now})  # type: ignore[arg-type]
    return changed


_MARKED = {
    "planned": "The input is listed and planned.",
    "computed": "Every split is committed.",
    "released": "All instances are gone.",
}


def finish(
    tx: Tx,
    run: RunRow,
    status: TaskStatus,
    reason: Reason,
    detail: str,
    now: float,
    *,
    totals: Totals | None,
    sweep_at: float,
    published: bool = False,
) -> RunRow:
    """The end of a run (locked), all in one transaction: status, account, claim. totals: of its plan, if it has one.

    sweep_at: when its staging may go (seconds since the epoch).
    """
    values: dict[str, Any] = {"sweep_at": sweep_at}
    if published:
        values["published"] = run.published or now
    if totals is not None:
        values |= vars(totals.counts) | {"splits": totals.splits, "splits_done": totals.splits_done}
        values |= {"bytes": totals.bytes, "bytes_done": totals.bytes_done}
    actor = run.stop_actor or ""
    ended = change_status(tx, run, status, reason=reason, detail=detail, actor=actor, values=values, now=now)
    release_claim(tx, run.id, now)
    tx.wake(RELEASE, PLAN, PLACE)
    return ended


def end_instance(
    tx: Tx,
    instance: InstanceRow,
    status: InstanceStatus,
    now: float,
    *,
    reason: Reason = Reason.NONE,
    detail: str = "",
    exit_code: int | None = None,
    fault: Fault | None = None,
) -> InstanceRow:
    """The end of an instance (locked). Its splits are released by the journal, its folder by the release loop."""
    values: dict[str, Any] = {"exit_code": exit_code, **_NOTHING_PENDING}
    if fault is not None:
        values["fault"] = vars(fault)
    tx.wake(RECONCILE, PLACE)
    return change_status(tx, instance, status, reason=reason, detail=detail, values=values, now=now)


_NOTHING_PENDING = {f"pending_{name}": 0 for name in COUNTS}


def new_instance(run: RunRow, index: int, attempt: int, now: float) -> dict[str, Any]:
    """The row of an instance that is about to be launched, but for its resources."""
    return {
        "id": ids.instance_id(run.id, index, attempt),
        "run": run.id,
        "task": run.task,
        "index": index,
        "attempt": attempt,
        **run.owner.values,
        "status": InstanceStatus.PENDING,
        "created": now,
    }


def locked_instance(tx: Tx, instance: InstanceId) -> InstanceRow:
    """The instance; nobody else changes it until the transaction ends. Raises NotFound."""
    row = get_instance(tx, instance, lock=True)
    if row is None:
        raise NotFound(f"no instance {instance!r}.", field="instance")
    return row


def task_of(tx: Tx, run: RunRow) -> TaskRow:
    """The run's task. Raises NotFound."""
    row = get_task(tx, run.task)
    if row is None:
        raise NotFound(f"no task {run.task!r}.", field="task")
    return row
