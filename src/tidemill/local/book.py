"""The splits of one plan in memory: who holds which, what is committed, which units are ready. Used by `journal` alone.

Everything is decided by `domain.splits`; this keeps the results where they are quickly found. `exchange` says what it
changed, and `replay_…` does the same again from what was written down.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from tidemill.domain import layout, splits
from tidemill.domain.splits import PlannedSplit, SplitState, SplitStatus, Verdict
from tidemill.ports.journal import CommittedPart, Exchanged, Granted, PublishedUnit, Totals
from tidemill_runtime.contract import Commit, Counts, Held, Report


@dataclass
class Change:
    """What an exchange did that has to outlive the process. done: whether the part is the split's last."""

    commits: list[tuple[CommittedPart, bool]] = field(default_factory=list)
    leases: list[SplitState] = field(default_factory=list)


class Book:
    def __init__(self, planned: Iterable[PlannedSplit]) -> None:
        self.planned = list(planned)
        self.states = [SplitState(split.no) for split in self.planned]
        self.parts: list[list[CommittedPart]] = [[] for _ in self.planned]
        self._open = [split.no for split in self.planned]  # a heap; may name splits that are open no more
        self._held: dict[str, set[int]] = {}
        self.units: dict[int, list[int]] = {}
        for split in self.planned:
            self.units.setdefault(split.unit, []).append(split.no)
        self._unit_left = {unit: len(numbers) for unit, numbers in self.units.items()}
        self.published: dict[int, PublishedUnit] = {}
        self._ready: set[int] = set()
        self._counts = Counts()
        self._bytes = sum(split.bytes for split in self.planned)
        self._done = self._bytes_done = 0

    def exchange(self, report: Report, *, limit: int, now: float, ttl_s: float, run: str) -> tuple[Exchanged, Change]:
        """See `ports.journal.Journal.exchange`."""
        change = Change()
        refused: list[Held] = []
        given: list[int] = []
        for commit in report.commits:
            if self._commit(commit, run, change):
                if self.states[commit.split].status is SplitStatus.OPEN and commit.split not in given:
                    given.append(commit.split)
            else:
                refused.append(Held(commit.split, commit.fence))
        kept = set()
        for held in report.held:
            renewed = splits.renew(self.states[held.split], held, now, ttl_s) if self._knows(held.split) else None
            if renewed is None or renewed.instance != report.instance:
                refused.append(held)
            else:
                self._set(renewed)
                kept.add(held.split)
        # Leased to this instance, yet neither held nor committed: the answer that told of it was lost.
        lost = sorted(self._held.get(report.instance, set()) - kept)
        granted = []
        for no in lost:
            state = self.states[no]
            renewed = splits.renew(state, Held(no, state.fence), now, ttl_s)
            assert renewed is not None
            self._set(renewed)
            granted.append(Granted(self.planned[no], renewed))
        for no in given + self._next(limit, now, set(given)):
            leased = self._lease(no, report.instance, now, ttl_s)
            change.leases.append(leased)
            granted.append(Granted(self.planned[no], leased))
        leased_count = sum(map(len, self._held.values()))
        open_count = len(self.planned) - self._done - leased_count
        return Exchanged(granted, refused, open_count, leased_count), change

    def replay_commit(self, part: CommittedPart, done: bool) -> None:
        state = self.states[part.split]
        status = SplitStatus.DONE if done else SplitStatus.OPEN
        self._accepted(SplitState(part.split, status, state.fence, cursor=part.end), part, done)

    def replay_lease(self, no: int, fence: int) -> None:
        """Only the fence matters: whoever held the lease died with the process that gave it."""
        self.states[no] = SplitState(no, fence=fence, cursor=self.states[no].cursor)

    def release_instance(self, instance: str) -> None:
        for no in sorted(self._held.get(instance, ())):
            self._reopen(no)

    def expire(self, now: float) -> int:
        gone = [no for held in self._held.values() for no in held if splits.may_lease(self.states[no], now)]
        for no in gone:
            self._reopen(no)
        return len(gone)

    def totals(self) -> Totals:
        return Totals(
            splits=len(self.planned),
            splits_done=self._done,
            bytes=self._bytes,
            bytes_done=self._bytes_done,
            counts=self._counts,
            units=len(self.units),
            units_published=len(self.published),
        )

    def units_ready(self, limit: int) -> list[int]:
        return list(itertools.islice(sorted(self._ready), limit))

    def note_published(self, unit: PublishedUnit) -> bool:
        """False if that was known."""
        if unit.unit in self.published:
            return False
        self.published[unit.unit] = unit
        self._ready.discard(unit.unit)
        return True

    def _knows(self, no: int) -> bool:
        return 0 <= no < len(self.states)

    def _commit(self, commit: Commit, run: str, change: Change) -> bool:
        if not self._knows(commit.split):
            return False
        state = self.states[commit.split]
        known = {part.name for part in self.parts[commit.split]}
        found = splits.judge(state, commit, known)
        if found is Verdict.ACCEPTED:
            part = CommittedPart(
                split=commit.split,
                begin=commit.begin,
                end=commit.end,
                name=commit.part,
                data_bytes=commit.data_bytes,
                errors_bytes=commit.errors_bytes,
                index_bytes=commit.index_bytes,
                sha256=commit.sha256,
                counts=commit.counts,
                run=run,
            )
            self._accepted(splits.accept(state, commit), part, commit.done)
            change.commits.append((part, commit.done))
        return found is not Verdict.REFUSED

    def _accepted(self, state: SplitState, part: CommittedPart, done: bool) -> None:
        self._set(state)
        self.parts[part.split].append(part)
        self._counts += part.counts
        if done:
            self._done += 1
            self._bytes_done += self.planned[part.split].bytes
            unit = self.planned[part.split].unit
            self._unit_left[unit] -= 1
            if not self._unit_left[unit]:
                self._ready.add(unit)

    def _next(self, limit: int, now: float, taken: set[int]) -> list[int]:
        """Open splits, the lowest first; when there are none left, those whose lease has expired."""
        found: list[int] = []
        put_back: list[int] = []
        while self._open and len(found) < limit:
            no = heapq.heappop(self._open)
            if no in taken:
                put_back.append(no)
            elif self.states[no].status is SplitStatus.OPEN and no not in found:
                found.append(no)
        for no in put_back:
            heapq.heappush(self._open, no)
        if len(found) < limit:
            leased = sorted(no for held in self._held.values() for no in held)
            expired = [no for no in leased if splits.may_lease(self.states[no], now)]
            found += expired[: limit - len(found)]
        return found

    def _lease(self, no: int, instance: str, now: float, ttl_s: float) -> SplitState:
        state = self.states[no]
        part = layout.part_name(no, state.fence + 1, secrets.token_hex(4))
        leased = splits.lease(state, instance, part, now, ttl_s)
        self._set(leased)
        return leased

    def _reopen(self, no: int) -> None:
        self._set(splits.release(self.states[no]))

    def _set(self, state: SplitState) -> None:
        """Every change of a state goes through here, so that who holds what is always known."""
        before = self.states[state.no]
        if before.instance is not None:
            self._held[before.instance].discard(state.no)
        if state.instance is not None:
            self._held.setdefault(state.instance, set()).add(state.no)
        elif state.status is SplitStatus.OPEN:
            heapq.heappush(self._open, state.no)
        self.states[state.no] = state
