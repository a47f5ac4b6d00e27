"""What the commands of `tidemill task` share: the group itself, and how a task is named."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli.commands import Call, HelpfulGroup
from tidemill.domain.errors import NotFound

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
