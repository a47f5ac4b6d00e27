"""Rows of tasks, runs, instances and events as what the API answers. No decisions, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from tidemill.domain.ids import TaskId, run_id
from tidemill.domain.life import FINAL, InstanceStatus, Reason, TaskStatus, explain
from tidemill.domain.tuning import shown as shown_tuning
from tidemill.store.records import EventRow, InstanceRow, Owner, RunRow, TaskRow
from tidemill.wire.taskfile import TaskFile, parse_task
from tidemill.wire.views import (
    CountsView,
    EnvironmentView,
    EventView,
    InstanceView,
    ProgressView,
    RunView,
    SecondsView,
    TaskSummary,
    TaskView,
)
from tidemill_runtime.contract import Counts

Phase = Literal[
    "planning", "queued", "installing", "starting", "loading", "predicting", "publishing", "stopping", "finished"
]


def task_summary(task: TaskRow, counts: Counts | None = None) -> TaskSummary:
    """counts: newer ones than the row's, where they are known."""
    return TaskSummary.model_validate(_summary(task, counts))


def task_view(
    task: TaskRow, run: RunRow, instances: Sequence[InstanceRow], counts: Counts, note: str, now: float
) -> TaskView:
    """run: the latest. instances: of that run. counts: of committed work. note: of its plan. now in seconds since the
    epoch.
    """
    shown = run_view(run, now)
    return TaskView.model_validate(
        {
            **_summary(task, counts),
            "description": task.description,
            "spec": spec_of(task, run),
            "run": shown,
            "runs": task.runs,
            "model_kind": (run.checked or {}).get("kind"),
            "note": note,
            "model_version": task.model_version,
            "model_digest": task.model_digest,
            "code_digest": task.code_digest,
            "seconds": shown.seconds,
            "tuning": shown_tuning(next((each.tuning for each in reversed(instances) if each.tuning), {})),
            "deadline_at": utc(run.deadline),
            "created_by": task.actor,
        }
    )


def new_task_view(
    task: TaskId,
    owner: Owner,
    spec: TaskFile,
    columns: Mapping[str, Any],
    now: float,
    deadline: float | None,
    kind: str,
) -> TaskView:
    """A task that was created just now, without asking the database for it. columns: of its row. kind: of its
    model.
    """
    created = datetime.fromtimestamp(now, UTC)
    run = RunView(id=run_id(task, 1), number=1, status=TaskStatus.INIT, instances=spec.instances, created_at=created)
    return TaskView(
        id=task,
        name=spec.name,
        region=owner.region,
        status=TaskStatus.INIT,
        model=columns["model"],
        output=columns["output"],
        instances=spec.instances,
        priority=spec.priority,
        tags=spec.tags,
        created_at=created,
        updated_at=created,
        description=spec.description,
        spec=spec,
        run=run,
        model_kind=kind,
        model_version=columns["model_version"],
        model_digest=columns["model_digest"],
        code_digest=columns["code_digest"],
        deadline_at=utc(deadline),
        created_by=owner.actor,
    )


def spec_of(task: TaskRow, run: RunRow) -> TaskFile:
    """The task file as this run takes it."""
    return parse_task(run.spec or task.spec)


def _summary(task: TaskRow, counts: Counts | None) -> dict[str, Any]:
    counted = counts or task.counts
    return {
        "id": task.id,
        "name": task.name,
        "region": task.region,
        "status": task.status,
        "reason": task.reason,
        "explanation": explain(task.reason, task.detail),
        "warning": warning_of(task.status, counted),
        "model": task.model,
        "output": task.output,
        "instances": task.instances,
        "priority": task.priority,
        "counts": counts_view(counted),
        "tags": task.tags,
        "created_at": utc(task.created),
        "updated_at": utc(task.updated),
        "started_at": utc(task.started),
        "ended_at": utc(task.ended),
    }


def warning_of(status: TaskStatus, counts: Counts) -> str | None:
    """What is to be said although the status is good."""
    if status is not TaskStatus.SUCCEED or not counts.failed:
        return None
    records = "1 record" if counts.failed == 1 else f"{counts.failed:,} records"
    return f"{records} of {counts.inputs:,} failed; errors.jsonl in the output folder says which and why."


def run_view(run: RunRow, now: float) -> RunView:
    return RunView.model_validate(
        {
            "id": run.id,
            "number": run.number,
            "status": run.status,
            "reason": run.reason,
            "detail": run.detail,
            "explanation": explain(run.reason, run.detail),
            "instances": run.instances,
            "cpu_millicores": run.millicores,
            "memory_bytes": run.memory_bytes,
            "created_at": utc(run.created),
            "started_at": utc(run.placed),
            "running_at": utc(run.running),
            "ended_at": utc(run.ended),
            "environment": _environment_view(run),
            "seconds": seconds_view(run, now),
        }
    )


