"""Plans and their splits: written by the plan loop, read by everybody, removed with the staged parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from typing import Any

import sqlalchemy as sa

from tidemill.domain.ids import RunId, TaskId
from tidemill.domain.plan import Plan, load_plan
from tidemill.domain.splits import PlannedSplit, SplitStatus
from tidemill.store.base import Store, Tx
from tidemill.store.journal_tables import plans, splits, units
from tidemill.store.records import Owner
from tidemill.store.tables import runs

_ROWS = 2000
"""Splits written in one transaction: others wait for about 20 ms."""


def save_plan(
    store: Store, owner: Owner, run: RunId, task: TaskId, plan: Plan, planned: Iterable[PlannedSplit], now: float
) -> None:
    """Writes a plan under its run's id, piece by piece; not the run's before `ready`. Repeating it starts over."""
    with store.write() as tx:
        tx.execute(plans.delete().where(plans.c.id == run))
        values = {
            "created": now,
            "plan": dump_plan(plan),
            "splits": plan.splits,
            "bytes": plan.bytes,
            "units": plan.units,
        }
        tx.execute(plans.insert().values(id=run, task=task, **owner.values, **values))
    planned = iter(planned)
    while piece := list(islice(planned, _ROWS)):
        with store.write(durable=False) as tx:
            _insert(tx, owner, run, piece)


def _insert(tx: Tx, owner: Owner, run: RunId, piece: list[PlannedSplit]) -> None:
    same = {"plan": run, **owner.values}
    tx.execute(splits.insert(), [{**same, **vars(split), "status": SplitStatus.OPEN} for split in piece])
    counted = Counter(split.unit for split in piece)
    insert = tx.insert(units)
    left = units.c.splits_left + insert.excluded.splits_left
    tx.execute(
        insert.on_conflict_do_update(index_elements=["plan", "unit"], set_={"splits_left": left}),
        [{**same, "unit": unit, "splits_left": count} for unit, count in counted.items()],
    )


def ready(tx: Tx, run: RunId, now: float) -> None:
    """All splits are there: from now on the plan is the run's."""
    plan = plans.update().where(plans.c.id == run).values(ready=now).returning(plans.c.splits, plans.c.bytes)
    splits_, bytes_ = tx.execute(plan).one()
    tx.execute(runs.update().where(runs.c.id == run).values(plan=run, splits=splits_, bytes=bytes_))


def get_plan(tx: Tx, plan: str) -> Plan | None:
    """The plan of this id (that of the run which made it), once it is ready."""
    row = tx.execute(sa.select(plans.c.plan).where(plans.c.id == plan, plans.c.ready.is_not(None))).one_or_none()
    return None if row is None else load_plan(row.plan)


def delete_plans(store: Store, task: TaskId) -> None:
    """Removes all plans of a task with their splits and parts, piece by piece."""
    with store.read() as tx:
        found = list(tx.execute(sa.select(plans.c.id, plans.c.splits).where(plans.c.task == task)))
    for row in found:
        for first in range(0, row.splits, _ROWS):
            with store.write(durable=False) as tx:
                tx.execute(
                    splits.delete().where(splits.c.plan == row.id, splits.c.no.between(first, first + _ROWS - 1))
                )
        with store.write() as tx:
            tx.execute(plans.delete().where(plans.c.id == row.id))


def dump_plan(plan: Plan) -> dict[str, Any]:
    """As JSON; `load_plan` reads it back."""
    return asdict(plan)
