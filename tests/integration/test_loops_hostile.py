"""What a run survives beside kills: texts that no database takes, a storage that refuses, clocks that jump."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine
from tests.integration.loops_world import World, open_world
from tests.integration.test_loops_life import only, settle
from tidemill.domain.errors import InvalidValue, StorageDenied
from tidemill.domain.ids import InstanceId
from tidemill.domain.life import InstanceStatus, Reason, TaskStatus
from tidemill.domain.location import Location
from tidemill.ports.engine import Launch, Observation
from tidemill.store.tables import runs
from tidemill_runtime.contract import EXIT_DONE, EXIT_FATAL, Counts, Fault

S, T = InstanceStatus, TaskStatus
NASTY = "bad header \x00 and \udc80"
"""What a message may hold that came out of a user's bytes; PostgreSQL takes neither, SQLite not the second."""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = open_world(database_url, tmp_path)
    yield made
    made.store.close()


def test_a_fault_whose_message_is_no_text_ends_the_run_all_the_same(world: World) -> None:
    task = world.placed()
    fault = Fault("model_load_failed", NASTY, NASTY, NASTY)
    world.engine.end(only(world, task), EXIT_FATAL, fault)
    assert settle(world, task) == (T.FAILED, Reason.MODEL_LOAD_FAILED)
    assert "bad header" in world.row(task).detail


def test_a_log_that_is_no_text_ends_the_run_all_the_same(world: World) -> None:
    task = world.placed(retries=0)
    world.engine.write(only(world, task), b"bad header \x00\x00 \xff")
    world.engine.end(only(world, task), -11)
    assert settle(world, task) == (T.FAILED, Reason.CRASHED)
    assert "bad header" in world.row(task).detail


def test_a_reported_fault_that_is_no_text_is_taken(world: World) -> None:
    task = world.placed()
    world.fault(only(world, task), "model_load_failed", NASTY)
    assert settle(world, task) == (T.FAILED, Reason.MODEL_LOAD_FAILED)


@pytest.mark.parametrize(
    "counts", [Counts(5, 1, 1, 1), Counts(-1, -1, 0, 0), Counts(2**70, 2**70, 0, 0)], ids=["sum", "negative", "huge"]
)
def test_an_account_that_cannot_be_is_refused(world: World, counts: Counts) -> None:
    task = world.placed()
    with pytest.raises(InvalidValue):
        world.report(only(world, task), pending=counts)


def test_a_plan_that_fails_ends_the_run_although_its_folder_cannot_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = world.task()

    def denied(*_: object) -> bytes:
        raise StorageDenied("the storage refuses.")

    monkeypatch.setattr(world.objects, "create", denied)
    monkeypatch.setattr(world.objects, "read", denied)
    assert settle(world, task) == (T.SUBMIT_FAILED, Reason.STORAGE_FAILED)


class Sly(FakeEngine):
    """Something happens at the worst moment."""

    on_launch = on_observe = staticmethod(lambda: None)

    def launch(self, launches: Sequence[Launch]) -> None:
        self.on_launch()
        super().launch(launches)

    def observe(self, instances: Sequence[InstanceId]) -> list[Observation]:
        self.on_observe()
        return super().observe(instances)


def sly(world: World) -> Sly:
    engine = Sly(world.engine.capacity(), machine=world.engine.machine)
    world.engine = engine
    world.__post_init__()
    return engine


def test_an_instance_that_was_ended_while_it_was_launched_is_forgotten(world: World) -> None:
    engine = sly(world)
    task = world.task()
    world.step(world.plan)

    def stopped_meanwhile() -> None:
        engine.on_launch = lambda: None
        world.stop(task)
        for _ in range(3):
            world.step(world.reconcile)
        world.step(world.release)

    engine.on_launch = stopped_meanwhile
    world.step(world.place)
    settle(world, task)
    world.step(world.release)
    assert world.row(task).status is T.STOPPED
    assert world.engine.machine.instances == {}


def test_the_last_commit_of_a_stopped_run_is_in_its_account(world: World) -> None:
    engine = sly(world)
    task = world.placed(lines=2000, instances=2, tolerance=1.0)
    first, second = (each.id for each in world.instances(task))
    engine.stubborn = {first, second}
    (lease,) = world.report(second, want=1).leases
    world.stop(task)
    world.step(world.reconcile)
    world.engine.end(first, EXIT_DONE)

    def flushes() -> None:
        engine.on_observe = lambda: None
        world.report(second, state="stopping", commits=[world.made(lease)])
        world.engine.end(second, EXIT_DONE)

    def later() -> None:
        engine.on_observe = flushes

    engine.on_observe = later
    assert settle(world, task) == (T.STOPPED, Reason.STOPPED_BY_USER)
    assert world.run(task).splits_done == 1
    assert world.run(task).inputs > 0


@pytest.mark.parametrize("loop", ["plan", "publish"])
def test_a_run_does_not_end_while_a_loop_is_at_work_on_it(world: World, loop: str) -> None:
    """Else a late publisher would write into a folder that is another task's by then."""
    task = world.task()
    world.stop(task)
    with world.leases.hold(world.row(task).run, loop) as lease:
        assert lease is not None
        assert settle(world, task)[0] is T.STOPPING
    assert settle(world, task)[0] is T.STOPPED


def test_instances_get_time_to_be_heard_after_the_clock_or_the_machine_stood_still(world: World) -> None:
    task = world.placed(lines=5)
    instance = only(world, task)
    world.report(instance)
    world.step(world.reconcile)
    world.clock.time += 3600.0  # the machine was asleep, or its clock was put right
    world.step(world.reconcile)
    assert world.instances(task)[0].status is S.RUNNING
    silent_s = 3 * world.limits.lease_ttl_s
    for _ in range(int(silent_s) + 2):
        world.clock.time += 1.0
        world.step(world.reconcile)
    assert world.instances(task)[0].status is S.FAILED


def test_runs_of_a_region_that_is_no_longer_declared_hold_up_nobody(world: World) -> None:
    lost = world.placed()
    with world.store.write() as tx:
        tx.execute(runs.update().where(runs.c.task == lost).values(region="gone"))
    other = world.placed(lines=5)
    world.compute(only(world, other))
    world.step(world.reconcile)
    world.engine.end(only(world, other), EXIT_DONE)
    assert settle(world, other) == (T.SUCCEED, Reason.FINISHED)


def test_a_folder_goes_although_somebody_else_removes_it_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "staging" / "task"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
        (folder / name / "part").write_text("x")
    real = os.unlink

    def unlink(path: str, **where: int) -> None:
        monkeypatch.setattr("os.unlink", real)
        shutil.rmtree(folder / "b")
        real(path, **where)

    monkeypatch.setattr("os.unlink", unlink)
    world.objects.delete_below(Location("file", None, f"{folder}/"))
    assert not folder.exists()
