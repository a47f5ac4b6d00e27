"""Errors of records that are committed and whose results are not published yet: what a look at an unfinished run shows.

Also all that there is of a run that failed early. The line of a record is known as far as the ranges before it are
done.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from typing import Any

import sqlalchemy as sa

from tidemill.domain.errors import NotFound, PartDamaged
from tidemill.domain.ids import RunId, TaskId
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects
from tidemill.publishing.units import Setting, Unit
from tidemill.store.base import Store
from tidemill.store.journal import SqlJournal
from tidemill.store.journal_tables import parts as part_rows
from tidemill.store.journal_tables import splits as split_rows
from tidemill.store.plans import get_plan
from tidemill_runtime.contract import ResultFormat


def staged_errors(
    store: Store, objects: Objects, output: Location, task: TaskId, run: RunId, plan_id: str, *, without: Container[int]
) -> Iterator[dict[str, Any]]:
    """In input order, as lines of errors.jsonl. without: units whose errors are known otherwise."""
    with store.read() as tx:
        plan = get_plan(tx, plan_id)
        failed = (
            sa.select(split_rows.c.unit)
            .distinct()
            .join(part_rows, sa.and_(part_rows.c.plan == split_rows.c.plan, part_rows.c.split == split_rows.c.no))
            .where(split_rows.c.plan == plan_id, part_rows.c.failed > 0)
            .order_by(split_rows.c.unit)
        )
        units = [unit for unit in tx.execute(failed).scalars() if unit not in without]
    if plan is None:
        return
    journal = SqlJournal(store, run)
    setting = Setting(objects, plan, output, task, result=ResultFormat(), replace=False)  # nothing is published here
    for unit in units:
        try:
            for line in Unit(setting, unit, journal.splits(unit), journal.parts(unit)).errors_so_far():
                yield json.loads(line)
        except (NotFound, PartDamaged):
            return  # swept, or published while we read
