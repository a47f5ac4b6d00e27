"""`tidemill task …`: tasks on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.commands import Call, command, option, task_parameters
from tidemill.cli.ending import Ending, failed_records, place_of, tell
from tidemill.cli.options import FLAG_NAMES, TASK_OPTIONS, TaskOption, task_values
from tidemill.cli.output import EXIT_INTERRUPTED, EXIT_OK, printable
from tidemill.cli.progress import make_progress
from tidemill.cli.times import ago, local
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.wire.quantities import format_bytes, format_seconds
from tidemill.wire.taskyaml import read_task

if TYPE_CHECKING:
    from tidemill.wire.views import ErrorGroupView, TaskSummary, TaskView

app = typer.Typer(
    no_args_is_help=True, help="Tasks on a server: create, list, show, watch, logs, stop, resume, results."
)

Task = Annotated[str, typer.Argument(metavar="TASK", help="Its id, or its name: then the newest of that name.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress until it has ended; exit status as of `run`.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most rows.")]

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
        (task.id, task.name, _status(task), task.counts.inputs, task.counts.failed, ago(task.created_at))
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
    view = call.client.tasks.get(_id(call, task))
    call.out.document(view.model_dump(mode="json"))
    counts = view.counts
    call.out.pairs(
        [
            ("task", f"{view.name}  {view.id}"),
            ("status", _status(view)),
            ("reason", view.explanation),
            ("description", view.description),
            ("model", view.model),
            ("input", view.spec.input.path),
            ("output", view.output),
            (
                "records",
                f"{counts.inputs:,} = {counts.ok:,} ok + {counts.failed:,} failed + {counts.skipped:,} skipped",
            ),
            ("time", _phases(view.seconds.model_dump())),
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
    return _follow(call, _id(call, task))


@command(app, "stop")
def stop(call: Call, task: Task, wait: Wait = False) -> int:
    """Stop a task, keeping what is committed."""
    view = call.client.tasks.stop(_id(call, task))
    if wait:
        _follow(call, view.id)
        return EXIT_OK
    call.out.document(view.model_dump(mode="json"))
    call.out.line(f"{view.id}  {view.status}")
    call.out.note(f"To go on with it: tidemill task resume {view.id}")
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
    view = call.client.tasks.resume(_id(call, task), values)
    if wait:
        return _follow(call, view.id)
    call.out.document(view.model_dump(mode="json"))
    call.out.line(f"{view.id}  {view.status}")
    return EXIT_OK


@command(app, "delete")
def delete(call: Call, task: Task, yes: Yes = False) -> None:
    """Delete a task that has ended: history, logs, staged parts. Results in the output folder stay."""
    task_id = _id(call, task)
    call.confirm(f"Delete task {task} with its history and logs? Results stay.", yes)
    gone = call.client.tasks.delete(task_id)
    call.out.document(gone.model_dump(mode="json"))
    call.out.line(f"Deleted {gone.id}: {', '.join(gone.removed)}.")


@command(app, "logs")
def logs(
    call: Call,
    task: Task,
    instance: Annotated[str | None, typer.Option("--instance", metavar="ID", help="Default: the newest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the instance has ended.")] = False,
) -> None:
    """What the instances printed."""
    pieces = []
    for piece in call.client.tasks.logs(_id(call, task), instance=instance, follow=follow):
        pieces.append(piece)
        call.out.text(piece.text)
    call.out.document({"instance": pieces[0].instance if pieces else None, "text": "".join(p.text for p in pieces)})


@command(app, "events")
def events(call: Call, task: Task) -> None:
    """What happened to a task, oldest first."""
    found = list(call.client.tasks.events(_id(call, task)))
    call.out.document([event.model_dump(mode="json") for event in found])
    rows = [(local(e.at), e.type, e.subject, e.status or e.name, printable(e.message)) for e in found]
    call.out.table(["AT", "TYPE", "OF", "EVENT", "MESSAGE"], rows, empty="Nothing has happened yet.")


@command(app, "instances")
def instances(call: Call, task: Task) -> None:
    """The instances of a task, also those that have ended."""
    found = list(call.client.tasks.instances(_id(call, task)))
    call.out.document([instance.model_dump(mode="json") for instance in found])
    rows = [
        (i.id, i.status, format_bytes(i.memory_bytes), ago(i.created_at), ago(i.ended_at), printable(i.explanation))
        for i in found
    ]
    call.out.table(["ID", "STATUS", "MEMORY", "STARTED", "ENDED", ""], rows, empty="None were started yet.")


@command(app, "results")
def results(
    call: Call,
    task: Task,
    fetch: Annotated[str | None, typer.Option("--fetch", metavar="FOLDER", help="Download all of it there.")] = None,
    preview: Annotated[int, typer.Option("--preview", metavar="N", min=0, help="Show the first N lines.")] = 0,
) -> None:
    r"""The objects in the output folder, in input order.

    \b
    tidemill task results churn-july --fetch ./scores/
    """
    task_id = _id(call, task)
    found = list(call.client.tasks.results(task_id))
    call.out.document([result.model_dump(mode="json") for result in found])
    rows = [
        (
            r.name,
            r.kind,
            format_bytes(r.size_bytes),
            r.counts.ok if r.counts else "",
            r.counts.failed if r.counts else "",
        )
        for r in found
    ]
    call.out.table(["OBJECT", "KIND", "SIZE", "OK", "FAILED"], rows, empty="No results yet.")
    if preview and found:
        for line in call.client.tasks.preview(task_id, lines=preview).lines:
            call.out.line(printable(line))
    if fetch:
        folder = Path(fetch)
        for result in found:
            file = folder.joinpath(*result.name.split("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            call.client.tasks.download(task_id, result.name, file)
        call.out.note(f"Downloaded {len(found):,} objects to {folder}")


@command(app, "errors")
def errors(
    call: Call,
    task: Task,
    every: Annotated[bool, typer.Option("--all", help="Each failed record, not only one of each cause.")] = False,
    limit: Limit = 100,
) -> None:
    """The records that failed, grouped by cause: where each is, why, and what the record was."""
    task_id = _id(call, task)
    if every:
        found = list(call.client.tasks.errors(task_id, limit=limit))
        call.out.document([error.model_dump(mode="json") for error in found])
        rows = [
            (place_of(e.model_dump()), e.fault, e.type, printable(e.message), printable((e.input or "")[:60]))
            for e in found
        ]
        call.out.table(["RECORD", "FAULT", "TYPE", "MESSAGE", "INPUT"], rows, empty="No record failed.")
        return
    groups = list(call.client.tasks.error_groups(task_id))
    call.out.document([group.model_dump(mode="json") for group in groups])
    if not groups:
        call.out.note("No record failed.")
    for group in groups:
        _show_group(call, group)


@command(app, "receipt")
def receipt(call: Call, task: Task) -> None:
    """The account of a finished task: every record, every digest."""
    import json

    view = call.client.tasks.receipt(_id(call, task))
    call.out.document(view.model_dump(mode="json"))
    call.out.line(json.dumps(view.model_dump(mode="json"), indent=2, ensure_ascii=False))


def _id(call: Call, task: str) -> str:
    """The id of a task that is named by its id or its name. Raises NotFound."""
    if task.startswith("batch-"):
        return task
    page = call.client.tasks.list(name=task, limit=1)
    if not page.items:
        raise NotFound(f"no task is called {task!r}.", field="TASK", remedy="See `tidemill task list`.")
    found: str = page.items[0].id
    return found


def _follow(call: Call, task_id: str) -> int:
    """Progress until the end, then what came of it; the exit status of that."""
    try:
        with make_progress(quiet=call.out.quiet) as progress:
            for view in call.client.tasks.watch(task_id):
                progress.update(view)
    except KeyboardInterrupt:
        call.out.note(
            f"The task goes on. Watch it: tidemill task watch {task_id}; stop it: tidemill task stop {task_id}"
        )
        return EXIT_INTERRUPTED
    ended = call.client.tasks.get(task_id)
    failures = (each.model_dump(mode="json") for each in call.client.tasks.errors(task_id))
    status = tell(call.out, ending_of(ended), failures)
    if ended.status in ("STOPPED", "FAILED"):
        call.out.note(f"What was committed is kept. To go on: tidemill task resume {task_id}")
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
    )


def _status(task: TaskSummary) -> str:
    """The status, and loudly that records failed although it is good."""
    if task.status == "SUCCEED" and task.counts.failed:
        return f"SUCCEED WITH {failed_records(task.counts.failed).upper()}"
    return str(task.status)


def _phases(seconds: dict[str, float]) -> str:
    spent = ", ".join(f"{name} {format_seconds(value)}" for name, value in seconds.items() if value and name != "total")
    return f"{format_seconds(seconds['total'])} ({spent})" if spent else ""


def _show_group(call: Call, group: ErrorGroupView) -> None:
    example = group.example
    call.out.line(f"{group.count:,} × {group.fault}: {group.type}: {printable(group.message)}")
    call.out.line(f"  for example {place_of(example.model_dump())}")
    if example.input is not None:
        call.out.line(f"  record      {printable(example.input[:200])}{' …' if len(example.input) > 200 else ''}")
    for line in example.traceback.strip().splitlines()[-6:]:
        call.out.line(f"  {printable(line)}")
    call.out.line()
