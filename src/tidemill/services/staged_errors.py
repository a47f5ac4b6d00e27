"""Errors of records that are committed and whose results are not published yet: what a look at an unfinished run shows.

Also all that there is of a run that failed early. The line of a record is known as far as the ranges before it are
done.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from tidemill.domain import layout
from tidemill.domain.errors import NotFound, PartDamaged
from tidemill.domain.ids import RunId, TaskId
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan
from tidemill.domain.splits import Cut, PlannedSplit, SplitStatus
from tidemill.objects.listing import read_listing
from tidemill.ports.journal import CommittedPart
from tidemill.ports.objects import Objects
from tidemill.publishing.parts import Parts
from tidemill.store.base import Store
from tidemill.store.journal import SqlJournal
from tidemill.store.journal_tables import parts as part_rows
from tidemill.store.journal_tables import splits as split_rows
from tidemill.store.plans import get_plan


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
    staged = Parts(objects, output.child(layout.parts_folder(task)))
    for unit in units:
        try:
            yield from _of_unit(store, objects, staged, plan, plan_id, run, unit)
        except (NotFound, PartDamaged):
            return  # swept, or published while we read


def _of_unit(
    store: Store, objects: Objects, staged: Parts, plan: Plan, plan_id: str, run: RunId, unit: int
) -> Iterator[dict[str, Any]]:
    journal = SqlJournal(store, run)
    committed = {no: list(found) for no, found in groupby(journal.parts(unit), key=lambda part: part.split)}
    done = _done_splits(store, plan_id, unit)
    ordinal, before = -1, 0  # records before the split in its object; -1: not known
    for split in journal.splits(unit):
        if split.first_object != ordinal:
            ordinal, before = split.first_object, 0
        found = committed.get(split.no, [])
        if any(part.errors_bytes for part in found):
            yield from _of_split(objects, staged, plan, split, found, before)
        if split.no not in done:
            before = -1
        elif before >= 0:
            before += sum(part.counts.inputs for part in found)


def _of_split(
    objects: Objects, staged: Parts, plan: Plan, split: PlannedSplit, committed: list[CommittedPart], before: int
) -> Iterator[dict[str, Any]]:
    listed = read_listing(
        objects, plan.listing, split.listing_start, split.listing_stop, first_ordinal=split.first_object
    )
    names = [each.name for each in listed]
    for placed in staged.placed([split], committed, shares=True):
        starts = {share.index: share.before for share in placed.shares}
        for error in staged.errors(placed.part):
            index = error["object"]
            line = None if before < 0 or index not in starts else before + starts[index] + error["position"] + 1
            found = {key: value for key, value in error.items() if key not in ("object", "position")}
            found["object"] = names[index]
            if plan.cut is not Cut.FILES:
                found["row" if plan.input_type in ("csv", "parquet") else "line"] = line
            yield found


def _done_splits(store: Store, plan_id: str, unit: int) -> set[int]:
    done = sa.select(split_rows.c.no).where(
        split_rows.c.plan == plan_id, split_rows.c.unit == unit, split_rows.c.status == SplitStatus.DONE
    )
    with store.read() as tx:
        return set(tx.execute(done).scalars())
