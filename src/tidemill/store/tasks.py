"""Tasks: one by one, and lists of them by indexed fields with the total count. Used by `services`.

Counts come from `task_counts`, which each change keeps in step in its own transaction; only combinations that it does
not hold (a name, a span of time, several tags) are counted in their index.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tidemill.domain.ids import AccountId, RegionName, TaskId
from tidemill.domain.life import TaskStatus
from tidemill.store.base import Tx, insert_into
from tidemill.store.records import Owner, TaskRow, columns, record
from tidemill.store.tables import task_counts, task_tags, tasks

SORTS = ("created", "updated", "name")
_INSERT, _INSERT_TAG = tasks.insert(), task_tags.insert()


@dataclass(frozen=True)
class TaskFilter:
    """Everything given has to hold. name: whole; name_prefix: its beginning; name_part: anywhere in it. model: as it is
    shown (`churn@2`), or all versions of it (`churn`). tag_keys: tags with any value. Times in seconds, [from, until).
    """

    statuses: Sequence[TaskStatus] = ()
    name: str | None = None
    name_prefix: str | None = None
    name_part: str | None = None
    model: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    tag_keys: Sequence[str] = ()
    created_from: float | None = None
    created_until: float | None = None


def insert_task(tx: Tx, values: Mapping[str, Any]) -> None:
    """A task's row, its tags and its place in the counts. values: the columns, `status` among them."""
    tx.execute(_INSERT, dict(values))
    owned = {key: values[key] for key in ("account", "region", "actor", "created")}
    tags = [{"task": values["id"], "key": key, "value": text, **owned} for key, text in values["tags"].items()]
    if tags:
        tx.execute(_INSERT_TAG, tags)
    owner = Owner(values["account"], values["region"])
    count_tasks_by(tx, owner, values["tags"], {TaskStatus(values["status"]): 1})


def get_task(tx: Tx, task: TaskId, *, lock: bool = False) -> TaskRow | None:
    """lock: nobody else changes it until the transaction ends."""
    query = sa.select(*columns(TaskRow, tasks)).where(tasks.c.id == task)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else record(TaskRow, row)


def find_idempotent(tx: Tx, account: AccountId, region: RegionName, key: str) -> TaskRow | None:
    """The task that was created under this key."""
    row = tx.execute(
        sa.select(*columns(TaskRow, tasks)).where(
            tasks.c.account == account, tasks.c.region == region, tasks.c.idempotency_key == key
        )
    ).one_or_none()
    return None if row is None else record(TaskRow, row)


def list_tasks(
    tx: Tx,
    account: AccountId,
    region: RegionName,
    wanted: TaskFilter = TaskFilter(),
    *,
    sort: str = "created",
    descending: bool = True,
    after: tuple[Any, str] | None = None,
    limit: int = 20,
) -> list[TaskRow]:
    """A page. sort: one of SORTS. after: (value of the sort field, id) of the last task of the page before."""
    tagged = _tag_aliases(wanted)
    query = _filtered(sa.select(*columns(TaskRow, tasks)), account, region, wanted, tagged)
    by: sa.ColumnElement[Any] = tasks.c[sort]
    last: sa.ColumnElement[Any] = tasks.c.id
    if tagged and sort == "created":  # the index of tags has them in this order: nothing is sorted
        by, last = tagged[0].c.created, tagged[0].c.task
    if after is not None:
        place, here = sa.tuple_(by, last), sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
        query = query.where(place < here if descending else place > here)
    order = (by.desc(), last.desc()) if descending else (by, last)
    return [record(TaskRow, row) for row in tx.execute(query.order_by(*order).limit(limit))]


def count_tasks(tx: Tx, account: AccountId, region: RegionName, wanted: TaskFilter = TaskFilter()) -> int:
    """How many tasks a filter has in all."""
    counted = len(wanted.tags) <= 1 and all(
        value is None
        for value in (
            wanted.name,
            wanted.name_prefix,
            wanted.name_part,
            wanted.model,
            wanted.created_from,
            wanted.created_until,
        )
    )
    counted = counted and not wanted.tag_keys
    if not counted:
        counting = sa.select(sa.func.count()).select_from(tasks)
        query = _filtered(counting, account, region, wanted, _tag_aliases(wanted))
        return int(tx.execute(query).scalar_one())
    key, text = next(iter(wanted.tags.items()), ("", ""))
    held = sa.select(sa.func.coalesce(sa.func.sum(task_counts.c.total), 0)).where(
        task_counts.c.account == account,
        task_counts.c.region == region,
        task_counts.c.tag_key == key,
        task_counts.c.tag_value == text,
    )
    if wanted.statuses:
        held = held.where(task_counts.c.status.in_(wanted.statuses))
    return int(tx.execute(held).scalar_one())


def counts_by_status(tx: Tx) -> dict[TaskStatus, int]:
    """Tasks of all accounts and regions, for metrics."""
    rows = tx.execute(
        sa.select(task_counts.c.status, sa.func.sum(task_counts.c.total))
        .where(task_counts.c.tag_key == "")
        .group_by(task_counts.c.status)
    )
    return {TaskStatus(row[0]): int(row[1]) for row in rows}


def count_tasks_by(tx: Tx, owner: Owner, tags: Mapping[str, str], changes: Mapping[TaskStatus, int]) -> None:
    """Adds to the counts of these statuses. In one order everywhere, so that transactions never wait in a circle."""
    keys = sorted([("", ""), *tags.items()])
    statuses = sorted(changes.items())
    rows = [
        {
            "account": owner.account,
            "region": owner.region,
            "tag_key": key,
            "tag_value": text,
            "status": str(status),
            "total": change,
        }
        for key, text in keys
        for status, change in statuses
    ]
    tx.execute(_adding_to_counts(tx.sqlite), rows)


@functools.cache
def _adding_to_counts(sqlite: bool) -> Any:
    """Built once: creating a task runs it, and building it takes longer."""
    insert = insert_into(task_counts, sqlite=sqlite)
    same = ["account", "region", "tag_key", "tag_value", "status"]
    total = task_counts.c.total + insert.excluded.total
    return insert.on_conflict_do_update(index_elements=same, set_={"total": total})


def delete_task(tx: Tx, task: TaskRow) -> None:
    """The row, and all that belongs to it by foreign key. The caller has made sure that nothing runs."""
    tx.execute(tasks.delete().where(tasks.c.id == task.id))
    count_tasks_by(tx, task.owner, task.tags, {task.status: -1})
    for key, text in task.tags.items():  # a tag's value that nobody has any more must not stay for ever
        tx.execute(
            task_counts.delete().where(
                task_counts.c.account == task.account,
                task_counts.c.region == task.region,
                task_counts.c.tag_key == key,
                task_counts.c.tag_value == text,
                task_counts.c.total == 0,
            )
        )


def _tag_aliases(wanted: TaskFilter) -> list[sa.FromClause]:
    """The table of tags, once for each tag that is asked for."""
    return [task_tags.alias(f"tag{number}") for number in range(len(wanted.tags))]


def _filtered(
    query: sa.Select[Any], account: AccountId, region: RegionName, wanted: TaskFilter, tagged: Sequence[sa.FromClause]
) -> sa.Select[Any]:
    query = query.where(tasks.c.account == account, tasks.c.region == region)
    if wanted.statuses:
        query = query.where(tasks.c.status.in_(wanted.statuses))
    if wanted.name is not None:
        query = query.where(tasks.c.name == wanted.name)
    if wanted.name_prefix:
        query = query.where(tasks.c.name >= wanted.name_prefix, tasks.c.name < wanted.name_prefix + "\U0010ffff")
    if wanted.name_part:
        query = query.where(tasks.c.name.contains(wanted.name_part, autoescape=True))
    if wanted.model is not None:
        exact = tasks.c.model == wanted.model
        versions = sa.and_(tasks.c.model >= f"{wanted.model}@", tasks.c.model < f"{wanted.model}A")  # "A" is after "@"
        query = query.where(exact if "@" in wanted.model else sa.or_(exact, versions))
    if wanted.created_from is not None:
        query = query.where(tasks.c.created >= wanted.created_from)
    if wanted.created_until is not None:
        query = query.where(tasks.c.created < wanted.created_until)
    for tag, (key, text) in zip(tagged, wanted.tags.items(), strict=True):
        query = query.join(
            tag, sa.and_(tag.c.task == tasks.c.id, tag.c.account == account, tag.c.region == region)
        ).where(tag.c.key == key, tag.c.value == text)
    for key in wanted.tag_keys:
        query = query.where(sa.exists().where(task_tags.c.task == tasks.c.id, task_tags.c.key == key))
    return query
