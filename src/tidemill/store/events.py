"""The events of tasks: append-only, written in the transaction of what they tell of. Read by `services.events`."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from tidemill.domain.ids import TaskId
from tidemill.store.base import Tx
from tidemill.store.records import EventRow, Owner, columns, record
from tidemill.store.tables import events

_INSERT = events.insert()


def add_event(
    tx: Tx,
    owner: Owner,
    task: TaskId,
    *,
    kind: str,
    subject: str,
    name: str,
    message: str,
    now: float,
    warning: bool = False,
    status: str | None = None,
    reason: str = "",
) -> None:
    """kind: "task" | "run" | "instance". name: stable, like "run.status"."""
    tx.execute(
        _INSERT,
        {
            **owner.values,
            "task": task,
            "at": now,
            "kind": kind,
            "subject": subject,
            "type": "Warning" if warning else "Normal",
            "name": name,
            "message": message,
            "status": status,
            "reason": reason,
        },
    )


def message_of(tx: Tx, task: TaskId, subject: str, names: Sequence[str]) -> str:
    """The message of the newest event of one of these names about a subject; empty where there is none."""
    wanted = (events.c.task == task, events.c.subject == subject, events.c.name.in_(names))
    query = sa.select(events.c.message).where(*wanted).order_by(events.c.id.desc()).limit(1)
    return tx.execute(query).scalar_one_or_none() or ""


def list_events(
    tx: Tx, task: TaskId, *, after: int = 0, limit: int = 100, newest_first: bool = False
) -> list[EventRow]:
    """Events of a task with ids above `after` (newest_first: below it, or from the end where it is 0)."""
    query = sa.select(*columns(EventRow, events)).where(events.c.task == task).limit(limit)
    if newest_first:
        query = query.order_by(events.c.id.desc())
        if after:
            query = query.where(events.c.id < after)
    else:
        query = query.where(events.c.id > after).order_by(events.c.id)
    return [record(EventRow, row) for row in tx.execute(query)]
