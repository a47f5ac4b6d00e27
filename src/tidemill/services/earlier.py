"""Which earlier results a task means by `only_new.since`: a folder, a task of the account, or the last one of a name
that succeeded. Used where tasks are made.
"""

from __future__ import annotations

from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.domain.ids import AccountId, RegionName, TaskId
from tidemill.domain.life import TaskStatus
from tidemill.domain.references import is_folder
from tidemill.planning.check import Checked
from tidemill.planning.only_new import FIELD
from tidemill.services.access import Actor
from tidemill.store.base import Tx
from tidemill.store.records import TaskRow
from tidemill.store.tasks import TaskFilter, get_task, list_tasks
from tidemill.wire.taskfile import TaskFile


def earlier_task(tx: Tx, actor: Actor, task: TaskFile) -> TaskRow | None:
    """The task whose results are meant; None where a folder is, or nothing. Another account's task is not there.

    Raises NotFound, InvalidValue or Conflict.
    """
    if task.only_new is None or is_folder(task.only_new.since):
        return None
    named = task.only_new.since
    row = get_task(tx, TaskId(named)) if "\0" not in named else None
    if row is None or row.account != actor.account:
        wanted = TaskFilter(statuses=(TaskStatus.SUCCEED,), name=named)
        found = list_tasks(tx, AccountId(actor.account), RegionName(task.region), wanted, limit=1)
        if not found:
            raise NotFound(
                f"no task is called {named[:80]!r} or has that id, and has succeeded in the region {task.region}.",
                field=FIELD,
                remedy="Give the id or name of a task that has succeeded, or a folder: cos://bucket/results/.",
            )
        return found[0]
    if row.region != task.region:
        raise InvalidValue(
            f"{named} ran in the region {row.region}.", field=FIELD, remedy="Give a task of the same region."
        )
    if row.status is not TaskStatus.SUCCEED:
        raise Conflict(
            f"{named} is {row.status}: it has no finished results.",
            field=FIELD,
            remedy="Wait for it or resume it, or give a task that has succeeded.",
        )
    return row


def at_folder_of(task: TaskFile, earlier: TaskRow | None) -> TaskFile:
    """The task with the folder of the earlier one's results in place of its id or name."""
    if task.only_new is None or earlier is None:
        return task
    return task.replace(only_new=task.only_new.replace(since=earlier.output))


def check_still_there(checked: Checked, earlier: TaskRow | None) -> None:
    """Raises Conflict where the folder of an earlier task holds others' results by now."""
    if earlier is not None and checked.since is not None and checked.since.task != earlier.id:
        raise Conflict(
            f"{checked.since.folder} holds the results of {checked.since.task} by now, not those of {earlier.id}.",
            field=FIELD,
            remedy=f"Name {checked.since.task}, if that is meant.",
        )
