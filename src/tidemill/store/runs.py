"""Runs, instances, their running intervals, claims of output folders. Used by `services.runs` and the loops.

Statuses are not changed here: `services.runs.change_status` does that, with the event.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from tidemill.domain.ids import InstanceId, RegionName, RunId, TaskId
from tidemill.domain.life import INSTANCE_FINAL, TaskStatus
from tidemill.store.base import Tx, insert_into
from tidemill.store.records import InstanceRow, Owner, RunRow, columns, record
from tidemill.store.tables import ALIVE, UNFINISHED, claims, instances, intervals, runs

_INSERT = runs.insert()
_RUN = sa.select(*columns(RunRow, runs))
_INSTANCE = sa.select(*columns(InstanceRow, instances))
_RUN_OF_ID = _RUN.where(runs.c.id == sa.bindparam("the_id"))
_RUN_OF_ID_LOCKED = _RUN_OF_ID.with_for_update()
_INSTANCE_OF_ID = _INSTANCE.where(instances.c.id == sa.bindparam("the_id"))
_INSTANCE_OF_ID_LOCKED = _INSTANCE_OF_ID.with_for_update()
_QUEUE = (runs.c.priority.desc(), runs.c.created, runs.c.id)
_HEAD_OF_QUEUE = (
    sa.select(runs.c.id, runs.c.planned)
    .where(
        UNFINISHED,
        runs.c.region == sa.bindparam("region"),
        runs.c.status == TaskStatus.INIT,
        runs.c.stop_requested.is_(None),
    )
    .order_by(*_QUEUE)
    .limit(sa.bindparam("ahead"))
)
_RUNS_AT_ONCE = 500
"""Databases bound the number of parameters."""


def insert_run(tx: Tx, values: Mapping[str, Any]) -> None:
    """values: the columns."""
    tx.execute(_INSERT, dict(values))


def get_run(tx: Tx, run: RunId, *, lock: bool = False) -> RunRow | None:
    """lock: nobody else changes it until the transaction ends."""
    row = tx.execute(_RUN_OF_ID_LOCKED if lock else _RUN_OF_ID, {"the_id": run}).one_or_none()
    return None if row is None else record(RunRow, row)


def list_runs(tx: Tx, task: TaskId) -> list[RunRow]:
    """All runs of a task, the first first."""
    query = _RUN.where(runs.c.task == task).order_by(runs.c.number)
    return [record(RunRow, row) for row in tx.execute(query)]


def set_run(tx: Tx, run: RunId, values: Mapping[str, Any]) -> None:
    """Sets columns other than status."""
    tx.execute(runs.update().where(runs.c.id == run).values(**values))


def unfinished_runs(tx: Tx) -> list[RunRow]:
    """Every run that is not at its end: higher priority first, then the older. What is kept of others costs nothing."""
    query = _RUN.where(UNFINISHED).order_by(*_QUEUE)
    return [record(RunRow, row) for row in tx.execute(query)]


def runs_to_plan(tx: Tx, region: RegionName, ahead: int) -> list[RunId]:
    """Those of the first `ahead` in a region's queue that wait for their plan, or to go on with one."""
    found = tx.execute(_HEAD_OF_QUEUE, {"region": region, "ahead": ahead})
    return [RunId(row.id) for row in found if row.planned is None]


def runs_to_place(tx: Tx) -> list[RunRow]:
    """Planned runs whose splits are not all computed and that are wanted: in the order in which they get capacity."""
    some = sa.or_(runs.c.splits.is_(None), runs.c.splits > 0)
    wanted = (runs.c.planned.is_not(None), runs.c.computed.is_(None), runs.c.stop_requested.is_(None), some)
    query = _RUN.where(UNFINISHED, *wanted).order_by(*_QUEUE)
    return [record(RunRow, row) for row in tx.execute(query)]


def runs_to_publish(tx: Tx) -> list[RunRow]:
    """Runs that compute or have computed, and that are not being stopped."""
    wanted = (runs.c.status == TaskStatus.RUNNING, runs.c.stop_requested.is_(None))
    query = _RUN.where(UNFINISHED, *wanted).order_by(*_QUEUE)
    return [record(RunRow, row) for row in tx.execute(query)]


def runs_to_reconcile(tx: Tx, now: float) -> list[RunRow]:
    """Runs that have or had instances, that are to end, and planned ones that may have nothing to compute: resumed
    ones, and those that find nothing new.
    """
    wanted = sa.or_(
        runs.c.placed.is_not(None),
        runs.c.stop_requested.is_not(None),
        runs.c.deadline <= now,
        sa.and_(sa.or_(runs.c.number > 1, runs.c.splits == 0), runs.c.planned.is_not(None)),
    )
    query = _RUN.where(UNFINISHED, wanted).order_by(*_QUEUE)
    return [record(RunRow, row) for row in tx.execute(query)]


def instances_of(tx: Tx, which: Sequence[RunId]) -> dict[RunId, list[InstanceRow]]:
    """All instances of some runs, by place and attempt."""
    found: dict[RunId, list[InstanceRow]] = {run: [] for run in which}
    for first in range(0, len(which), _RUNS_AT_ONCE):
        some = which[first : first + _RUNS_AT_ONCE]
        query = _INSTANCE.where(instances.c.run.in_(some))
        for row in tx.execute(query.order_by(instances.c.index, instances.c.attempt)):
            found[row.run].append(record(InstanceRow, row))
    return found


