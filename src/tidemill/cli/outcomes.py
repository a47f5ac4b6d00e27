"""`tidemill task …` about what came of a task: logs, events, instances, results, errors, receipt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.commands import Call, command
from tidemill.cli.ending import place_of
from tidemill.cli.objects import file_below
from tidemill.cli.output import counted, printable
from tidemill.cli.task_app import Limit, Task, app, task_id
from tidemill.cli.times import ago, local
from tidemill.wire.quantities import format_bytes

if TYPE_CHECKING:
    from tidemill.wire.views import ErrorGroupView


@command(app, "logs")
def logs(
    call: Call,
    task: Task,
    instance: Annotated[str | None, typer.Option("--instance", metavar="ID", help="Default: the newest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the instance has ended.")] = False,
) -> None:
    """What the instances printed."""
    pieces = []
    for piece in call.client.tasks.logs(task_id(call, task), instance=instance, follow=follow):
        pieces.append(piece)
        call.out.text(piece.text)
    if not pieces:
        call.out.note("Its instances have printed nothing.")
    call.out.document({"instance": pieces[0].instance if pieces else None, "text": "".join(p.text for p in pieces)})


@command(app, "events")
def events(call: Call, task: Task) -> None:
    """What happened to a task, oldest first."""
    found_id = task_id(call, task)
    found = list(call.client.tasks.events(found_id))
    call.out.document([event.model_dump(mode="json") for event in found])
    rows = [
        (
            local(e.at),
            e.type,
            e.subject.removeprefix(f"{found_id}-").replace(found_id, "task"),
            e.status or e.name,
            printable(e.message),
        )
        for e in found
    ]
    call.out.table(["AT", "TYPE", "OF", "EVENT", "MESSAGE"], rows, empty="Nothing has happened yet.")


@command(app, "instances")
def instances(call: Call, task: Task) -> None:
    """The instances of a task, also those that have ended."""
    found = list(call.client.tasks.instances(task_id(call, task)))
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
    found_id = task_id(call, task)
    found = list(call.client.tasks.results(found_id))
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
        for line in call.client.tasks.preview(found_id, lines=preview).lines:
            call.out.line(printable(line))
    if fetch:
        folder = Path(fetch)
        for result in found:
            call.client.tasks.download(found_id, result.name, file_below(folder, result.name))
        call.out.note(f"Downloaded {counted(len(found), 'object')} to {folder}")


@command(app, "errors")
def errors(
    call: Call,
    task: Task,
    every: Annotated[bool, typer.Option("--all", help="Each failed record, not only one of each cause.")] = False,
    limit: Limit = 100,
) -> None:
    """The records that failed, grouped by cause: where each is, why, and what the record was."""
    found_id = task_id(call, task)
    if every:
        found = list(call.client.tasks.errors(found_id, limit=limit))
        call.out.document([error.model_dump(mode="json") for error in found])
        rows = [
            (place_of(e.model_dump()), e.fault, e.type, printable(e.message), printable((e.input or "")[:60]))
            for e in found
        ]
        call.out.table(["RECORD", "FAULT", "TYPE", "MESSAGE", "INPUT"], rows, empty="No record failed.")
        return
    groups = list(call.client.tasks.error_groups(found_id))
    call.out.document([group.model_dump(mode="json") for group in groups])
    if not groups:
        call.out.note("No record failed.")
    for group in groups:
        _show_group(call, group)
    if any(group.count > 1 for group in groups):
        call.out.note(f"Each of them: tidemill task errors {task} --all; with all that is known: add --json.")


@command(app, "receipt")
def receipt(call: Call, task: Task) -> None:
    """The account of a finished task: every record, every digest."""
    view = call.client.tasks.receipt(task_id(call, task))
    call.out.document(view.model_dump(mode="json"))
    call.out.line(json.dumps(view.model_dump(mode="json"), indent=2, ensure_ascii=False))


def _show_group(call: Call, group: ErrorGroupView) -> None:
    example = group.example
    call.out.line(f"{group.count:,} × {group.fault}: {group.type}: {printable(group.message)}")
    call.out.line(f"  for example {place_of(example.model_dump())}")
    if example.input is not None:
        call.out.line(f"  record      {printable(example.input[:200])}{' …' if len(example.input) > 200 else ''}")
    for line in example.traceback.strip().splitlines()[-6:]:
        call.out.line(f"  {printable(line)}")
    call.out.line()
