"""What the commands of `tidemill task` share: the group itself, and how a task is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.commands import Call, HelpfulGroup
from tidemill.domain.errors import NotFound, ServerUnreachable

app = typer.Typer(
    cls=HelpfulGroup,
    no_args_is_help=True,
    help="Tasks on a server: create, list, show, watch, logs, stop, resume, results.",
)

Task = Annotated[str, typer.Argument(metavar="TASK", help="Its id, or its name: then the newest of that name.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most rows.")]


def task_id(call: Call, task: str) -> str:
    """The id of a task that is named by its id or its name. Raises NotFound."""
    if task.startswith("batch-"):
        return task
    page = call.client.tasks.list(name=task, limit=1)
    if not page.items:
        raise NotFound(f"no task is called {task!r}.", field="TASK", remedy="See `tidemill task list`.")
    found: str = page.items[0].id
    return found


def task_of(call: Call, named: str, field: str) -> str | None:
    """The id of the task that an argument `field` names; None where it names a folder or a file of storage.

    What is here, and what has a slash, is a place; anything else may be a task's id or name. Raises NotFound, naming
    both, if it is neither.
    """
    if "/" in named or Path(named).exists():
        return None
    try:
        return task_id(call, named)
    except NotFound:
        whose = "no task of this name"
    except ServerUnreachable:
        if named.startswith("batch-"):
            raise
        whose = "no server to ask for a task of this name"
    raise NotFound(
        f"there is no folder or file {named!r} here, and {whose}.",
        field=field,
        remedy="Give the output folder of a task, as a path or a cos:// address, or a task's id or name.",
    )
