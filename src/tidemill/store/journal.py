"""The journal of a server: splits, leases and commits in the database. One short transaction for each exchange.

What may happen to a split is decided by `domain.splits`; here its row is locked, the decision asked for, and the row
written. Used by the coordinator, the reconcile loop and the publisher.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from tidemill.store import journal_sql as sql
from tidemill.store.base import Store, Tx
from tidemill_runtime.contract import Commit, Counts, Held, Report

_PAGE = 1000
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

    def read(self, rows: Iterable[Any]) -> list[int]:
        """Takes rows in; their numbers."""
        found = []
        for row in rows:
            self.planned[row[0]] = sql.planned_of(row)
            self.states[row[0]] = sql.state_of(row)
            found.append(row[0])
        return found

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

    # leases and commits

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
            self._write_splits(tx, plan, work)
            self._write_commits(tx, plan, report, work)
            for no in self._next(tx, plan, work, limit, now):
                granted.append(self._lease(work, no, report.instance, now, ttl_s))
            self._write_splits(tx, plan, work)
            row = tx.execute(sql.OPEN_AND_LEASED, {"the_plan": plan.id, "the_limit": sql.COUNTED}).one()
            open_, leased = int(row[0]), int(row[1])
            if work.done:
                tx.wake("publish", *(() if open_ or leased else ("reconcile",)))
        return Exchanged(granted, refused, open_, leased)

    def release_instance(self, instance: str) -> None:
        if self._some(sql.SOME_OWN, {"the_instance": instance}):
            with self._store.write(durable=False) as tx:
                self.release_in(tx, instance)

    def release_in(self, tx: Tx, instance: str) -> None:
        """`release_instance`, as part of a transaction."""
        self._reopen(tx, sql.OWN, {"the_instance": instance}, lambda _: True)

    def expire(self, now: float) -> int:
        # Most times there is nothing to reopen, and nobody has to wait for a writer to find that out.
        if not self._some(sql.SOME_EXPIRED, {"the_now": now}):
            return 0
        with self._store.write(durable=False) as tx:
            return self._reopen(tx, sql.EXPIRED, {"the_now": now}, lambda state: rules.may_lease(state, now))

    # what there is

    def totals(self) -> Totals:
        with self._store.read() as tx:
            return self.totals_in(tx)

    def totals_in(self, tx: Tx) -> Totals:
        """`totals`, as part of a transaction."""
        plan = self._plan()
        row = tx.execute(sql.SUMS, {"the_plan": plan.id}).one()
        splits_done, bytes_done, inputs, ok, failed, skipped, published = map(int, row)
        counts = Counts(inputs, ok, failed, skipped)
        return Totals(plan.splits, splits_done, plan.bytes, bytes_done, counts, plan.units, published)

    def open_splits(self, tx: Tx, limit: int) -> int:
        """How many splits nobody has, counted up to `limit`."""
        return int(tx.execute(sql.OPEN_AND_LEASED, {"the_plan": self._plan().id, "the_limit": limit}).one()[0])

    def first_failed_part(self) -> CommittedPart | None:
        """The first part, in order of the input, with a record that failed."""
        with self._store.read() as tx:
            row = tx.execute(sql.FIRST_FAILED, {"the_plan": self._plan().id}).one_or_none()
        return None if row is None else sql.part_of(row)

    def splits(self, unit: int) -> Iterator[PlannedSplit]:
        last = {"the_last": -1}
        while rows := self._page(sql.SPLITS, {"the_unit": unit, **last}):
            yield from map(sql.planned_of, rows)
            last = {"the_last": rows[-1].no}

    def parts(self, unit: int) -> Iterator[CommittedPart]:
        last = {"split": -1, "object": 0, "offset": 0}
        while rows := self._page(sql.PARTS, {"the_unit": unit, **last}):
            yield from map(sql.part_of, rows)
            end = rows[-1]
            last = {"split": end.split, "object": end.begin_object, "offset": end.begin_offset}

    def units_ready(self, limit: int) -> list[int]:
        with self._store.read() as tx:
            found = tx.execute(sql.UNITS_READY, {"the_plan": self._plan().id, "the_limit": limit})
            return list(found.scalars())

    def published(self, unit: PublishedUnit) -> None:
        counts = {f"new_{name}": count for name, count in vars(unit.counts).items()}
        values = {"new_results": unit.results, "new_size": unit.size, "the_now": self._clock.now(), **counts}
        with self._store.write(durable=False) as tx:
            tx.execute(sql.SET_PUBLISHED, {"the_plan": self._plan().id, "the_unit": unit.unit, **values})

    def units_published(self) -> Iterator[PublishedUnit]:
        last = {"the_last": -1}
        while rows := self._page(sql.UNITS_PUBLISHED, last):
            yield from (PublishedUnit(row.unit, row.results, row.size, Counts(*row[3:])) for row in rows)
            last = {"the_last": rows[-1].unit}

    def _page(self, query: sa.Executable, values: Mapping[str, Any]) -> list[Any]:
        """Rows of one page; a reader who takes his time has no transaction open meanwhile."""
        with self._store.read() as tx:
            return list(tx.execute(query, {"the_plan": self._plan().id, "the_limit": _PAGE, **values}))

    def _plan(self) -> _Plan:
        if self._found is None:
            with self._store.read() as tx:
                row = tx.execute(sql.PLAN, {"the_run": self._run}).one_or_none()
            if row is None:
                raise NotFound(f"the run {self._run} has no plan.")
            owner = {"account": row.account, "region": row.region, "actor": ""}
            self._found = _Plan(row.id, owner, row.splits, row.bytes, row.units)
        return self._found

    # steps of an exchange

    def _load(self, tx: Tx, plan: _Plan, report: Report, work: _Work) -> None:
        """Locks the splits that the report names, and those that are leased to its instance."""
        named = {commit.split for commit in report.commits} | {held.split for held in report.held}
        values = {"the_plan": plan.id, "the_instance": report.instance}
        if named:
            work.read(tx.execute(sql.NAMED_OR_OWN, {**values, "the_nos": sorted(named)}))
        else:
            work.read(tx.execute(sql.OWN, values))

    def _commit_all(self, tx: Tx, plan: _Plan, report: Report, work: _Work, now: float) -> tuple[list[Held], list[int]]:
        """Refused commits, and the splits of which a part was accepted and the rest is left."""
        refused: list[Held] = []
        rest: list[int] = []
        known = self._known_parts(tx, plan, report.commits)
        common = {"plan": plan.id, **plan.owner, "run": self._run, "instance": report.instance, "at": now}
        for commit in report.commits:
            state = work.states.get(commit.split)
            found = Verdict.REFUSED if state is None else rules.judge(state, commit, known.get(commit.split, set()))
            if found is Verdict.REFUSED:
                refused.append(Held(commit.split, commit.fence))
            elif found is Verdict.REPEATED and not commit.done:
                rest.append(commit.split)
            elif found is Verdict.ACCEPTED and state is not None:
                accepted = work.set(rules.accept(state, commit))
                known.setdefault(commit.split, set()).add(commit.part)
                work.parts.append({**common, **sql.part_values(commit)})
                work.counts += commit.counts
                (work.done if accepted.status is SplitStatus.DONE else rest).append(commit.split)
        return refused, [no for no in dict.fromkeys(rest) if work.states[no].status is SplitStatus.OPEN]

    def _known_parts(self, tx: Tx, plan: _Plan, commits: list[Commit]) -> dict[int, set[str]]:
        known: dict[int, set[str]] = {}
        if commits:
            names = [commit.part for commit in commits]
            for row in tx.execute(sql.KNOWN_PARTS, {"the_plan": plan.id, "the_names": names}):
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
        for query, when in ((sql.NEXT_OPEN, {}), (sql.NEXT_EXPIRED, {"the_now": now})):
            if len(found) < limit:
                found += work.read(tx.execute(query, {"the_plan": plan.id, "the_limit": limit - len(found), **when}))
        return found

    def _write_commits(self, tx: Tx, plan: _Plan, report: Report, work: _Work) -> None:
        if not work.parts:
            return
        tx.execute(sql.ADD_PART, work.parts)
        for unit, count in sorted(Counter(work.planned[no].unit for no in work.done).items()):
            tx.execute(sql.SET_UNIT, {"the_plan": plan.id, "the_unit": unit, "the_count": count})
        done_bytes = sum(work.planned[no].bytes for no in work.done)
        added = {**vars(work.counts), "splits_done": len(work.done), "bytes_done": done_bytes}
        same = {"plan": plan.id, "instance": report.instance, **plan.owner}
        tx.execute(sql.add_to_tally(tx.sqlite), {**same, **added})

    def _write_splits(self, tx: Tx, plan: _Plan, work: _Work) -> None:
        if work.changed:
            tx.execute(sql.SET_SPLIT, [sql.state_values(plan.id, work.states[no]) for no in sorted(work.changed)])
            work.changed.clear()

    def _some(self, query: sa.Executable, values: Mapping[str, Any]) -> bool:
        with self._store.read() as tx:
            return tx.execute(query, {"the_plan": self._plan().id, **values}).first() is not None

    def _reopen(
        self, tx: Tx, query: sa.Executable, values: Mapping[str, Any], may: Callable[[SplitState], bool]
    ) -> int:
        plan, work = self._plan(), _Work()
        work.read(tx.execute(query, {"the_plan": plan.id, **values}))
        reopened = [work.set(rules.release(state)) for state in list(work.states.values()) if may(state)]
        self._write_splits(tx, plan, work)
        return len(reopened)
