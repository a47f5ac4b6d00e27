"""Runs, instances, their running intervals, claims of output folders. Used by `services.runs` and the loops.

Statuses are not changed here: `services.runs.change_status` does that, with the event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from tidemill.domain.ids import InstanceId, RunId, TaskId
from tidemill.store.base import Tx
from tidemill.store.records import InstanceRow, Owner, RunRow, columns, record
from tidemill.store.tables import ALIVE, UNFINISHED, claims, instances, intervals, runs

_RUN = columns(RunRow, runs)
_INSTANCE = columns(InstanceRow, instances)


def insert_run(tx: Tx, values: Mapping[str, Any]) -> None:
    """values: the columns."""
    tx.execute(runs.insert().values(**values))


def get_run(tx: Tx, run: RunId, *, lock: bool = False) -> RunRow | None:
    """lock: nobody else changes it until the transaction ends."""
    query = sa.select(*_RUN).where(runs.c.id == run)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else record(RunRow, row)


def list_runs(tx: Tx, task: TaskId) -> list[RunRow]:
    """All runs of a task, the first first."""
    query = sa.select(*_RUN).where(runs.c.task == task).order_by(runs.c.number)
    return [record(RunRow, row) for row in tx.execute(query)]


def set_run(tx: Tx, run: RunId, values: Mapping[str, Any]) -> None:
    """Sets columns other than status."""
    tx.execute(runs.update().where(runs.c.id == run).values(**values))


def unfinished_runs(tx: Tx) -> list[RunRow]:
    """Every run that is not at its end: higher priority first, then the older. What is kept of others costs nothing."""
    query = sa.select(*_RUN).where(UNFINISHED).order_by(runs.c.priority.desc(), runs.c.created, runs.c.id)
    return [record(RunRow, row) for row in tx.execute(query)]


def runs_to_sweep(tx: Tx, now: float, limit: int) -> list[RunRow]:
    """Ended runs whose staging has served its time, and those that still have traces on the engine."""
    query = (
        sa.select(*_RUN)
        .where(runs.c.sweep_at.is_not(None), runs.c.sweep_at <= now)
        .order_by(runs.c.sweep_at)
        .limit(limit)
    )
    return [record(RunRow, row) for row in tx.execute(query)]


def insert_instances(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """rows: the columns of each."""
    if rows:
        tx.execute(instances.insert(), list(rows))


def get_instance(tx: Tx, instance: InstanceId, *, lock: bool = False) -> InstanceRow | None:
    """lock: as for `get_run`."""
    query = sa.select(*_INSTANCE).where(instances.c.id == instance)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else record(InstanceRow, row)


def list_instances(tx: Tx, run: RunId) -> list[InstanceRow]:
    """All instances of a run, replaced ones included, by place and attempt."""
    query = sa.select(*_INSTANCE).where(instances.c.run == run).order_by(instances.c.index, instances.c.attempt)
    return [record(InstanceRow, row) for row in tx.execute(query)]


def kept_instances(tx: Tx, run: RunId) -> list[InstanceId]:
    """Those that the engine has not forgotten yet."""
    query = sa.select(instances.c.id).where(instances.c.run == run, instances.c.forgotten.is_(None))
    return [InstanceId(row.id) for row in tx.execute(query)]


def set_instance(tx: Tx, instance: InstanceId, values: Mapping[str, Any]) -> None:
    """Sets columns other than status."""
    tx.execute(instances.update().where(instances.c.id == instance).values(**values))


def taken_resources(tx: Tx) -> tuple[int, int]:
    """Millicores and bytes of memory of all instances that are alive."""
    millicores, memory_bytes = tx.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(instances.c.millicores), 0),
            sa.func.coalesce(sa.func.sum(instances.c.memory_limit_bytes), 0),
        ).where(ALIVE, instances.c.run.in_(sa.select(runs.c.id).where(UNFINISHED)))
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


def claim_output(tx: Tx, owner: Owner, uri: str, task: TaskId, run: RunId, now: float) -> TaskId | None:
    """Takes an output folder for a run, or returns the task that has it, or one above or below it.

    uri: normalised, ends in "/".
    """
    tx.serialise("claims")  # the unique index keeps one folder apart from itself, not from those inside it
    above = [uri[: at + 1] for at, char in enumerate(uri) if char == "/"]
    inside = sa.and_(claims.c.uri >= uri, claims.c.uri < uri[:-1] + "0")  # "0" comes after "/"
    found = tx.execute(
        sa.select(claims.c.task)
        .where(claims.c.released.is_(None), sa.or_(claims.c.uri.in_(above), inside), claims.c.run != run)
        .limit(1)
    ).scalar_one_or_none()
    if found is not None:
        return TaskId(found)
    tx.execute(
        tx.insert(claims).values(**owner.values, uri=uri, task=task, run=run, created=now).on_conflict_do_nothing()
    )
    return None


def release_claim(tx: Tx, run: RunId, now: float) -> None:
    """Another run may take the folder. Nothing if it was released before."""
    tx.execute(claims.update().where(claims.c.run == run, claims.c.released.is_(None)).values(released=now))