def seconds_view(run: RunRow, now: float) -> SecondsView:
    """Where the run's time went: each phase ends where the next begins; one that has begun counts up to now."""
    end = run.ended if run.ended is not None else max(now, run.created)
    marks = [run.created, run.placed, run.first_report, run.running, run.computed, end]
    spent = []
    for index, begun in enumerate(marks[:-1]):
        following = next((mark for mark in marks[index + 1 :] if mark is not None), end)
        spent.append(0.0 if begun is None else round(max(0.0, following - begun), 3))
    installing = min(spent[1], _installing_s(run, end))
    return SecondsView(
        queue=spent[0],
        environment=round(installing, 3),
        start=round(spent[1] - installing, 3),
        load=spent[2],
        predict=spent[3],
        publish=spent[4],
        total=round(end - run.created, 3),
    )


def _installing_s(run: RunRow, end: float) -> float:
    """What of the time from the placing on went into the model's requirements."""
    noted = run.requirements
    if noted is None or run.placed is None:
        return 0.0
    return max(0.0, (end if noted.ready is None else noted.ready) - max(noted.asked, run.placed))


def _environment_view(run: RunRow) -> EnvironmentView | None:
    noted = run.requirements
    if noted is None:
        return None
    return EnvironmentView(digest=noted.digest, ready_at=utc(noted.ready), packages=noted.packages)


def phase_of(run: RunRow, instances: Sequence[InstanceRow]) -> Phase:
    """What a run is doing, finer than its status."""
    if run.status in FINAL:
        return "finished"
    if run.status is TaskStatus.STOPPING:
        return "stopping"
    if run.computed is not None:
        return "publishing"
    if run.running is not None:
        return "predicting"
    if run.reason is Reason.INSTALLING:
        return "installing"
    if run.placed is not None:
        return "loading" if any(each.first_report is not None for each in instances) else "starting"
    return "queued" if run.planned is not None else "planning"


@dataclass(frozen=True)
class Standing:
    """How far a run's plan is, in committed work. splits, bytes: of all of it, None before there is a plan."""

    counts: Counts
    splits_done: int
    bytes_done: int
    splits: int | None
    bytes: int | None


def progress_view(
    task: TaskRow, run: RunRow, instances: Sequence[InstanceRow], standing: Standing, now: float
) -> ProgressView:
    """instances: of the run."""
    counts, size, bytes_done = standing.counts, standing.bytes, standing.bytes_done
    living = [each for each in instances if each.ended is None]
    pending = sum((each.pending for each in living), Counts())
    seconds = seconds_view(run, now)
    rate = eta = None
    if seconds.predict > 0 and counts.inputs + pending.inputs:
        rate = round((counts.inputs + pending.inputs) / seconds.predict, 3)
    if seconds.predict > 0 and run.computed is None and run.status is TaskStatus.RUNNING and size and bytes_done:
        eta = round(max(0.0, seconds.predict * (size - bytes_done) / bytes_done), 1)
    return ProgressView(
        task=task.id,
        run=run.id,
        status=run.status,
        phase=phase_of(run, instances),
        reason=run.reason,
        explanation=explain(run.reason, run.detail),
        warning=warning_of(run.status, counts),
        counts=counts_view(counts),
        pending=counts_view(pending),
        splits_total=standing.splits,
        splits_done=standing.splits_done,
        bytes_total=size,
        bytes_done=bytes_done,
        records_per_s=rate,
        eta_s=eta,
        instances=run.instances,
        instances_running=sum(each.status is InstanceStatus.RUNNING for each in living),
        seconds=seconds,
    )


def instance_view(row: InstanceRow) -> InstanceView:
    return InstanceView.model_validate(
        {
            "id": row.id,
            "run": row.run,
            "index": row.index,
            "attempt": row.attempt,
            "status": row.status,
            "reason": row.reason,
            "explanation": explain(row.reason, row.detail),
            "exit_code": row.exit_code,
            "memory_bytes": row.memory_bytes,
            "created_at": utc(row.created),
            "running_at": utc(row.running),
            "ended_at": utc(row.ended),
            "reported_at": utc(row.reported),
        }
    )


def event_view(row: EventRow) -> EventView:
    return EventView(
        id=row.id,
        at=datetime.fromtimestamp(row.at, UTC),
        kind=cast("Literal['task', 'run', 'instance']", row.kind),
        subject=row.subject,
        type=cast("Literal['Normal', 'Warning']", row.type),
        name=row.name,
        message=row.message,
        status=row.status,
        reason=row.reason,
        actor=row.actor,
    )


def counts_view(counts: Counts) -> CountsView:
    return CountsView(inputs=counts.inputs, ok=counts.ok, failed=counts.failed, skipped=counts.skipped)


def utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
