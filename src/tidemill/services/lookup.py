"""Finding what an actor may see. Another account's things answer like things that are not there."""

from __future__ import annotations

from tidemill.domain.errors import NotFound
from tidemill.domain.ids import TaskId
from tidemill.services.access import Actor
from tidemill.store.base import Tx
from tidemill.store.records import RunRow, TaskRow
from tidemill.store.runs import get_run
from tidemill.store.tasks import get_task


def own_task(tx: Tx, actor: Actor, task: TaskId, *, lock: bool = False) -> TaskRow:
    """Raises NotFound."""
    row = get_task(tx, task, lock=lock) if "\0" not in task else None
    if row is None or row.account != actor.account:
        raise NotFound(f"no task {task[:80]!r}.", field="task", remedy="`tidemill task list` shows those there are.")
    return row


def latest_run(tx: Tx, task: TaskRow) -> RunRow:
    """The run whose status is the task's."""
    run = get_run(tx, task.run)
    assert run is not None, "a task has a run from its first transaction on"
    return run
