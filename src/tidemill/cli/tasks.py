"""`tidemill task …` for the life of a task: create, list, show, watch, stop, resume, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.commands import Call, command, option, task_parameters
from tidemill.cli.ending import Ending, Failures, failed_records, tell
from tidemill.cli.options import FLAG_NAMES, TASK_OPTIONS, TaskOption, task_values
from tidemill.cli.output import EXIT_INTERRUPTED, EXIT_OK
from tidemill.cli.progress import make_progress
from tidemill.cli.task_app import Limit, Task, app, task_id
from tidemill.cli.times import ago, local
from tidemill.domain.errors import InvalidValue
from tidemill.domain.tuning import sentences
from tidemill.wire.quantities import format_seconds
from tidemill.wire.taskyaml import read_task

if TYPE_CHECKING:
    from tidemill.wire.views import TaskSummary, TaskView

Wait = Annotated[bool, typer.Option("--wait", help="Show progress until it has ended; exit status as of `run`.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_FILE = option(
    "file", str | None, "--file", "-f", help="The task file; flags go over it. - is standard input.", metavar="FILE"
)
_RESUMED = (
    "instances",
    "cpu",
    "memory",
    "tolerance",
    "deadline",
    "record_timeout",
    "retries",
    "priority",
    "batch_size",
)
_RESUME_OPTIONS: list[TaskOption] = [each for each in TASK_OPTIONS if each.parameter in _RESUMED]


@command(app, "create", more=[_FILE, *task_parameters()])
def create(call: Call, wait: Wait = False, **given: Any) -> int:
    r"""Create a task from a file, from flags, or both. A local model folder is uploaded.

    \b
    tidemill task create -f task.yaml --wait
    tidemill task create --model churn@2 --input cos://data/in/ --output cos://data/out/
    """
    values = task_values(given)
    if given["file"] is None and not values:
        raise InvalidValue("no task is given.", remedy="Give -f FILE, or --model, --input and --output.")
    wanted = read_task(given["file"], values, flag_names=FLAG_NAMES)
    made = call.client.tasks.create(wanted)
    if wait:
        call.out.note(f"Created {made.id} ({made.name}).")
        return _follow(call, made.id)
    call.out.document(made.model_dump(mode="json"))
    call.out.line(made.id)
    call.out.note(f"{made.name} is {made.status}. Watch it: tidemill task watch {made.id}")
    return EXIT_OK


@command(app, "list")
def list_(
    call: Call,
    status: Annotated[list[str] | None, typer.Option("--status", metavar="STATUS", help="Only these.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Only names with this in them.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY[:VALUE]", help="Only with this tag.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only of this model.")] = None,
    limit: Limit = 20,
) -> None:
    r"""Tasks, newest first.

    \b
    tidemill task list --status RUNNING --status FAILED
    """
    found: list[TaskSummary] = []
    total, cursor = 0, None
    while len(found) < limit:
        page = call.client.tasks.list(
            status=[each.upper() for each in status or []], name_contains=name, tag=tag or [], model=model,
            limit=min(limit - len(found), 1000), cursor=cursor,
        )  # fmt: skip
        found += page.items
        total, cursor = page.total or len(found), page.next_cursor
        if cursor is None:
            break
    call.out.document([task.model_dump(mode="json") for task in found])
    rows = [
        (task.id, task.name, _status(task, short=True), task.counts.inputs, task.counts.failed, ago(task.created_at))
        for task in found
    ]
    empty = (
        "No tasks yet. Create one: tidemill task create -f task.yaml"
        if not (status or name or tag or model)
        else "None."
    )
    call.out.table(["ID", "NAME", "STATUS", "RECORDS", "FAILED", "CREATED"], rows, empty=empty)
    if total > len(found):
        call.out.note(f"{len(found):,} of {total:,}. More with --limit.")


@command(app, "show")
def show(call: Call, task: Task) -> None:
    """All about a task: status and reason, records, time by phase, model, output."""
    view = call.client.tasks.get(task_id(call, task))
    call.out.document(view.model_dump(mode="json"))
    counts = view.counts
    call.out.pairs(
        [
            ("task", f"{view.name}  {view.id}"),
            ("status", _status(view)),
            ("reason", view.explanation),
            ("description", view.description),
            ("model", f"{view.model}  ({view.model_kind})" if view.model_kind else view.model),
            ("environment", _environment(view)),
            ("input", view.spec.input.path),
            ("note", view.note),
            ("output", view.output),
            (
                "records",
                f"{counts.inputs:,} = {counts.ok:,} ok + {counts.failed:,} failed + {counts.skipped:,} skipped",
            ),
            ("time", _phases(view.seconds.model_dump())),
            ("tuning", "\n".join(sentences(view.tuning))),
            ("instances", view.instances),
            ("runs", view.runs),
            ("priority", view.priority or None),
            ("tags", view.tags),
            (
                "created",
                f"{local(view.created_at)} by {view.created_by}" if view.created_by else local(view.created_at),
            ),
            ("ended", local(view.ended_at)),
        ]
    )
    if view.warning:
        call.out.warn(view.warning)


@command(app, "watch")
def watch(call: Call, task: Task) -> int:
    """Show progress until the task has ended. Exit status as of `run`. Ctrl-C ends the watching, not the task."""
    return _follow(call, task_id(call, task))


@command(app, "stop")
def stop(call: Call, task: Task, wait: Wait = False) -> int:
    """Stop a task, keeping what is committed."""
    view = call.client.tasks.stop(task_id(call, task))
    if wait:
        _follow(call, view.id)
        return EXIT_OK
    call.out.document(view.model_dump(mode="json"))
    call.out.line(view.id)
    stopping = "is stopped" if view.status == "STOPPED" else "is stopping"
    call.out.note(f"{view.name} {stopping}. To go on with it: tidemill task resume {view.id}")
    return EXIT_OK


@command(app, "resume", more=task_parameters(_RESUME_OPTIONS))
def resume(call: Call, task: Task, wait: Wait = False, **given: Any) -> int:
    r"""Go on with a stopped or failed task: compute what is missing.

    \b
    tidemill task resume churn-july --tolerance 5% --wait
    """
    values: dict[str, Any] = {}
    for key, value in task_values(given).items():
        section, _, last = key.rpartition(".")
        (values.setdefault(section, {}) if section else values)[last] = value
    view = call.client.tasks.resume(task_id(call, task), values)
    if wait:
        return _follow(call, view.id)
    call.out.document(view.model_dump(mode="json"))
    call.out.line(view.id)
    call.out.note(f"{view.name} is {view.status}. Watch it: tidemill task watch {view.id}")
    return EXIT_OK


@command(app, "delete")
def delete(call: Call, task: Task, yes: Yes = False) -> None:
    """Delete a task that has ended: history, logs, staged parts. Results in the output folder stay."""
    named = task_id(call, task)
    call.confirm(f"Delete task {task} with its history and logs? Results stay.", yes)
    gone = call.client.tasks.delete(named)
    call.out.document(gone.model_dump(mode="json"))
    call.out.line(f"Deleted {gone.id}: {', '.join(gone.removed)}.")


def _follow(call: Call, task: str) -> int:
    """Progress until the end, then what came of it; the exit status of that."""
    try:
        with make_progress(quiet=call.out.quiet) as progress:
            for view in call.client.tasks.watch(task):
                progress.update(view)
    except KeyboardInterrupt:
        call.out.note(f"The task goes on. Watch it: tidemill task watch {task}; stop it: tidemill task stop {task}")
        return EXIT_INTERRUPTED
    ended = call.client.tasks.get(task)
    groups = call.client.tasks.error_groups(task) if ended.counts.failed else ()
    failures = [Failures(each.count, each.example.model_dump(mode="json")) for each in groups]
    status = tell(call.out, ending_of(ended), failures)
    if ended.counts.failed:
        call.out.note(f"Which records failed, and why: tidemill task errors {task} (--all for each of them)")
    if ended.status in ("STOPPED", "FAILED"):
        call.out.note(f"What was committed is kept. To go on: tidemill task resume {task}")
    return status


def ending_of(view: TaskView) -> Ending:
    """The end of a task on a server."""
    return Ending(
        id=view.id,
        name=view.name,
        status=str(view.status),
        reason=str(view.reason),
        explanation=view.explanation,
        inputs=view.counts.inputs,
        ok=view.counts.ok,
        failed=view.counts.failed,
        skipped=view.counts.skipped,
        output=view.output,
        seconds=view.seconds.model_dump(),
        tuning=view.tuning,
        log=None if view.status == "SUCCEED" else f"tidemill task logs {view.id}",
    )


def _status(task: TaskSummary, *, short: bool = False) -> str:
    """The status, and loudly that records failed although it is good."""
    if task.status == "SUCCEED" and task.counts.failed:
        if short:
            return f"SUCCEED, {task.counts.failed:,} FAILED"
        return f"SUCCEED WITH {failed_records(task.counts.failed).upper()}"
    return str(task.status)


def _environment(task: TaskView) -> str | None:
    """What the model's requirements came to."""
    used = task.run.environment
    if used is None:
        return None
    if used.digest is None:
        return "the server's own Python, which satisfies the model's requirements"
    return f"{used.digest}  {len(used.packages)} packages"


def _phases(seconds: dict[str, float]) -> str:
    spent = ", ".join(f"{name} {format_seconds(value)}" for name, value in seconds.items() if value and name != "total")
    return f"{format_seconds(seconds['total'])} ({spent})" if spent else ""
