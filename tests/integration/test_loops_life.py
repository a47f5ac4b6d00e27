"""A run from its creation to each of its ends, look by look, with an engine in memory; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.loops_world import World, open_world
from tidemill.domain.errors import Conflict, NotAllowed, NotFound, OutputTaken, StorageFull, StorageUnavailable
from tidemill.domain.ids import TaskId
from tidemill.domain.life import InstanceStatus, Reason, TaskStatus
from tidemill.domain.location import Location
from tidemill.ports.engine import Resources
from tidemill_runtime.contract import EXIT_DONE, EXIT_FATAL, EXIT_ORPHANED, EXIT_STOPPED

S, T = InstanceStatus, TaskStatus


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = open_world(database_url, tmp_path)
    yield made
    made.store.close()


def settle(world: World, task: TaskId, looks: int = 6) -> tuple[TaskStatus, Reason]:
    """So many rounds of all loops."""
    for _ in range(looks):
        for handler in (world.plan, world.place, world.reconcile, world.publish):
            world.step(handler, errors=True)
    row = world.row(task)
    return row.status, row.reason


def only(world: World, task: TaskId) -> str:
    (instance,) = world.instances(task)
    return instance.id


def test_from_creation_to_success(world: World) -> None:
    task = world.task(lines=5)
    assert (world.row(task).status, world.run(task).status) == (T.INIT, T.INIT)
    assert world.step(world.plan) == [world.row(task).run]
    assert (world.run(task).plan, world.run(task).splits) == (world.row(task).run, 1)
    world.step(world.place)
    instance = only(world, task)
    assert world.row(task).status is T.STARTING
    assert [launch.instance for launch in world.engine.launches] == [instance]
    assert world.instances(task)[0].status is S.STARTING
    world.report(instance, state="loading")
    assert (world.row(task).status, world.run(task).running) == (T.STARTING, None)
    assert world.compute(instance).directive == "finish"
    assert world.row(task).status is T.RUNNING
    assert world.run(task).first_report is not None
    world.step(world.reconcile)
    assert world.run(task).computed is not None
    world.engine.end(instance, EXIT_DONE)
    assert settle(world, task) == (T.SUCCEED, Reason.FINISHED)
    assert world.instances(task)[0].status is S.ENDED
    run = world.run(task)
    assert (run.inputs, run.ok, run.splits_done, run.bytes_done) == (5, 5, 1, run.bytes)
    output = Path(world.row(task).output)
    assert len((output / "a.jsonl.out.jsonl").read_text().splitlines()) == 5
    assert (output / "_SUCCESS").exists()
    world.step(world.release)
    assert not (output / "_tidemill").exists()
    assert world.engine.machine.instances == {}
    assert world.run(task).sweep_at is None
    told = [event.name for event in world.events(task)]
    assert told[0] == "task.created" and told[-1] == "run.status"


def test_success_with_failed_records_says_so(world: World) -> None:
    task = world.placed(lines=5, tolerance=2)
    world.compute(only(world, task), failed=2)
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_DONE)
    assert settle(world, task) == (T.SUCCEED, Reason.FINISHED_WITH_FAILED_RECORDS)
    row = world.row(task)
    assert (row.inputs, row.ok, row.failed) == (5, 3, 2)
    assert world.events(task)[-1].type == "Warning"
    assert "2 of 5 records" in row.detail


def test_too_many_failed_records_fail_the_run_with_the_first(world: World) -> None:
    task = world.placed(lines=5, tolerance=1)
    world.compute(only(world, task), failed=2)
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_DONE)
    assert settle(world, task) == (T.FAILED, Reason.TOO_MANY_FAILED_RECORDS)
    assert world.row(task).detail == "The first: ValueError: poison"
    assert not (Path(world.row(task).output) / "_SUCCESS").exists()


def test_a_dead_instance_is_replaced_under_a_new_id_until_retries_are_used_up(world: World) -> None:
    task = world.placed(retries=2)
    for attempt in (1, 2, 3):
        instance = world.instances(task)[-1]
        assert instance.id.endswith(f"-0-a{attempt}")
        world.report(instance.id, want=1)
        world.engine.end(instance.id, exit_code=-9)
        world.step(world.reconcile)
        assert world.instances(task)[-1].status is S.FAILED
        world.clock.time += 60
        world.step(world.place)
    assert settle(world, task) == (T.FAILED, Reason.CRASHED)
    assert "SIGKILL" in world.row(task).detail
    assert len(world.instances(task)) == 3


def test_the_replacement_gets_the_splits_at_once(world: World) -> None:
    task = world.placed()
    first = only(world, task)
    assert len(world.report(first, want=4).leases) == 1
    world.engine.end(first, exit_code=-9)
    world.step(world.reconcile)
    with pytest.raises(NotAllowed):
        world.report(first)
    world.clock.time += 1
    world.step(world.place)
    assert world.compute(world.instances(task)[-1].id).directive == "finish"


def test_a_model_that_cannot_be_loaded_fails_the_run_at_once(world: World) -> None:
    task = world.placed(retries=5)
    world.fault(only(world, task), "model_load_failed", "no such weights")
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_FATAL)
    assert settle(world, task) == (T.FAILED, Reason.MODEL_LOAD_FAILED)
    assert "no such weights" in world.row(task).detail
    assert len(world.instances(task)) == 1


def test_storage_faults_pause_the_run_and_do_not_use_up_retries(world: World) -> None:
    task = world.placed(retries=0)
    for _ in range(4):
        world.fault(world.instances(task)[-1].id, "staging_failed", "No space left on device")
        world.step(world.reconcile)
        world.step(world.reconcile)
        assert (world.row(task).status, world.row(task).reason) == (T.STARTING, Reason.PAUSED_DISK_FULL)
        world.clock.time += 60
        world.step(world.place)
    world.compute(world.instances(task)[-1].id)
    world.step(world.reconcile)
    for instance in world.instances(task):
        world.engine.end(instance.id, EXIT_DONE)
    assert settle(world, task) == (T.SUCCEED, Reason.FINISHED)


def test_storage_that_stays_away_fails_the_run_in_the_end(world: World) -> None:
    task = world.placed()
    for _ in range(30):
        if world.instances(task)[-1].ended is None:
            world.fault(world.instances(task)[-1].id, "input_unreadable", "HTTP 503")
        world.clock.time += 31
        world.step(world.reconcile)
        world.step(world.place)
        if world.run(task).stop_requested is not None:
            break
    world.engine.end(world.instances(task)[-1].id, EXIT_FATAL)
    assert settle(world, task) == (T.FAILED, Reason.STORAGE_FAILED)


def test_an_instance_that_gave_up_waiting_for_the_server_costs_no_retry(world: World) -> None:
    task = world.placed(retries=0)
    world.engine.end(only(world, task), EXIT_ORPHANED)
    world.step(world.reconcile)
    world.clock.time += 1
    world.step(world.place)
    assert [each.status for each in world.instances(task)] == [S.FAILED, S.STARTING]


def test_an_instance_that_the_engine_lost_is_replaced(world: World) -> None:
    task = world.placed()
    world.engine.lose(only(world, task))
    world.step(world.reconcile)
    assert world.instances(task)[0].status is S.LOST
    world.clock.time += 1
    world.step(world.place)
    assert len(world.instances(task)) == 2


def test_an_instance_that_says_nothing_is_killed_and_replaced(world: World) -> None:
    task = world.placed()
    for _ in range(int(3 * world.limits.lease_ttl_s / 5) + 1):
        world.clock.time += 5.0
        world.step(world.reconcile)
    assert world.instances(task)[0].status is S.FAILED
    assert "said nothing" in world.instances(task)[0].detail


def test_silence_while_the_server_was_away_is_nobodys_fault(world: World) -> None:
    task = world.placed()
    world.clock.time += 3600
    again = world.another("one")
    again.step(again.reconcile)
    assert again.instances(task)[0].status is S.STARTING


def test_stop_keeps_what_is_committed_and_resume_goes_on_with_the_rest(world: World) -> None:
    task = world.placed(lines=2000)
    instance = only(world, task)
    orders = world.report(instance, want=2)
    world.report(instance, commits=[world.made(orders.leases[0])], held=[])
    world.stop(task)
    world.step(world.reconcile)
    assert world.row(task).status is T.STOPPING
    assert world.report(instance, state="stopping").directive == "stop"
    world.engine.end(instance, EXIT_STOPPED)
    assert settle(world, task) == (T.STOPPED, Reason.STOPPED_BY_USER)
    assert 0 < world.row(task).inputs < 2000
    world.step(world.release)
    assert (Path(world.row(task).output) / "_tidemill").exists()

    world.clock.time += 10
    world.resume(task)
    assert (world.row(task).status, world.row(task).runs) == (T.INIT, 2)
    world.step(world.plan)
    world.step(world.place)
    (second,) = world.instances(task)
    assert second.id.endswith("-r2-0-a1")
    world.compute(second.id)
    world.step(world.reconcile)
    world.engine.end(second.id, EXIT_DONE)
    assert settle(world, task) == (T.SUCCEED, Reason.FINISHED)
    assert world.row(task).inputs == 2000


def test_resuming_when_only_publishing_was_left_starts_no_instance(world: World) -> None:
    task = world.placed()
    world.compute(only(world, task))
    world.stop(task)
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_STOPPED)
    assert settle(world, task) == (T.STOPPED, Reason.STOPPED_BY_USER)
    world.resume(task)
    assert settle(world, task) == (T.SUCCEED, Reason.FINISHED)
    assert world.instances(task) == []


def test_a_run_is_stopped_before_it_is_planned_or_placed(world: World) -> None:
    task, other = world.task(), world.task()
    world.stop(task)
    assert settle(world, task) == (T.STOPPED, Reason.STOPPED_BY_USER)
    world.stop(other)
    assert settle(world, other) == (T.STOPPED, Reason.STOPPED_BY_USER)


def test_the_deadline_stops_in_order(world: World) -> None:
    task = world.placed(deadline="60s")
    world.report(only(world, task), want=1)
    world.clock.time += 61
    world.step(world.reconcile)
    assert (world.row(task).status, world.row(task).reason) == (T.STOPPING, Reason.DEADLINE)
    assert world.report(only(world, task)).directive == "flush"
    world.engine.end(only(world, task), EXIT_STOPPED)
    assert settle(world, task) == (T.STOPPED, Reason.DEADLINE)


def test_a_task_that_waits_past_its_deadline_is_stopped(world: World) -> None:
    task = world.task(deadline="60s")
    world.clock.time += 61
    assert settle(world, task) == (T.STOPPED, Reason.DEADLINE)


def test_an_input_that_is_gone_when_it_is_planned_fails_the_submission(world: World) -> None:
    task = world.task()
    (world.folder / "in0" / "a.jsonl").unlink()
    assert settle(world, task) == (T.SUBMIT_FAILED, Reason.PLAN_FAILED)
    world.step(world.release)
    assert not (Path(world.row(task).output) / "_tidemill").exists()
    (world.folder / "in0" / "a.jsonl").write_text("{}\n")
    with pytest.raises(Conflict, match="cannot be resumed"):
        world.resume(task)


def test_an_output_folder_has_one_task_at_a_time(world: World) -> None:
    first = world.placed()
    with pytest.raises(OutputTaken, match=str(first)):
        world.task(output=world.row(first).output)
    with pytest.raises(OutputTaken, match=str(first)):
        world.task(output=f"{world.row(first).output}deeper/")
    world.compute(only(world, first))
    world.step(world.reconcile)
    world.engine.end(only(world, first), EXIT_DONE)
    settle(world, first)
    world.step(world.release)
    world.task(output={"path": world.row(first).output, "if_exists": "replace"})


def test_storage_that_does_not_answer_pauses_planning_and_publishing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = world.task()

    def unavailable(*_: object, **__: object) -> bool:
        raise StorageUnavailable("HTTP 503")

    with monkeypatch.context() as broken:
        broken.setattr(world.objects, "create", unavailable)
        world.step(world.plan, errors=True)
    assert (world.row(task).status, world.row(task).reason) == (T.INIT, Reason.PAUSED_STORAGE)
    world.step(world.plan)
    world.plan.recovered(world.row(task).run)
    assert world.row(task).reason is Reason.NONE
    world.step(world.place)
    world.compute(only(world, task))
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_DONE)
    world.step(world.reconcile)
    world.step(world.reconcile)
    with monkeypatch.context() as broken:
        broken.setattr(world.objects, "compose", unavailable)
        world.step(world.publish, errors=True)
    assert (world.row(task).status, world.row(task).reason) == (T.RUNNING, Reason.PAUSED_STORAGE)
    assert settle(world, task) == (T.SUCCEED, Reason.FINISHED)


def test_a_damaged_part_fails_the_run(world: World) -> None:
    task = world.placed()
    world.compute(only(world, task))
    parts = Path(world.row(task).output) / "_tidemill" / task / "parts"
    next(parts.iterdir()).write_bytes(b"something else")
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_DONE)
    assert settle(world, task) == (T.FAILED, Reason.RESULT_DAMAGED)


def test_scratch_is_swept_after_its_time_and_then_nothing_can_be_resumed(world: World) -> None:
    task = world.placed()
    world.stop(task)
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_STOPPED)
    settle(world, task)
    world.step(world.release)
    staging = Path(world.row(task).output) / "_tidemill"
    assert staging.exists()
    world.clock.time += world.limits.scratch_ttl_s + 1
    world.step(world.release)
    assert not staging.exists()
    with pytest.raises(Conflict, match="no longer kept"):
        world.resume(task)


def test_tasks_queue_for_capacity_and_say_why(database_url: str, tmp_path: Path) -> None:
    world = open_world(database_url, tmp_path, Resources(1000, 1 << 30))
    first, second, third = world.task(), world.task(), world.task(priority=5)
    for _ in range(3):
        world.step(world.plan)
    world.step(world.place)
    assert [world.row(each).status for each in (first, second, third)] == [T.INIT, T.INIT, T.STARTING]
    assert world.row(first).reason is Reason.WAITING_FOR_CAPACITY
    assert "needs 1 cores" in world.row(first).detail and "0 cores" in world.row(first).detail
    assert world.row(second).detail == "Others are before it."
    world.compute(only(world, third))
    world.step(world.reconcile)
    world.engine.end(only(world, third), EXIT_DONE)
    world.step(world.reconcile)
    world.step(world.place)
    assert [world.row(each).status for each in (first, second)] == [T.STARTING, T.INIT]
    assert world.row(first).reason is Reason.NONE
    world.store.close()


def test_instances_are_started_as_far_as_they_fit_and_are_useful(database_url: str, tmp_path: Path) -> None:
    world = open_world(database_url, tmp_path, Resources(2000, 4 << 30))
    small, large = world.task(instances=2), world.task(lines=3000, instances=2)
    world.step(world.plan)
    world.step(world.place)
    assert len(world.instances(small)) == 1  # it has one split
    assert len(world.instances(large)) == 1  # and one core is left
    world.compute(only(world, small))
    world.step(world.reconcile)
    world.engine.end(only(world, small), EXIT_DONE)
    world.step(world.reconcile)
    world.step(world.place)
    assert len(world.instances(large)) == 2
    world.store.close()


def test_what_cannot_be_launched_is_noted_and_tried_again(world: World) -> None:
    task = world.task(retries=1)
    world.step(world.plan)
    run = world.row(task).run
    world.engine.refuse = {f"{run}-0-a1"}  # type: ignore[arg-type]
    world.step(world.place)
    assert "refuses" in world.instances(task)[0].detail
    world.clock.time += 1
    world.step(world.place)
    assert [each.status for each in world.instances(task)] == [S.FAILED, S.STARTING]


def test_logs_and_packages_are_looked_after_now_and_then(world: World) -> None:
    world.step(world.release)
    world.step(world.release)
    assert world.swept == ["packages"]
    world.clock.time += 3601
    world.step(world.release)
    assert world.swept == ["packages", "packages"]


def test_claims_of_storage_are_given_back_at_every_end(world: World) -> None:
    task = world.placed()
    claim = Location("file", None, f"{world.row(task).output}_tidemill/claim.json")
    assert world.objects.head(claim) is not None
    world.stop(task)
    world.step(world.reconcile)
    world.engine.end(only(world, task), EXIT_STOPPED)
    settle(world, task)
    assert world.objects.head(claim) is None


def test_a_run_that_cannot_be_placed_keeps_nobody_waiting(world: World) -> None:
    bad, good = world.task(), world.task()
    world.step(world.plan)
    with world.store.write() as tx:
        tx.connection.exec_driver_sql(f"UPDATE tasks SET model_digest = 'ab' WHERE id = '{bad}'")
        tx.connection.exec_driver_sql("UPDATE runs SET model_path = '/gone'")
        tx.connection.exec_driver_sql(f"UPDATE runs SET model_path = '/' WHERE task = '{good}'")

    def full(digest: str) -> Path:
        raise StorageFull("no space is left.")

    def gone(digest: str) -> Path:
        raise NotFound(f"there is no package {digest}.")

    object.__setattr__(world.context, "make_folder", full)
    world.step(world.place)
    assert world.row(good).status is T.STARTING
    assert (world.row(bad).status, world.row(bad).reason) == (T.INIT, Reason.PAUSED_DISK_FULL)
    object.__setattr__(world.context, "make_folder", gone)
    world.clock.time += 60
    assert settle(world, bad) == (T.FAILED, Reason.MODEL_NOT_FOUND)


def test_a_run_that_cannot_be_looked_at_keeps_nobody_waiting(world: World) -> None:
    bad, good = world.placed(), world.placed()
    with world.store.write() as tx:
        tx.connection.exec_driver_sql(f"UPDATE tasks SET spec = '{{}}' WHERE id = '{bad}'")
    again = world.another("one")
    again.compute(only(world, good))
    again.step(again.reconcile)
    again.engine.end(only(world, good), EXIT_DONE)
    assert settle(again, good) == (T.SUCCEED, Reason.FINISHED)
