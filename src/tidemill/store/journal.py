"""The journal of a server: splits, leases and commits in the database. One short transaction for each exchange.

What may happen to a split is decided by `domain.splits`; here its row is locked, the decision asked for, and the row
written. Used by the coordinator, the reconcile loop and the publisher.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tidemill.domain import layout
from tidemill.domain import splits as rules
from tidemill.domain.errors import NotFound
from tidemill.domain.ids import RunId
from tidemill.domain.splits import PlannedSplit, SplitState, SplitStatus, Verdict
from tidemill.ports.clock import Clock, SystemClock
from tidemill.ports.journal import CommittedPart, Exchanged, Granted, Journal, PublishedUnit, Totals
from tidemill.store.base import Store, Tx
from tidemill.store.journal_tables import LEASED, OPEN, parts, plans, splits, tallies, units
from tidemill.store.tables import runs
from tidemill_runtime.contract import Commit, Counts, Cursor, Held, Report

_PAGE = 1000
_COUNTED = 4096
"""Open splits are counted up to this: the coordinator shares out the last ones, and how many there are before does not
matter to it."""
_PLANNED = ("no", "unit", "first_object", "objects", "start", "stop", "listing_start", "listing_stop", "bytes")
_SPLIT = [splits.c[name] for name in (*_PLANNED, "status", "fence", "instance", "lease_until", "cursor_object")]
_SPLIT += [splits.c.cursor_offset, splits.c.part]
OnReport = Callable[[Tx, Report, float], None]


@dataclass(frozen=True)
class _Plan:
    """What never changes about the plan: read once."""

    id: str
    owner: dict[str, str]
    splits: int
    bytes: int
    units: int


@dataclass
class _Work:
    """One exchange: the splits that it looked at, as they are by now, and what there is to write."""

    planned: dict[int, PlannedSplit] = field(default_factory=dict)
    states: dict[int, SplitState] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    parts: list[dict[str, Any]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    counts: Counts = Counts()

    def set(self, state: SplitState) -> SplitState:
        self.states[state.no] = state
        self.changed.add(state.no)
        return state


class SqlJournal(Journal):
    """run: one that has a plan. on_report: done first in the transaction of each exchange; by raising it undoes it."""

    def __init__(
        self, store: Store, run: RunId, *, on_report: OnReport | None = None, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._run = run
        self._on_report = on_report
        self._clock = clock or SystemClock()
        self._found: _Plan | None = None

    def exchange(self, report: Report, *, limit: int, now: float, ttl_s: float) -> Exchanged:
        plan = self._plan()
        work = _Work()
        with self._store.write(durable=False) as tx:
            if self._on_report is not None:
                self._on_report(tx, report, now)
            self._load(tx, plan, report, work)
            refused, rest = self._commit_all(tx, plan, report, work, now)
            kept = self._renew_all(report, work, now, ttl_s, refused)
            granted = self._give_again(report, work, kept | set(rest), now, ttl_s)
            granted += [self._lease(work, no, report.instance, now, ttl_s) for no in rest]
            self._write(tx, plan, report, work)
            work.changed.clear()
            granted += [
                self._lease(work, no, report.instance, now, ttl_s) for no in self._next(tx, plan, work, limit, now)
            ]
            self._write_splits(tx, plan, work)
            open_, leased = self._count(tx, plan)
            if work.done:
                tx.wake("publish", *(() if open_ or leased else ("reconcile",)))
        return Exchanged(granted, refused, open_, leased)

    def release_instance(self, instance: str) -> None:
        if self._some_leased(splits.c.instance == instance):
            with self._store.write(durable=False) as tx:
                self.release_in(tx, instance)

    def release_in(self, tx: Tx, instance: str) -> None:
        """`release_instance`, as part of a transaction."""
        self._reopen(tx, splits.c.instance == instance, lambda state: state.instance == instance)

    def expire(self, now: float) -> int:
        if not self._some_leased(splits.c.lease_until <= now):
            return 0
        with self._store.write(durable=False) as tx:
            return self._reopen(tx, splits.c.lease_until <= now, lambda state: rules.may_lease(state, now))

    def first_failed_part(self) -> CommittedPart | None:
        """A part with a record that failed, the first in order of the input."""
        query = (
            sa.select(parts)
            .where(parts.c.plan == self._plan().id, parts.c.failed > 0)
            .order_by(parts.c.split, parts.c.begin_object, parts.c.begin_offset)
            .limit(1)
        )
        with self._store.read() as tx:
            row = tx.execute(query).one_or_none()
        return None if row is None else _part(row)

    def totals(self) -> Totals:
        with self._store.read() as tx:
            return self.totals_in(tx)

    def totals_in(self, tx: Tx) -> Totals:
        """`totals`, as part of a transaction."""
        plan = self._plan()
        names = ("splits_done", "bytes_done", "inputs", "ok", "failed", "skipped")
        sums = [sa.func.coalesce(sa.func.sum(tallies.c[name]), 0) for name in names]
        row = tx.execute(sa.select(*sums).where(tallies.c.plan == plan.id)).one()
        splits_done, bytes_done, *counts = map(int, row)
        published = tx.execute(
            sa.select(sa.func.count()).select_from(units).where(units.c.plan == plan.id, units.c.published.is_not(None))
        ).scalar_one()
        return Totals(plan.splits, splits_done, plan.bytes, bytes_done, Counts(*counts), plan.units, int(published))

    def open_splits(self, tx: Tx, limit: int) -> int:
        """How many splits nobody has, counted up to `limit`."""
        some = sa.select(splits.c.no).where(splits.c.plan == self._plan().id, OPEN).limit(limit).subquery()
        return int(tx.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())

    def splits(self, unit: int) -> Iterator[PlannedSplit]:
        plan, last = self._plan(), -1
        query = sa.select(*[splits.c[name] for name in _PLANNED]).where(splits.c.plan == plan.id, splits.c.unit == unit)
        while True:
            with self._store.read() as tx:
                rows = tx.execute(query.where(splits.c.no > last).order_by(splits.c.no).limit(_PAGE)).all()
            yield from (PlannedSplit(*row) for row in rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1].no

    def parts(self, unit: int) -> Iterator[CommittedPart]:
        plan, last = self._plan(), (-1, 0, 0)
        order = (parts.c.split, parts.c.begin_object, parts.c.begin_offset)
        query = (
            sa.select(parts)
            .join(splits, sa.and_(splits.c.plan == parts.c.plan, splits.c.no == parts.c.split))
            .where(parts.c.plan == plan.id, splits.c.unit == unit)
            .order_by(*order)
            .limit(_PAGE)
        )
        while True:
            after = sa.tuple_(*order) > sa.tuple_(*map(sa.literal, last))
            with self._store.read() as tx:
                rows = tx.execute(query.where(after)).all()
            yield from map(_part, rows)
            if len(rows) < _PAGE:
                return
            last = (rows[-1].split, rows[-1].begin_object, rows[-1].begin_offset)

    def units_ready(self, limit: int) -> list[int]:
        query = (
            sa.select(units.c.unit)
            .where(units.c.plan == self._plan().id, sa.text("splits_left = 0 AND published IS NULL"))
            .order_by(units.c.unit)
            .limit(limit)
        )
        with self._store.read() as tx:
            return list(tx.execute(query).scalars())

    def published(self, unit: PublishedUnit) -> None:
        values = {"results": unit.results, "size": unit.size, **vars(unit.counts), "published": self._clock.now()}
        ours = (units.c.plan == self._plan().id, units.c.unit == unit.unit, units.c.published.is_(None))
        with self._store.write(durable=False) as tx:
            tx.execute(units.update().where(*ours).values(**values))

    def units_published(self) -> Iterator[PublishedUnit]:
        plan, last = self._plan(), -1
        names = ("unit", "results", "size", "inputs", "ok", "failed", "skipped")
        query = sa.select(*[units.c[name] for name in names]).where(
            units.c.plan == plan.id, units.c.published.is_not(None)
        )
        while True:
            with self._store.read() as tx:
                rows = tx.execute(query.where(units.c.unit > last).order_by(units.c.unit).limit(_PAGE)).all()
            yield from (PublishedUnit(row.unit, row.results, row.size, Counts(*row[3:])) for row in rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1].unit

    def _plan(self) -> _Plan:
        if self._found is None:
            with self._store.read() as tx:
                row = tx.execute(
                    sa.select(plans).join(runs, runs.c.plan == plans.c.id).where(runs.c.id == self._run)
                ).one_or_none()
            if row is None:
                raise NotFound(f"the run {self._run} has no plan.")
            owner = {"account": row.account, "region": row.region, "actor": ""}
            self._found = _Plan(row.id, owner, row.splits, row.bytes, row.units)
        return self._found

    def _load(self, tx: Tx, plan: _Plan, report: Report, work: _Work) -> None:
        """Locks the splits that the report names, and those that are leased to its instance."""
        named = {commit.split for commit in report.commits} | {held.split for held in report.held}
        own = sa.and_(LEASED, splits.c.instance == report.instance)
        wanted = sa.or_(splits.c.no.in_(named), own) if named else own
        query = sa.select(*_SPLIT).where(splits.c.plan == plan.id, wanted).order_by(splits.c.no).with_for_update()
        self._read(tx.execute(query), work)

    def _read(self, rows: Iterable[Any], work: _Work) -> list[int]:
        found = []
        for row in rows:
            work.planned[row.no] = PlannedSplit(*row[: len(_PLANNED)])
            work.states[row.no] = _state(row)
            found.append(row.no)
        return found

    def _commit_all(self, tx: Tx, plan: _Plan, report: Report, work: _Work, now: float) -> tuple[list[Held], list[int]]:
        """Refused commits, and the splits of which a part was accepted and the rest is left."""
        refused: list[Held] = []
        rest: list[int] = []
        known = self._known_parts(tx, plan, report.commits)
        for commit in report.commits:
            state = work.states.get(commit.split)
            found = Verdict.REFUSED if state is None else rules.judge(state, commit, known.get(commit.split, set()))
            if found is Verdict.REFUSED:
                refused.append(Held(commit.split, commit.fence))
            if found is Verdict.ACCEPTED and state is not None:
                accepted = work.set(rules.accept(state, commit))
                known.setdefault(commit.split, set()).add(commit.part)
                work.parts.append({"plan": plan.id, **plan.owner, **_part_values(commit, self._run, report, now)})
                work.counts += commit.counts
                (work.done if accepted.status is SplitStatus.DONE else rest).append(commit.split)
            elif found is Verdict.REPEATED and not commit.done:
                rest.append(commit.split)
        return refused, [no for no in dict.fromkeys(rest) if work.states[no].status is SplitStatus.OPEN]

    def _known_parts(self, tx: Tx, plan: _Plan, commits: list[Commit]) -> dict[int, set[str]]:
        known: dict[int, set[str]] = {}
        if commits:
            names = [commit.part for commit in commits]
            query = sa.select(parts.c.split, parts.c.name).where(parts.c.plan == plan.id, parts.c.name.in_(names))
            for row in tx.execute(query):
                known.setdefault(row.split, set()).add(row.name)
        return known

    def _renew_all(self, report: Report, work: _Work, now: float, ttl_s: float, refused: list[Held]) -> set[int]:
        """The splits that the instance holds and may keep."""
        kept = set()
        for held in report.held:
            state = work.states.get(held.split)
            renewed = None if state is None else rules.renew(state, held, now, ttl_s)
            if renewed is None or renewed.instance != report.instance:
                refused.append(held)
            else:
                work.set(renewed)
                kept.add(held.split)
        return kept

    def _give_again(self, report: Report, work: _Work, known: set[int], now: float, ttl_s: float) -> list[Granted]:
        """Leases of this instance that it neither holds nor committed: the answer that told of them was lost."""
        granted = []
        for no, state in sorted(work.states.items()):
            if no in known or state.status is not SplitStatus.LEASED or state.instance != report.instance:
                continue
            renewed = rules.renew(state, Held(no, state.fence), now, ttl_s)
            assert renewed is not None, "its own fence is the newest"
            granted.append(Granted(work.planned[no], work.set(renewed)))
        return granted

    def _lease(self, work: _Work, no: int, instance: str, now: float, ttl_s: float) -> Granted:
        state = work.states[no]
        part = layout.part_name(no, state.fence + 1, secrets.token_hex(4))
        return Granted(work.planned[no], work.set(rules.lease(state, instance, part, now, ttl_s)))

    def _next(self, tx: Tx, plan: _Plan, work: _Work, limit: int, now: float) -> list[int]:
        """Open splits, the lowest first; where there are none left, those whose lease has expired."""
        found: list[int] = []
        expired = sa.and_(LEASED, splits.c.lease_until <= now)
        for which in (OPEN, expired):
            if len(found) < limit:
                query = sa.select(*_SPLIT).where(splits.c.plan == plan.id, which).order_by(splits.c.no)
                query = query.limit(limit - len(found)).with_for_update(skip_locked=True)
                found += self._read(tx.execute(query), work)
        return found

    def _write(self, tx: Tx, plan: _Plan, report: Report, work: _Work) -> None:
        self._write_splits(tx, plan, work)
        if not work.parts:
            return
        tx.execute(parts.insert(), work.parts)
        for unit, count in sorted(Counter(work.planned[no].unit for no in work.done).items()):
            ours = (units.c.plan == plan.id, units.c.unit == unit)
            tx.execute(units.update().where(*ours).values(splits_left=units.c.splits_left - count))
        added = {
            **vars(work.counts),
            "splits_done": len(work.done),
            "bytes_done": sum(work.planned[no].bytes for no in work.done),
        }
        insert = tx.insert(tallies).values(plan=plan.id, instance=report.instance, **plan.owner, **added)
        sums = {name: tallies.c[name] + insert.excluded[name] for name in added}
        tx.execute(insert.on_conflict_do_update(index_elements=["plan", "instance"], set_=sums))

    def _write_splits(self, tx: Tx, plan: _Plan, work: _Work) -> None:
        if work.changed:
            tx.execute(
                _UPDATE, [{"the_plan": plan.id, **_state_values(work.states[no])} for no in sorted(work.changed)]
            )

    def _count(self, tx: Tx, plan: _Plan) -> tuple[int, int]:
        counts = []
        for which in (OPEN, LEASED):
            some = sa.select(splits.c.no).where(splits.c.plan == plan.id, which).limit(_COUNTED).subquery()
            counts.append(sa.select(sa.func.count()).select_from(some).scalar_subquery())
        open_, leased = tx.execute(sa.select(*counts)).one()
        return int(open_), int(leased)

    def _some_leased(self, which: sa.ColumnElement[bool]) -> bool:
        """Most times there is nothing to reopen, and nobody has to wait for a writer to find that out."""
        query = sa.select(splits.c.no).where(splits.c.plan == self._plan().id, LEASED, which).limit(1)
        with self._store.read() as tx:
            return tx.execute(query).first() is not None

    def _reopen(self, tx: Tx, which: sa.ColumnElement[bool], may: Callable[[SplitState], bool]) -> int:
        plan, work = self._plan(), _Work()
        query = sa.select(*_SPLIT).where(splits.c.plan == plan.id, LEASED, which)
        self._read(tx.execute(query.order_by(splits.c.no).with_for_update()), work)
        for state in list(work.states.values()):
            if may(state):
                work.set(rules.release(state))
        self._write_splits(tx, plan, work)
        return len(work.changed)


_UPDATE = (
    splits.update()
    .where(splits.c.plan == sa.bindparam("the_plan"), splits.c.no == sa.bindparam("the_no"))
    .values(
        **{
            name: sa.bindparam(f"new_{name}")
            for name in ("status", "fence", "instance", "lease_until", "cursor_object", "cursor_offset", "part")
        }
    )
)


def _state_values(state: SplitState) -> dict[str, Any]:
    return {
        "the_no": state.no,
        "new_status": state.status,
        "new_fence": state.fence,
        "new_instance": state.instance,
        "new_lease_until": state.lease_until,
        "new_cursor_object": state.cursor.object,
        "new_cursor_offset": state.cursor.offset,
        "new_part": state.part,
    }


def _state(row: Any) -> SplitState:
    return SplitState(
        no=row.no,
        status=SplitStatus(row.status),
        fence=row.fence,
        instance=row.instance,
        lease_until=row.lease_until,
        cursor=Cursor(row.cursor_object, row.cursor_offset),
        part=row.part,
    )


def _part_values(commit: Commit, run: RunId, report: Report, now: float) -> dict[str, Any]:
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
        "run": run,
        "instance": report.instance,
        "at": now,
    }


def _part(row: Any) -> CommittedPart:
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
