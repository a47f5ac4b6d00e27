"""What an instance is answered: directives, shares of the last splits, leases with access. Over a real journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.coordination.coordinator import Coordinator, CoordinatorSettings, Wish
from tidemill.domain.errors import Conflict
from tidemill.local.journal import FileJournal
from tidemill.objects.local import LocalObjects
from tidemill.planning.check import check_task
from tidemill.planning.plan import make_plan
from tidemill.ports.clock import Clock
from tidemill.wire.taskfile import parse_task
from tidemill_runtime.contract import (
    CONTRACT_VERSION,
    Commit,
    Counts,
    Cursor,
    Fault,
    Held,
    Lease,
    Orders,
    Report,
    local_etag,
)


class StillClock(Clock):
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Door:
    """A coordinator over a folder with one object of `lines` lines."""

    def __init__(self, root: Path, lines: int, instances: int = 1) -> None:
        (root / "in").mkdir()
        (root / "in/一 #.jsonl").write_bytes(b'{"x": 1}\n' * lines)
        self.root = root
        self.objects = LocalObjects(None)
        task = parse_task({"name": "t", "model": "m", "input": f"{root}/in/", "output": f"{root}/out"})
        checked = check_task(task, self.objects, base=None, local_paths=True)
        self.plan, splits = make_plan(self.objects, checked, "t", processes=8)
        self.journal = FileJournal.create(root / "journal", {}, splits, run="r")
        self.clock = StillClock()
        self.coordinator = Coordinator(
            self.journal,
            self.objects,
            self.plan,
            input=checked.input_folder,
            parts=checked.output.child("parts/"),
            clock=self.clock,
            settings=CoordinatorSettings(lease_ttl_s=30, report_every_s=0.5),
            instances=instances,
        )

    def say(self, *, wish: Wish = Wish.WORK, instance: str = "one", **report: object) -> Orders:
        values = {"version": CONTRACT_VERSION, "state": "running", **report}
        return self.coordinator.answer(Report(instance=instance, **values), wish)  # type: ignore[arg-type]


@pytest.fixture
def door(tmp_path: Path) -> Callable[..., Door]:
    def make(lines: int, instances: int = 1) -> Door:
        made.append(Door(tmp_path, lines, instances))
        return made[-1]

    made: list[Door] = []
    return make


def held(lease: Lease) -> Held:
    return Held(lease.split, lease.fence)


def commit(lease: Lease, *, done: bool = True) -> Commit:
    end = Cursor(1, 0) if done else Cursor(0, lease.cursor.offset + 9)
    return Commit(lease.split, lease.fence, lease.part.name, lease.cursor, end, done, 2, 0, 0, "", Counts(1, 1))


def test_a_lease_has_all_that_is_needed_and_nothing_more(door: Callable[..., Door]) -> None:
    here = door(10_000)
    (lease,) = here.say(want=1).leases
    (listed,) = lease.objects
    path = here.root / "in/一 #.jsonl"
    stat = path.stat()
    assert (listed.name, listed.size, listed.ordinal) == (path.name, stat.st_size, 0)
    assert listed.etag == local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    assert (listed.get.kind, listed.get.location) == ("path", str(path))
    assert (lease.start, lease.cursor, lease.fence) == (0, Cursor(), 1)
    put = Path(lease.part.put.location)
    assert put == here.root / "out/parts" / lease.part.name
    assert put.parent.is_dir()


def test_nobody_may_hoard_the_last_splits(door: Callable[..., Door]) -> None:
    here = door(10_000, instances=4)
    assert here.plan.splits > 16
    first = here.say(want=1000).leases
    assert len(first) == here.plan.splits // 8
    seen = len(first)
    held_by = {"one": first}
    for turn in range(200):
        name = f"i{turn % 4}"
        mine = held_by.setdefault(name, [])
        orders = here.say(instance=name, want=1000, held=[held(each) for each in mine])
        seen += len(orders.leases)
        mine += orders.leases
        if seen == here.plan.splits:
            break
    assert seen == here.plan.splits
    assert here.say(instance="i9", want=5).directive == "wait"
    assert len(here.say(instance="i9", want=5).leases) == 0


def test_work_wait_finish(door: Callable[..., Door]) -> None:
    here = door(1)
    orders = here.say(want=2)
    (lease,) = orders.leases
    assert (orders.directive, orders.report_every_s) == ("work", 0.5)
    assert here.say(held=[held(lease)]).directive == "work"
    assert here.say(instance="two", want=1).directive == "wait"
    assert here.say(commits=[commit(lease)]).directive == "finish"
    assert here.say(instance="two", want=1).directive == "finish"


def test_the_rest_of_a_split_comes_with_the_answer(door: Callable[..., Door]) -> None:
    here = door(100)
    (lease,) = here.say(want=1).leases
    (rest,) = here.say(commits=[commit(lease, done=False)]).leases
    assert (rest.split, rest.cursor, rest.fence) == (lease.split, Cursor(0, 9), lease.fence + 1)
    assert rest.part.name != lease.part.name


def test_an_expired_lease_is_taken_over_and_its_work_refused(door: Callable[..., Door]) -> None:
    here = door(1)
    (lease,) = here.say(want=1).leases
    here.clock.time += 31
    (taken,) = here.say(instance="two", want=1).leases
    late = here.say(commits=[commit(lease)])
    assert late.refused == [held(lease)]
    assert here.say(instance="two", commits=[commit(taken)]).directive == "finish"


def test_flush_and_stop_give_nothing_new(door: Callable[..., Door]) -> None:
    here = door(10_000)
    (lease,) = here.say(want=1).leases
    asked = here.say(wish=Wish.FLUSH, held=[held(lease)], want=5)
    assert (asked.directive, asked.leases) == ("flush", [])
    busy = here.say(wish=Wish.FLUSH, state="stopping", held=[held(lease)], pending=Counts(3, 3))
    assert busy.directive == "flush"
    flushed = here.say(wish=Wish.FLUSH, state="stopping", commits=[commit(lease, done=False)])
    assert (flushed.directive, flushed.leases) == ("flush", [])
    assert here.say(wish=Wish.FLUSH, state="stopping").directive == "stop"
    assert here.journal.totals().counts == Counts(1, 1)
    assert here.say(wish=Wish.STOP, want=3).directive == "stop"
    here.journal.release_instance("one")
    assert here.say(instance="two", want=1).leases[0].cursor == Cursor(0, 9)


def test_a_fault_ends_the_instance_and_keeps_its_commits(door: Callable[..., Door]) -> None:
    here = door(1)
    (lease,) = here.say(want=1).leases
    orders = here.say(commits=[commit(lease)], fault=Fault("internal", "oh"), want=3)
    assert (orders.directive, orders.leases) == ("stop", [])
    assert here.journal.totals().splits_done == 1


@pytest.mark.parametrize(("version", "good"), [(CONTRACT_VERSION, True), (CONTRACT_VERSION - 1, True), (99, False)])
def test_this_version_and_the_one_before(door: Callable[..., Door], version: int, good: bool) -> None:
    here = door(1)
    if good:
        assert here.say(version=version).directive == "work"
    else:
        with pytest.raises(Conflict, match="version 99"):
            here.say(version=version)


def test_the_listing_is_read_once_for_all_ranges_of_an_object(door: Callable[..., Door]) -> None:
    here = door(10_000)
    here.say(want=1)
    os.unlink(here.plan.listing.key)
    assert len(here.say(instance="two", want=3).leases) == 3
