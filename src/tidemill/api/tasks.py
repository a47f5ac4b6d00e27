"""Tasks over HTTP: create, find, follow, stop, resume, delete; results, errors, receipt, logs, events."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from tidemill.api.common import Asking, Cursor, Limit, Served, answer, problems
from tidemill.api.streams import download, watch_events
from tidemill.domain.ids import TaskId
from tidemill.domain.life import TaskStatus
from tidemill.services.queries import TaskQuery
from tidemill.wire.requests import ResumeRequest
from tidemill.wire.taskfile import TaskFile
from tidemill.wire.views import (
    DeletedView,
    ErrorGroupView,
    ErrorView,
    EventView,
    InstanceView,
    LogView,
    Page,
    PreviewView,
    ProgressView,
    ReceiptView,
    ResultObjectView,
    RunView,
    TaskSummary,
    TaskView,
)

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key with the same body gives the same task, however often it is sent.",
    ),
]
Name = Annotated[str, Query(max_length=4096, description="Name of the result object, as in the list of results.")]


@router.post("", status_code=201, response_model=TaskView, responses=problems(400, 403, 409, 413))
def create_task(served: Served, actor: Asking, task: TaskFile, idempotency_key: Key = None) -> Response:
    """Creates a task, once everything about it that can be known is checked: names, model, input, output, resources."""
    made = served.tasks.create(actor, task, idempotency_key)
    return answer(made, 201, {"Location": f"/api/v1/tasks/{made.id}"})


@router.get("", response_model=Page[TaskSummary], responses=problems())
def list_tasks(
    served: Served,
    actor: Asking,
    name: Annotated[str | None, Query(max_length=60, description="Exactly this name.")] = None,
    name_contains: Annotated[
        str | None,
        Query(
            max_length=60,
            description="A part of the name. No index helps: all tasks that the other filters leave are read.",
        ),
    ] = None,
    status: Annotated[list[TaskStatus] | None, Query(description="Any of these.")] = None,
    model: Annotated[str | None, Query(max_length=80, description="`churn` or `churn@2`.")] = None,
    region: Annotated[str | None, Query(max_length=64)] = None,
    tag: Annotated[list[str] | None, Query(max_length=20, description="`key:value` or `key`; all must match.")] = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    order_by: Literal["created", "updated"] = "created",
    order: Literal["asc", "desc"] = "desc",
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Tasks that match all filters, newest first, with their number."""
    query = TaskQuery(
        name=name,
        name_contains=name_contains,
        statuses=tuple(status or ()),
        model=model,
        region=served.region(region),
        tags=tuple(tag or ()),
        created_after=created_after,
        created_before=created_before,
        order_by=order_by,
        descending=order == "desc",
    )
    return answer(served.tasks.list(actor, query, limit, cursor))


@router.get("/{task}", response_model=TaskView, responses=problems(404))
def get_task(served: Served, actor: Asking, task: str) -> Response:
    """All about one task."""
    return answer(served.tasks.get(actor, TaskId(task)))


@router.delete("/{task}", responses=problems(404, 409))
def delete_task(served: Served, actor: Asking, task: str) -> DeletedView:
    """Removes a task that has ended, with its history, logs and staged parts. Results in the output folder stay."""
    return served.tasks.delete(actor, TaskId(task))


@router.post("/{task}/stop", responses=problems(404, 409))
def stop_task(served: Served, actor: Asking, task: str) -> TaskView:
    """Stops a task, keeping what is committed. Stopping one that is stopping or stopped already is no error."""
    return served.tasks.stop(actor, TaskId(task))


@router.post("/{task}/resume", responses=problems(400, 404, 409))
def resume_task(served: Served, actor: Asking, task: str, change: ResumeRequest | None = None) -> TaskView:
    """Starts a new run of a stopped or failed task that computes the missing splits only."""
    return served.tasks.resume(actor, TaskId(task), change or ResumeRequest())


@router.get("/{task}/progress", responses=problems(404))
def get_progress(served: Served, actor: Asking, task: str) -> ProgressView:
    """Where the task is now."""
    return served.tasks.progress(actor, TaskId(task))


@router.get(
    "/{task}/watch",
    responses={**problems(404), 200: {"content": {"text/event-stream": {}}}},
    response_class=StreamingResponse,
)
async def watch_task(
    request: Request,
    served: Served,
    actor: Asking,
    task: str,
    last_event_id: Annotated[str | None, Header(max_length=40, description="Where to go on after a break.")] = None,
) -> StreamingResponse:
    """Server-sent events until the task has ended: `event` (an EventView), `progress` (a ProgressView) whenever it
    changes, and last `end` (the final ProgressView). The id of each is that of the newest event, so that nothing is
    missed or told twice.
    """
    return await watch_events(request, served, actor, TaskId(task), last_event_id)


@router.get("/{task}/runs", responses=problems(404))
def list_runs(served: Served, actor: Asking, task: str) -> Page[RunView]:
    """The task's runs, newest first."""
    return served.tasks.runs(actor, TaskId(task))


@router.get("/{task}/instances", responses=problems(404))
def list_instances(
    served: Served,
    actor: Asking,
    task: str,
    run: Annotated[str | None, Query(max_length=80, description="Only of this run; all runs, if not given.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[InstanceView]:
    """The task's instances, also those that have ended."""
    return served.tasks.instances(actor, TaskId(task), run, limit, cursor)


@router.get("/{task}/events", responses=problems(404))
def list_events(
    served: Served,
    actor: Asking,
    task: str,
    after: Annotated[int, Query(ge=0, le=2**62, description="Only events with a greater id.")] = 0,
    limit: Limit = 100,
) -> Page[EventView]:
    """What happened, oldest first. `next_cursor` is the `after` of the next page."""
    return served.tasks.events(actor, TaskId(task), after, limit)


@router.get("/{task}/logs", responses=problems(404))
def get_logs(
    served: Served,
    actor: Asking,
    task: str,
    instance: Annotated[str | None, Query(max_length=80, description="The newest one, if not given.")] = None,
    offset: Annotated[int, Query(ge=-(2**62), le=2**62, description="Byte to begin at; negative: from the end.")] = 0,
    limit_bytes: Annotated[int, Query(ge=1, le=4 * 1024 * 1024)] = 256 * 1024,
) -> LogView:
    """What an instance printed. Ask again from `next_offset` until `ended`."""
    return served.tasks.logs(actor, TaskId(task), instance, offset, limit_bytes)


@router.get("/{task}/results", responses=problems(404, 409))
def list_results(
    served: Served, actor: Asking, task: str, limit: Limit = 100, cursor: Cursor = None
) -> Page[ResultObjectView]:
    """The objects that the task has put into its output folder so far, in input order."""
    return served.results.list(actor, TaskId(task), limit, cursor)


@router.get("/{task}/results/preview", responses=problems(404, 409))
def preview_result(
    served: Served,
    actor: Asking,
    task: str,
    name: Annotated[str | None, Query(max_length=4096, description="The first one, if not given.")] = None,
    lines: Annotated[int, Query(ge=1, le=1000)] = 10,
) -> PreviewView:
    """The first lines of a result object."""
    return served.results.preview(actor, TaskId(task), name, lines)


@router.get(
    "/{task}/results/content",
    responses={**problems(404, 409), 200: {"content": {"application/octet-stream": {}}}},
    response_class=StreamingResponse,
)
def download_result(request: Request, served: Served, actor: Asking, task: str, name: Name) -> Response:
    """One result object, whole or a range of it (`Range: bytes=0-99`)."""
    return download(request, served.results.open(actor, TaskId(task), name))


@router.get("/{task}/errors", responses=problems(404))
def list_errors(
    served: Served,
    actor: Asking,
    task: str,
    fingerprint: Annotated[str | None, Query(max_length=64, description="Only those of one group.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[ErrorView]:
    """The records that failed, in input order."""
    return served.results.errors(actor, TaskId(task), fingerprint, limit, cursor)


@router.get("/{task}/errors/groups", responses=problems(404))
def group_errors(served: Served, actor: Asking, task: str) -> Page[ErrorGroupView]:
    """The records that failed, grouped by cause, the most frequent first."""
    return served.results.error_groups(actor, TaskId(task))


@router.get("/{task}/receipt", responses=problems(404, 409))
def get_receipt(served: Served, actor: Asking, task: str) -> ReceiptView:
    """The account of a finished task."""
    return served.results.receipt(actor, TaskId(task))
