"""The statements of `journal`, made once, and the way between its rows and the domain's types.

Each report of an instance passes most of them, and making a statement costs more than running it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa

from tidemill.domain.splits import PlannedSplit, SplitState, SplitStatus
from tidemill.ports.journal import CommittedPart
from tidemill.store.base import insert_into
from tidemill.store.journal_tables import LEASED, OPEN, parts, plans, splits, tallies, units
from tidemill.store.tables import runs
from tidemill_runtime.contract import Commit, Counts, Cursor

COUNTED = 4096
"""Open splits are counted up to this: the coordinator shares out the last ones, and how many there are before does not
matter to it."""
_PLANNED = ("no", "unit", "first_object", "objects", "start", "stop", "listing_start", "listing_stop", "bytes")
_STATE = ("status", "fence", "instance", "lease_until", "cursor_object", "cursor_offset", "part")
_COUNTS = ("inputs", "ok", "failed", "skipped")
TALLIED = (*_COUNTS, "splits_done", "bytes_done")

_plan = sa.bindparam("the_plan", type_=sa.Text)
_instance = sa.bindparam("the_instance", type_=sa.Text)
_now = sa.bindparam("the_now", type_=sa.Double)
_limit = sa.bindparam("the_limit", type_=sa.Integer)
_unit = sa.bindparam("the_unit", type_=sa.Integer)
_split = sa.select(*[splits.c[name] for name in (*_PLANNED, *_STATE)])
_of_plan = splits.c.plan == _plan
_own = sa.and_(LEASED, splits.c.instance == _instance)
_expired = sa.and_(LEASED, splits.c.lease_until <= _now)
_named = splits.c.no.in_(sa.bindparam("the_nos", expanding=True, type_=sa.Integer))

PLAN = sa.select(plans).join(runs, runs.c.plan == plans.c.id).where(runs.c.id == sa.bindparam("the_run"))

OWN = _split.where(_of_plan, _own).order_by(splits.c.no).with_for_update()
NAMED_OR_OWN = _split.where(_of_plan, sa.or_(_named, _own)).order_by(splits.c.no).with_for_update()
EXPIRED = _split.where(_of_plan, _expired).order_by(splits.c.no).with_for_update()
NEXT_OPEN = _split.where(_of_plan, OPEN).order_by(splits.c.no).limit(_limit).with_for_update(skip_locked=True)
NEXT_EXPIRED = _split.where(_of_plan, _expired).order_by(splits.c.no).limit(_limit).with_for_update(skip_locked=True)
SOME_OWN = sa.select(splits.c.no).where(_of_plan, _own).limit(1)
SOME_EXPIRED = sa.select(splits.c.no).where(_of_plan, _expired).limit(1)
KNOWN_PARTS = sa.select(parts.c.split, parts.c.name).where(
    parts.c.plan == _plan, parts.c.name.in_(sa.bindparam("the_names", expanding=True, type_=sa.Text))
)
SET_SPLIT = (
    splits.update()
    .where(_of_plan, splits.c.no == sa.bindparam("the_no", type_=sa.Integer))
    .values(**{name: sa.bindparam(f"new_{name}") for name in _STATE})
)
ADD_PART = parts.insert()
SET_UNIT = (
    units.update()
    .where(units.c.plan == _plan, units.c.unit == _unit)
    .values(splits_left=units.c.splits_left - sa.bindparam("the_count", type_=sa.Integer))
)


def _counted(which: sa.TextClause) -> sa.ScalarSelect[int]:
    some = sa.select(splits.c.no).where(_of_plan, which).limit(_limit).subquery()
    return sa.select(sa.func.count()).select_from(some).scalar_subquery()


OPEN_AND_LEASED = sa.select(_counted(OPEN), _counted(LEASED))
SUMS = sa.select(
    *[sa.func.coalesce(sa.func.sum(tallies.c[name]), 0) for name in ("splits_done", "bytes_done", *_COUNTS)],
    sa.select(sa.func.count())
    .where(units.c.plan == _plan, units.c.published.is_not(None))
    .select_from(units)
    .scalar_subquery(),
).where(tallies.c.plan == _plan)

_place = (parts.c.split, parts.c.begin_object, parts.c.begin_offset)
_after = sa.tuple_(sa.bindparam("split", type_=sa.Integer), sa.bindparam("object"), sa.bindparam("offset"))
PARTS = (
    sa.select(parts)
    .join(splits, sa.and_(splits.c.plan == parts.c.plan, splits.c.no == parts.c.split))
    .where(parts.c.plan == _plan, splits.c.unit == _unit, sa.tuple_(*_place) > _after)
    .order_by(*_place)
    .limit(_limit)
)
FIRST_FAILED = sa.select(parts).where(parts.c.plan == _plan, parts.c.failed > 0).order_by(*_place).limit(1)
SPLITS = (
    sa.select(*[splits.c[name] for name in _PLANNED])
    .where(_of_plan, splits.c.unit == _unit, splits.c.no > sa.bindparam("the_last", type_=sa.Integer))
    .order_by(splits.c.no)
    .limit(_limit)
)
UNITS_READY = (
    sa.select(units.c.unit)
    .where(units.c.plan == _plan, sa.text("splits_left = 0 AND published IS NULL"))
    .order_by(units.c.unit)
    .limit(_limit)
)
UNITS_PUBLISHED = (
    sa.select(units.c.unit, units.c.results, units.c.size, *[units.c[name] for name in _COUNTS])
    .where(
        units.c.plan == _plan,
        units.c.published.is_not(None),
        units.c.unit > sa.bindparam("the_last", type_=sa.Integer),
    )
    .order_by(units.c.unit)
    .limit(_limit)
)
SET_PUBLISHED = (
    units.update()
    .where(units.c.plan == _plan, units.c.unit == _unit, units.c.published.is_(None))
    .values(
        **{name: sa.bindparam(f"new_{name}") for name in ("results", "size", *_COUNTS)},
        published=_now,
    )
)


@cache
def add_to_tally(sqlite: bool) -> sa.Executable:
    """Adds to what an instance has committed."""
    insert = insert_into(tallies, sqlite=sqlite)
    sums = {name: tallies.c[name] + insert.excluded[name] for name in TALLIED}
    adding: sa.Executable = insert.on_conflict_do_update(index_elements=["plan", "instance"], set_=sums)
    return adding


def planned_of(row: Any) -> PlannedSplit:
    """Of a row that begins with what was planned."""
    return PlannedSplit(*row[: len(_PLANNED)])


def state_of(row: Any) -> SplitState:
    """Of a row that has what changes about a split behind what was planned."""
    status, fence, instance, lease_until, cursor_object, cursor_offset, part = row[len(_PLANNED) :]
    cursor = Cursor(cursor_object, cursor_offset)
    return SplitState(row[0], SplitStatus(status), fence, instance, lease_until, cursor, part)


def state_values(plan: str, state: SplitState) -> dict[str, Any]:
    """For SET_SPLIT."""
    return {
        "the_plan": plan,
        "the_no": state.no,
        "new_status": state.status.value,
        "new_fence": state.fence,
        "new_instance": state.instance,
        "new_lease_until": state.lease_until,
        "new_cursor_object": state.cursor.object,
        "new_cursor_offset": state.cursor.offset,
        "new_part": state.part,
    }


def part_values(commit: Commit) -> dict[str, Any]:
    """For ADD_PART; plan, owner, run, instance and time are the caller's."""
    return {
        "split": commit.split,
        "begin_object": commit.begin.object,
        "begin_offset": commit.begin.offset,
        "name": commit.part,
        "end_object": commit.end.object,
        "end_offset": commit.end.offset,
        "data_bytes": commit.data_bytes,
        "errors_bytes": commit.errors_bytes,
        "index_bytes": commit.index_bytes,
        "sha256": commit.sha256,
        **vars(commit.counts),
    }


def part_of(row: Any) -> CommittedPart:
    """Of a row of `parts`."""
    return CommittedPart(
        split=row.split,
        begin=Cursor(row.begin_object, row.begin_offset),
        end=Cursor(row.end_object, row.end_offset),
        name=row.name,
        data_bytes=row.data_bytes,
        errors_bytes=row.errors_bytes,
        index_bytes=row.index_bytes,
        sha256=row.sha256,
        counts=Counts(row.inputs, row.ok, row.failed, row.skipped),
        run=row.run,
    )
