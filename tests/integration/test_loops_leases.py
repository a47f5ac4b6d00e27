"""Several controllers over one store: order, unlocking, stale tokens, contention, for each loop; and `Loop`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.loops_world import World, open_world
from tidemill.domain.errors import StorageUnavailable
from tidemill.domain.ids import TaskId
from tidemill.domain.life import InstanceStatus, TaskStatus
from tidemill.loops.leases import TTL_S, LeaseLost, WorkLease
from tidemill.loops.loop import Due, Handler, Loop
from tidemill.ports.clock import SystemClock
from tidemill.ports.engine import Resources
from tidemill_runtime.contract import EXIT_DONE

LOOPS = ["plan", "place", "reconcile", "publish", "release"]


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = open_world(database_url, tmp_path, Resources(8000, 8 << 30))
    yield made
    made.store.close()


def handler_of(world: World, loop: str) -> Handler:
    found: Handler = getattr(world, loop)
    return found


def ready_for(world: World, loop: str, **keys: object) -> TaskId:
    """A task that this loop has something to do for."""
    task = world.task(**keys)  # type: ignore[arg-type]
    if loop == "plan":
        return task
    world.step(world.plan)
    if loop == "place":
        return task
    world.step(world.place)
    (instance,) = world.instances(task)
    world.compute(instance.id)
    if loop == "reconcile":
        return task
    world.engine.end(instance.id, EXIT_DONE)
    for _ in range(3):
        world.step(world.reconcile)
    if loop == "release":
        world.step(world.publish)
    return task


def traces(world: World, task: TaskId) -> object:
    """What each loop changes."""
    run, instances = world.run(task), world.instances(task)
    moments = (run.planned, run.placed, run.computed, run.released, run.published, run.ended, run.sweep_at)
    return run.status, moments, [(each.id, each.status, each.forgotten) for each in instances]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stale_token_changes_nothing(world: World, loop: str) -> None:
    task = ready_for(world, loop)
    before = traces(world, task)
    handler = handler_of(world, loop)
    (subject,) = [each for each in handler.due().subjects if each != "housekeeping"]
    with pytest.raises(LeaseLost):
        handler.work(subject, WorkLease(subject, loop, "nobody.0"))
    after = traces(world, task)
    if loop == "release":  # that an ended instance is forgotten may be said twice
        assert after[:2] == before[:2]  # type: ignore[index]
    else:
        assert after == before
    assert world.step(handler), "whoever has the lease does it"
    assert traces(world, task) != before


@pytest.mark.parametrize("loop", LOOPS)
def test_one_of_two_controllers_does_it(world: World, loop: str) -> None:
    task = ready_for(world, loop)
    other = world.another()
    before = traces(world, task)
    subject = next(each for each in handler_of(other, loop).due().subjects if each != "housekeeping")
    with other.leases.hold(subject, loop) as lease:
        assert lease is not None
        assert subject not in world.step(handler_of(world, loop))
        assert traces(world, task) == before
        handler_of(other, loop).work(subject, lease)
    assert traces(world, task) != before


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_over_is_unlocked(world: World, loop: str) -> None:
    ready_for(world, loop)
    subject = handler_of(world, loop).due().subjects[0]
    with pytest.raises(ZeroDivisionError), world.leases.hold(subject, loop):
        1 / 0  # noqa: B018 - it fails
    with world.another().leases.hold(subject, loop) as lease:
        assert lease is not None


def test_a_lease_that_has_run_out_is_taken_over(world: World) -> None:
    with world.leases.hold("run", "plan") as first:
        assert first is not None
        with world.another().leases.hold("run", "plan") as early:
            assert early is None
        world.clock.time += TTL_S
        with world.another().leases.hold("run", "plan") as late:
            assert late is not None
            with pytest.raises(LeaseLost), world.store.write() as tx:
                first.guard(tx)
        with world.another().leases.hold("run", "publish") as elsewhere:
            assert elsewhere is not None, "loops do not exclude each other"


def test_a_server_that_was_killed_takes_back_what_it_had(world: World) -> None:
    killed = world.another("one").leases.hold("run", "plan")
    assert killed.__enter__() is not None
    with world.leases.hold("run", "plan") as lease:
        assert lease is None
    world.leases.start()
    try:
        with world.leases.hold("run", "plan") as lease:
            assert lease is not None
    finally:
        world.leases.stop()


def test_the_urgent_and_old_go_first(world: World) -> None:
    tasks = [world.task(), world.task(), world.task(priority=7)]
    runs = [world.row(task).run for task in (tasks[2], tasks[0], tasks[1])]
    assert world.plan.due().subjects == runs
    world.step(world.plan)
    world.step(world.place)
    assert [launch.manifest.run for launch in world.engine.launches] == runs
    for task in tasks:
        world.compute(world.instances(task)[0].id)
    assert world.reconcile.due().subjects == runs
    world.step(world.reconcile)
    for task in tasks:
        world.engine.end(world.instances(task)[0].id, EXIT_DONE)
    world.step(world.reconcile)
    assert world.publish.due().subjects == runs
    world.step(world.reconcile)
    world.step(world.publish)
    assert [world.row(task).status for task in tasks] == [TaskStatus.SUCCEED] * 3
    assert set(world.release.due().subjects) >= set(runs)


def test_a_restart_between_row_and_launch_launches_it(world: World) -> None:
    task = world.task()
    world.step(world.plan)

    def died(*_: object) -> None:
        raise KeyboardInterrupt

    launch, world.engine.launch = world.engine.launch, died  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        world.step(world.place)
    world.engine.launch = launch  # type: ignore[method-assign]
    assert world.instances(task)[0].status is InstanceStatus.PENDING
    again = world.another("one")
    again.step(again.place)
    assert world.instances(task)[0].status is InstanceStatus.STARTING
    assert len(world.engine.launches) == 1


def test_a_restart_between_launch_and_row_launches_nothing_twice(world: World) -> None:
    task = world.placed()
    (instance,) = world.instances(task)
    with world.store.write() as tx:
        tx.connection.exec_driver_sql("UPDATE instances SET status = 'PENDING'")
    again = world.another("one")
    again.step(again.place)
    again.step(again.reconcile)
    assert world.instances(task)[0].status is InstanceStatus.STARTING
    assert [launch.instance for launch in world.engine.launches] == [instance.id]


class Recorder(Handler):
    """Does what the test says, and remembers."""

    name = "plan"
    workers = 2

    def __init__(self, subjects: list[str], work: Callable[[str], None]) -> None:
        self.subjects = subjects
        self._work = work
        self.seen: list[str] = []
        self.told: list[tuple[str, str, int]] = []
        self.recoveries: list[str] = []
        self.done = threading.Event()

    def due(self) -> Due:
        return Due([each for each in self.subjects if each not in self.seen], 0.01)

    def work(self, subject: str, lease: WorkLease) -> None:
        self._work(subject)
        self.seen.append(subject)
        if set(self.seen) == set(self.subjects):
            self.done.set()

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        self.told.append((subject, str(error), failures))

    def recovered(self, subject: str) -> None:
        self.recoveries.append(subject)


def run_loop(world: World, handler: Recorder) -> Loop:
    loop = Loop(handler, world.leases, SystemClock())
    loop.start()
    return loop


def test_one_failing_subject_holds_up_nobody_and_is_tried_again(world: World) -> None:
    failures = iter([StorageUnavailable("gone"), ValueError("odd")])

    def work(subject: str) -> None:
        error = next(failures, None) if subject == "bad" else None
        if error is not None:
            raise error

    handler = Recorder(["bad", "good", "better"], work)
    loop = run_loop(world, handler)
    assert handler.done.wait(30)
    loop.stop()
    assert handler.told == [("bad", "gone", 1), ("bad", "odd", 2)]
    assert handler.seen[-1] == "bad"
    assert handler.recoveries == ["bad"]


def test_a_look_that_fails_is_shown_and_repeated(world: World) -> None:
    handler = Recorder(["one"], lambda _: None)
    looks = iter([StorageUnavailable("no database")])
    due = handler.due

    def failing() -> Due:
        error = next(looks, None)
        if error is not None:
            raise error
        return due()

    handler.due = failing  # type: ignore[method-assign]
    loop = run_loop(world, handler)
    assert handler.done.wait(30)
    assert loop.alive and loop.error is None
    loop.stop()
    assert not loop.alive


def test_a_long_work_does_not_hold_up_the_others(world: World) -> None:
    hold = threading.Event()
    handler = Recorder(["long", "short"], lambda subject: (hold.wait(30), None)[1] if subject == "long" else None)
    loop = run_loop(world, handler)
    while handler.seen != ["short"]:
        assert loop.alive
        threading.Event().wait(0.005)
    hold.set()
    assert handler.done.wait(30)
    loop.stop()