def instances_to_forget(tx: Tx) -> dict[RunId, list[InstanceId]]:
    """Ended instances that the engine has not removed yet."""
    ended = instances.c.status.in_(sorted(INSTANCE_FINAL))
    query = sa.select(instances.c.run, instances.c.id).where(instances.c.forgotten.is_(None), ended)
    found: dict[RunId, list[InstanceId]] = {}
    for row in tx.execute(query):
        found.setdefault(RunId(row.run), []).append(InstanceId(row.id))
    return found


def runs_to_sweep(tx: Tx, now: float, limit: int) -> list[RunRow]:
    """Ended runs whose staging has served its time, and those that still have traces on the engine."""
    query = _RUN.where(runs.c.sweep_at.is_not(None), runs.c.sweep_at <= now).order_by(runs.c.sweep_at).limit(limit)
    return [record(RunRow, row) for row in tx.execute(query)]


def insert_instances(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """rows: the columns of each."""
    if rows:
        tx.execute(instances.insert(), list(rows))


def get_instance(tx: Tx, instance: InstanceId, *, lock: bool = False) -> InstanceRow | None:
    """lock: as for `get_run`."""
    query = _INSTANCE_OF_ID_LOCKED if lock else _INSTANCE_OF_ID
    row = tx.execute(query, {"the_id": instance}).one_or_none()
    return None if row is None else record(InstanceRow, row)


def list_instances(tx: Tx, run: RunId) -> list[InstanceRow]:
    """All instances of a run, replaced ones included, by place and attempt."""
    query = _INSTANCE.where(instances.c.run == run).order_by(instances.c.index, instances.c.attempt)
    return [record(InstanceRow, row) for row in tx.execute(query)]


def kept_instances(tx: Tx, run: RunId) -> list[InstanceId]:
    """Those that the engine has not forgotten yet."""
    query = sa.select(instances.c.id).where(instances.c.run == run, instances.c.forgotten.is_(None))
    return [InstanceId(row.id) for row in tx.execute(query)]


def set_instance(tx: Tx, instance: InstanceId, values: Mapping[str, Any]) -> None:
    """Sets columns other than status."""
    tx.execute(instances.update().where(instances.c.id == instance).values(**values))


def taken_resources(tx: Tx, regions: Sequence[str] | None = None) -> tuple[int, int]:
    """Millicores and bytes of memory of all instances that are alive, in these regions or all."""
    millicores, memory_bytes = tx.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(instances.c.millicores), 0),
            sa.func.coalesce(sa.func.sum(instances.c.memory_limit_bytes), 0),
        ).where(ALIVE, sa.true() if regions is None else instances.c.region.in_(regions))
    ).one()
    return int(millicores), int(memory_bytes)


def begin_interval(tx: Tx, instance: InstanceRow, now: float) -> None:
    """From now on it counts as running. Once."""
    tx.execute(
        tx.insert(intervals)
        .values(**instance.owner.values, instance=instance.id, run=instance.run, begun=now)
        .on_conflict_do_nothing()
    )


def end_interval(tx: Tx, instance: InstanceId, now: float) -> None:
    """It runs no more. Nothing if it never did."""
    tx.execute(
        intervals.update().where(intervals.c.instance == instance, intervals.c.ended.is_(None)).values(ended=now)
    )


def list_intervals(tx: Tx, run: RunId) -> list[tuple[InstanceId, float, float | None]]:
    """(instance, begun, ended) of a run."""
    rows = tx.execute(sa.select(intervals).where(intervals.c.run == run).order_by(intervals.c.id))
    return [(InstanceId(row.instance), row.begun, row.ended) for row in rows]


_CLAIMED = (
    sa.select(claims.c.task)
    .where(
        claims.c.released.is_(None),
        sa.or_(
            claims.c.uri.in_(sa.bindparam("above", expanding=True)),
            sa.and_(claims.c.uri >= sa.bindparam("uri"), claims.c.uri < sa.bindparam("after")),
        ),
        claims.c.run != sa.bindparam("run"),
    )
    .limit(1)
)
"""Built once: creating a task asks it, and building it takes longer than asking."""


def claim_output(tx: Tx, owner: Owner, uri: str, task: TaskId, run: RunId, now: float) -> TaskId | None:
    """Takes an output folder for a run, or returns the task that has it, or one above or below it.

    uri: normalised, ends in "/".
    """
    tx.serialise("claims")  # the unique index keeps one folder apart from itself, not from those inside it
    above = [uri[: at + 1] for at, char in enumerate(uri) if char == "/"]
    found = tx.execute(
        _CLAIMED,
        {"above": above, "uri": uri, "after": uri[:-1] + "0", "run": run},  # "0" comes after "/"
    ).scalar_one_or_none()
    if found is not None:
        return TaskId(found)
    tx.execute(_claiming(tx.sqlite), {**owner.values, "uri": uri, "task": task, "run": run, "created": now})
    return None


@functools.cache
def _claiming(sqlite: bool) -> Any:
    """Built once, like `_CLAIMED`."""
    return insert_into(claims, sqlite=sqlite).on_conflict_do_nothing()


def release_claim(tx: Tx, run: RunId, now: float) -> None:
    """Another run may take the folder. Nothing if it was released before."""
    tx.execute(claims.update().where(claims.c.run == run, claims.c.released.is_(None)).values(released=now))
