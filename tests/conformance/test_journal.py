"""What every journal has to do, run against each kind: a file (`tidemill run`) and the server's store.

A kind is a factory: `factory(splits, run)` makes a journal over planned splits, and `factory.reopen(run)` closes it and
opens it again, as after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tidemill.domain.ids import AccountId, RegionName, RunId, TaskId
from tidemill.domain.life import TaskStatus
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan
from tidemill.domain.splits import Cut, Layout, ListedObject, PlannedSplit, plan_splits
from tidemill.local.journal import FileJournal
from tidemill.ports.journal import Exchanged, Granted, Journal, PublishedUnit
from tidemill.store.base import Store
from tidemill.store.journal import SqlJournal
from tidemill.store.migrate import migrate
from tidemill.store.plans import ready, save_plan
from tidemill.store.records import Owner
from tidemill.store.runs import insert_run, set_run
from tidemill.store.tasks import insert_task
from tidemill_runtime.contract import CONTRACT_VERSION, Commit, Counts, Cursor, Held, Report

TTL_S = 30.0
OWNER = Owner(AccountId("a"), RegionName("local"), "key")


class Factory(Protocol):
    def __call__(self, splits: list[PlannedSplit], run: str) -> Journal: ...

    def reopen(self, run: str) -> Journal: ...

    def close(self) -> None: ...


class FileFactory:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.jsonl"
        self._journal: FileJournal | None = None

    def __call__(self, splits: list[PlannedSplit], run: str) -> Journal:
        self.close()
        self._journal = FileJournal.create(self._path, {}, iter(splits), run=run)
        return self._journal

    def reopen(self, run: str) -> Journal:
        self.close()
        self._journal = FileJournal.open_(self._path, run=run)
        assert self._journal is not None
        return self._journal

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()


class StoreFactory:
    """A task of its own for each journal, a run of it for each opening."""

    def __init__(self, url: str) -> None:
        self._store = Store(url)
        migrate(self._store)
        self._tasks = 0

    def __call__(self, splits: list[PlannedSplit], run: str) -> Journal:
        self._tasks += 1
        self._first = self._begin(run)
        plan = Plan(
            listing=Location("file", None, "/listing"),
            objects=len(splits),
            bytes=sum(split.bytes for split in splits),
            splits=len(splits),
            units=splits[-1].unit + 1,
            cut=Cut.RANGES,
            layout=Layout.PER_OBJECT,
            listing_sha256="ab",
            input_type="jsonl",
        )
        save_plan(self._store, OWNER, self._first, self._task, plan, splits, 0.0)
        with self._store.write() as tx:
            ready(tx, self._first, 0.0)
        return SqlJournal(self._store, self._first)

    def reopen(self, run: str) -> Journal:
        again = self._begin(run)
        with self._store.write() as tx:
            set_run(tx, again, {"plan": self._first})
        return SqlJournal(self._store, again)

    @property
    def _task(self) -> TaskId:
        return TaskId(f"batch-{self._tasks}")

    def _begin(self, run: str) -> RunId:
        id_ = RunId(f"{self._task}-{run}")
        number = int(run[1:])
        common = {**OWNER.values, "priority": 0, "instances": 1, "created": 0.0, "status": TaskStatus.FAILED}
        task = {"name": "t", "spec": {}, "tags": {}, "output": "o", "updated": 0.0, "run": id_}
        with self._store.write() as tx:
            if number == 1:
                insert_task(tx, {"id": self._task, **common, **task})
            insert_run(tx, {"id": id_, "task": self._task, "number": number, **common})
        return id_

    def close(self) -> None:
        self._store.close()


@pytest.fixture(params=["file", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Factory]:
    made: FileFactory | StoreFactory = FileFactory(tmp_path)
    if request.param == "sqlite":
        made = StoreFactory(f"sqlite:///{tmp_path}/store.db")
    elif request.param == "postgres":
        made = StoreFactory(request.getfixturevalue("postgres_url"))
    yield made
    made.close()


def splits_of(sizes: list[int], cut: Cut = Cut.RANGES) -> list[PlannedSplit]:
    listing = [ListedObject(n, f"{n}.jsonl", size, "e", n * 50, n * 50 + 50) for n, size in enumerate(sizes)]
    return list(
        plan_splits(listing, cut, Layout.PER_OBJECT, total_objects=len(sizes), total_bytes=sum(sizes), processes=8)
    )


TWO_UNITS = splits_of([190, 50])
"""Three ranges of one object (unit 0) and a small object (unit 1)."""


def report(
    instance: str = "one", *, commits: tuple[Commit, ...] = (), held: tuple[Granted, ...] = (), want: int = 0
) -> Report:
    return Report(
        CONTRACT_VERSION,
        instance,
        "running",
        commits=list(commits),
        held=[Held(each.split.no, each.state.fence) for each in held],
        want=want,
    )


ONE = Counts(1, 1)


def commit(granted: Granted, *, to: int | None = None, counts: Counts = ONE) -> Commit:
    """All that is left of the lease, or its part up to the offset `to`."""
    part = granted.state.part
    assert part is not None
    begin = granted.state.cursor
    return Commit(
        split=granted.split.no,
        fence=granted.state.fence,
        part=part,
        begin=begin,
        end=Cursor(0, to) if to is not None else Cursor(granted.split.objects, 0),
        done=to is None,
        data_bytes=5,
        errors_bytes=1,
        index_bytes=2,
        sha256="ab" * 32,
        counts=counts,
    )


def take(journal: Journal, instance: str = "one", limit: int = 1, now: float = 0.0) -> list[Granted]:
    return journal.exchange(report(instance, want=limit), limit=limit, now=now, ttl_s=TTL_S).granted


def test_leases_the_lowest_open_splits_up_to_the_limit(factory: Factory) -> None:
    journal = factory(TWO_UNITS, "r1")
    first = journal.exchange(report(want=2), limit=2, now=0.0, ttl_s=TTL_S)
    assert [each.split.no for each in first.granted] == [0, 1]
    assert (first.open, first.leased) == (len(TWO_UNITS) - 2, 2)
    assert all(each.split == TWO_UNITS[each.split.no] for each in first.granted)
    assert len({each.state.part for each in first.granted}) == 2
    assert [each.split.no for each in take(journal, "two", 9)] == list(range(2, len(TWO_UNITS)))
    assert take(journal, "three", 1) == []


def test_a_report_that_is_repeated_gets_the_same_leases(factory: Factory) -> None:
    journal = factory(TWO_UNITS, "r1")
    first = take(journal)
    again = journal.exchange(report(want=1), limit=0, now=1.0, ttl_s=TTL_S).granted
    assert [(each.split.no, each.state.fence, each.state.part) for each in again] == [
        (each.split.no, each.state.fence, each.state.part) for each in first
    ]


def test_held_leases_are_renewed_and_not_given_again(factory: Factory) -> None:
    journal = factory(TWO_UNITS, "r1")
    (mine,) = take(journal)
    answer = journal.exchange(report(held=(mine,)), limit=0, now=25.0, ttl_s=TTL_S)
    assert answer.granted == [] and answer.refused == []
    assert journal.expire(54.0) == 0
    assert journal.expire(56.0) == 1


def test_a_commit_counts_and_repeating_it_changes_nothing(factory: Factory) -> None:
    journal = factory(TWO_UNITS, "r1")
    (mine,) = take(journal)
    done = report(commits=(commit(mine, counts=Counts(4, 2, 1, 1)),))
    for _ in range(2):
        answer = journal.exchange(done, limit=0, now=1.0, ttl_s=TTL_S)
        assert answer.refused == [] and answer.granted == []
    totals = journal.totals()
    assert totals.counts == Counts(4, 2, 1, 1)
    assert (totals.splits, totals.splits_done, totals.bytes_done) == (len(TWO_UNITS), 1, TWO_UNITS[0].bytes)
    (part,) = journal.parts(0)
    assert (part.split, part.begin, part.name, part.run[-2:]) == (0, Cursor(), mine.state.part, "r1")
    assert (part.data_bytes, part.errors_bytes, part.index_bytes, part.sha256) == (5, 1, 2, "ab" * 32)


def test_the_rest_of_a_split_comes_back_beyond_the_limit_and_again_if_the_answer_is_lost(factory: Factory) -> None:
    journal = factory(TWO_UNITS, "r1")
    (mine,) = take(journal)
    partly = report(commits=(commit(mine, to=40),))
    (rest,) = journal.exchange(partly, limit=0, now=1.0, ttl_s=TTL_S).granted
    assert (rest.split.no, rest.state.cursor, rest.state.fence) == (0, Cursor(0, 40), mine.state.fence + 1)
    (again,) = journal.exchange(partly, limit=0, now=2.0, ttl_s=TTL_S).granted
    assert (again.state.fence, again.state.part) == (rest.state.fence, rest.state.part)
    assert journal.exchange(report(commits=(commit(rest),)), limit=0, now=3.0, ttl_s=TTL_S).refused == []
    assert [(part.begin, part.end) for part in journal.parts(0)] == [
        (Cursor(), Cursor(0, 40)),
        (Cursor(0, 40), Cursor(1, 0)),
    ]


def test_an_expired_lease_is_taken_over_and_its_former_owner_refused(factory: Factory) -> None:
    journal = factory(splits_of([50]), "r1")
    (mine,) = take(journal, "one")
    assert take(journal, "two", now=TTL_S - 1) == []
    (taken,) = take(journal, "two", now=TTL_S)
    assert taken.state.fence == mine.state.fence + 1
    late = journal.exchange(report("one", commits=(commit(mine),)), limit=0, now=TTL_S + 1, ttl_s=TTL_S)
    assert late.refused == [Held(0, mine.state.fence)]
    held = journal.exchange(report("one", held=(mine,)), limit=0, now=TTL_S + 1, ttl_s=TTL_S)
    assert held.refused == [Held(0, mine.state.fence)]
    assert journal.totals().counts == Counts()
    assert journal.exchange(report("two", commits=(commit(taken),)), limit=0, now=TTL_S + 2, ttl_s=TTL_S).refused == []


def test_an_expired_lease_that_nobody_took_is_still_good(factory: Factory) -> None:
    journal = factory(splits_of([50]), "r1")
    (mine,) = take(journal)
    answer = journal.exchange(report(commits=(commit(mine),)), limit=0, now=10 * TTL_S, ttl_s=TTL_S)
    assert answer.refused == []
    assert journal.totals().splits_done == 1


def test_splits_of_a_released_instance_are_open_at_once(factory: Factory) -> None:
    journal = factory(splits_of([50]), "r1")
    (mine,) = take(journal, "one")
    journal.release_instance("one")
    (other,) = take(journal, "two")
    assert other.state.fence > mine.state.fence
    zombie = journal.exchange(report("one", commits=(commit(mine),)), limit=0, now=1.0, ttl_s=TTL_S)
    assert zombie.refused == [Held(0, mine.state.fence)]
    journal.release_instance("nobody")


@pytest.mark.parametrize(
    "forge",
    [
        lambda good: Commit(**{**vars(good), "split": 99}),
        lambda good: Commit(**{**vars(good), "part": "00000000.1.another"}),
        lambda good: Commit(**{**vars(good), "begin": Cursor(0, 7)}),
        lambda good: Commit(**{**vars(good), "fence": 7}),
        lambda good: Commit(**{**vars(good), "end": Cursor(), "done": False}),
    ],
)
def test_commits_that_fit_no_lease_are_refused(factory: Factory, forge: Callable[[Commit], Commit]) -> None:
    journal = factory(TWO_UNITS, "r1")
    (mine,) = take(journal)
    forged = forge(commit(mine))
    answer = journal.exchange(report(commits=(forged,), held=(mine,)), limit=0, now=1.0, ttl_s=TTL_S)
    assert answer.refused == [Held(forged.split, forged.fence)]
    assert journal.totals().counts == Counts()
    assert list(journal.parts(0)) == []


def test_units_are_ready_when_all_their_splits_are_done(factory: Factory) -> None:
    journal = factory(TWO_UNITS, "r1")
    assert [split.no for split in journal.splits(0)] == [0, 1, 2][: len(TWO_UNITS) - 1]
    granted = take(journal, limit=len(TWO_UNITS))
    assert journal.units_ready(9) == []
    journal.exchange(report(commits=tuple(map(commit, reversed(granted)))), limit=0, now=1.0, ttl_s=TTL_S)
    assert journal.units_ready(9) == [0, 1]
    assert journal.units_ready(1) == [0]
    assert [part.split for part in journal.parts(0)] == [split.no for split in journal.splits(0)]
    unit = PublishedUnit(1, 1, 5, Counts(1, 1))
    journal.published(unit)
    journal.published(unit)
    assert journal.units_ready(9) == [0]
    assert list(journal.units_published()) == [unit]
    assert (journal.totals().units, journal.totals().units_published) == (2, 1)
    assert list(journal.parts(99)) == [] and list(journal.splits(99)) == []


def test_a_restart_keeps_commits_and_publications_and_raises_fences(factory: Factory) -> None:
    journal = factory(TWO_UNITS, "r1")
    first, second = take(journal, limit=2)
    journal.exchange(report(commits=(commit(first),), held=(second,)), limit=0, now=1.0, ttl_s=TTL_S)
    journal.published(PublishedUnit(0, 1, 5, Counts(1, 1)))
    before = (journal.totals(), list(journal.parts(0)), list(journal.units_published()))
    journal = factory.reopen("r2")
    assert (journal.totals(), list(journal.parts(0)), list(journal.units_published())) == before
    journal.release_instance("one")
    (again,) = take(journal, "two")
    assert (again.split.no, again.state.fence > second.state.fence) == (second.split.no, True)
    journal.exchange(report("two", commits=(commit(again),)), limit=0, now=1.0, ttl_s=TTL_S)
    assert [part.run[-2:] for part in journal.parts(0)] == ["r1", "r2"]


def leases_of(answer: Exchanged) -> set[tuple[int, int, str | None]]:
    return {(each.split.no, each.state.fence, each.state.part) for each in answer.granted}


class Exchanges(RuleBasedStateMachine):
    """Three instances with lost answers, late commits, deaths, expiry and restarts, against any journal."""

    factory: Factory

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.holds: dict[str, dict[int, Granted]] = {name: {} for name in ("a", "b", "c")}
        self.old: list[Granted] = []
        self.unanswered: dict[str, Report] = {}
        self.runs = 1

    @initialize(sizes=st.lists(st.integers(0, 180), min_size=1, max_size=6))
    def begin(self, sizes: list[int]) -> None:
        self.splits = splits_of(sizes)
        self.journal = self.factory(self.splits, "r1")

    def send(self, sent: Report) -> Exchanged:
        return self.journal.exchange(sent, limit=sent.want, now=self.now, ttl_s=TTL_S)

    def apply(self, instance: str, sent: Report) -> None:
        answer = self.send(sent)
        for each in [*answer.refused, *(Held(each.split, each.fence) for each in sent.commits)]:
            mine = self.holds[instance].get(each.split)
            if mine is not None and mine.state.fence == each.fence:
                del self.holds[instance][each.split]
        for granted in answer.granted:
            assert granted.split.no not in self.holds[instance]
            self.holds[instance][granted.split.no] = granted
            self.old.append(granted)

    @rule(
        instance=st.sampled_from("abc"),
        want=st.integers(0, 3),
        finish=st.sets(st.integers(0, 10), max_size=3),
        step=st.none() | st.integers(1, 200),
        lost=st.sampled_from(["", "", "once", "for a while"]),
    )
    def say(self, instance: str, want: int, finish: set[int], step: int | None, lost: str) -> None:
        """Commits some of what it holds (wholly, or `step` further), keeps the rest, wants more.

        When the answer is lost, it says the very same again, at once or after others have had their say.
        """
        if instance in self.unanswered:
            self.apply(instance, self.unanswered.pop(instance))
            return
        holds = list(self.holds[instance].values())
        ending = [granted for at, granted in enumerate(holds) if at in finish]
        kept = tuple(granted for granted in holds if granted not in ending)
        commits = tuple(commit(each, to=None if step is None else each.state.cursor.offset + step) for each in ending)
        sent = report(instance, commits=commits, held=kept, want=want)
        if lost == "for a while":
            self.send(sent)
            self.unanswered[instance] = sent
        elif lost:
            first = self.send(sent)
            again = self.journal.exchange(sent, limit=0, now=self.now, ttl_s=TTL_S)
            assert again.refused == first.refused
            assert leases_of(again) == leases_of(first)
            self.apply(instance, replace(sent, want=0))
        else:
            self.apply(instance, sent)

    @precondition(lambda self: self.old)
    @rule(instance=st.sampled_from("abc"), data=st.data())
    def zombie(self, instance: str, data: st.DataObject) -> None:
        """A commit from the past, whoever has the split by now."""
        granted = data.draw(st.sampled_from(self.old))
        if instance in self.unanswered or any(granted in holds.values() for holds in self.holds.values()):
            return  # who waits for an answer says nothing else meanwhile
        held = tuple(self.holds[instance].values())
        self.apply(
            instance,
            report(instance, commits=(commit(granted, to=granted.state.cursor.offset + 1),), held=held),
        )

    @rule(instance=st.sampled_from("abc"))
    def die(self, instance: str) -> None:
        self.journal.release_instance(instance)
        self.holds[instance] = {}
        self.unanswered.pop(instance, None)

    @rule(seconds=st.sampled_from([1.0, TTL_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.journal.expire(self.now)

    @rule()
    def restart(self) -> None:
        self.runs += 1
        self.journal = self.factory.reopen(f"r{self.runs}")
        for instance in self.holds:
            self.die(instance)

    @invariant()
    def parts_are_contiguous_and_add_up(self) -> None:
        if not hasattr(self, "journal"):
            return
        counts, names, done = Counts(), set(), 0
        for unit in sorted({split.unit for split in self.splits}):
            ends: dict[int, Cursor] = {}
            for part in self.journal.parts(unit):
                assert part.begin == ends.get(part.split, Cursor())
                ends[part.split] = part.end
                counts += part.counts
                assert part.name not in names
                names.add(part.name)
            assert list(ends) == sorted(ends)
            done += sum(ends.get(split.no, Cursor()).object == split.objects for split in self.journal.splits(unit))
        totals = self.journal.totals()
        assert (totals.counts, totals.splits_done) == (counts, done)

    def teardown(self) -> None:
        """Whatever happened, one instance can finish all that is left, and every split is done exactly once."""
        if not hasattr(self, "journal"):
            return
        for instance in self.holds:
            self.die(instance)
        for _ in range(2 * len(self.splits) + 2):
            held = tuple(self.holds["a"].values())
            self.apply("a", report("a", commits=tuple(map(commit, held)), want=5))
        self.parts_are_contiguous_and_add_up()
        assert self.journal.totals().splits_done == len(self.splits)
        assert len(self.journal.units_ready(10_000)) == self.journal.totals().units


def test_whatever_happens_nothing_is_lost_and_nothing_doubled(factory: Factory) -> None:
    machine = type("Machine", (Exchanges,), {"factory": factory})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )
