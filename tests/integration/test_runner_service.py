"""The runner door's use case: whose reports are taken, what they change, what they are answered; on both databases."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.loops_world import World, open_world
from tidemill.domain.errors import Conflict, NotAllowed, NotAuthenticated
from tidemill.domain.ids import InstanceId
from tidemill.domain.life import InstanceStatus, Reason, TaskStatus
from tidemill.services.tokens import Tokens, secret_key
from tidemill.store.journal import SqlJournal
from tidemill.store.runs import list_intervals
from tidemill_runtime.contract import CONTRACT_VERSION, Counts, Fault, Held, Report

INSTANCE = InstanceId("batch-1-r1-0-a1")


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = open_world(database_url, tmp_path)
    yield made
    made.store.close()


def only(world: World, task: object) -> str:
    (instance,) = world.instances(task)  # type: ignore[arg-type]
    return instance.id


def test_what_a_report_says_of_the_instance_is_kept(world: World) -> None:
    task = world.placed()
    instance = only(world, task)
    world.clock.time += 1
    world.report(instance, state="starting")
    row = world.instances(task)[0]
    assert (row.status, row.first_report, row.running) == (InstanceStatus.STARTING, world.clock.time, None)
    assert world.run(task).first_report == world.clock.time
    world.clock.time += 1
    said = {"pending": Counts(5, 4, 1), "memory_bytes": 12345, "seconds": {"load": 1.5}, "tuning": {"batch_size": 32}}
    world.report(instance, **said)
    row = world.instances(task)[0]
    assert (row.status, row.running, row.reported) == (InstanceStatus.RUNNING, world.clock.time, world.clock.time)
    assert (row.pending, row.memory_bytes, row.seconds, row.tuning) == tuple(said.values())
    run = world.run(task)
    assert (run.status, run.running) == (TaskStatus.RUNNING, world.clock.time)
    world.report(instance, **said)
    with world.store.read() as tx:
        assert list_intervals(tx, run.id) == [(instance, world.clock.time, None)]


def test_the_first_of_several_instances_makes_the_run_running(world: World) -> None:
    task = world.placed(lines=3000, instances=2)
    first, second = (each.id for each in world.instances(task))
    world.report(second)
    running = world.run(task).running
    world.clock.time += 5
    world.report(first)
    assert world.run(task).running == running
    assert [each.status for each in world.instances(task)] == [InstanceStatus.RUNNING] * 2


def test_a_report_that_is_sent_again_changes_nothing_and_gets_the_same(world: World) -> None:
    task = world.placed()
    instance = only(world, task)
    (lease,) = world.report(instance, want=1).leases
    commit = world.made(lease)
    answers = [world.report(instance, commits=[commit], want=1) for _ in range(3)]
    assert {answer.directive for answer in answers} == {"finish"}
    assert all(answer.refused == [] for answer in answers)
    with world.store.read() as tx:
        assert SqlJournal(world.store, world.run(task).id).totals_in(tx).counts == commit.counts


def test_an_instance_that_has_ended_is_not_heard(world: World) -> None:
    task = world.placed()
    instance = only(world, task)
    (lease,) = world.report(instance, want=1).leases
    world.engine.end(instance, exit_code=-9)
    world.step(world.reconcile)
    with pytest.raises(NotAllowed, match="has ended"):
        world.report(instance, commits=[world.made(lease)])
    with pytest.raises(NotAllowed, match="has ended"):
        world.report("batch-0-r1-0-a1")
    assert world.run(task).computed is None


def test_a_fault_is_kept_with_the_commits_that_came_with_it(world: World) -> None:
    task = world.placed(lines=3000, retries=0)
    instance = only(world, task)
    leases = world.report(instance, want=2).leases
    fault = Fault("out_of_memory", "too small", "line 1", "trace")
    orders = world.report(instance, state="stopping", commits=[world.made(leases[0])], fault=fault)
    assert (orders.directive, orders.leases) == ("stop", [])
    world.step(world.reconcile)
    row = world.instances(task)[0]
    assert (row.status, row.reason) == (InstanceStatus.FAILED, Reason.OUT_OF_MEMORY)
    assert "too small" in row.detail
    assert (world.run(task).status, world.run(task).stop_reason) == (TaskStatus.STOPPING, Reason.OUT_OF_MEMORY)


def test_a_run_that_is_being_stopped_flushes(world: World) -> None:
    task = world.placed(lines=3000)
    instance = only(world, task)
    (lease, *_) = world.report(instance, want=1).leases
    world.stop(task)
    orders = world.report(instance, held=[Held(lease.split, lease.fence)], want=1)
    assert (orders.directive, orders.leases) == ("flush", [])
    world.report(instance, state="stopping", commits=[world.made(lease)])
    assert world.report(instance, state="stopping").directive == "stop"
    assert world.run(task).splits_done == 0  # counted at the end; until then in the journal


def test_other_versions_of_the_contract_are_refused(world: World) -> None:
    instance = only(world, world.placed())
    token = world.tokens.issue(InstanceId(instance), world.clock.now())
    with pytest.raises(Conflict, match="version 9"):
        world.runner.report(token, Report(9, instance, "starting"))


def test_a_token_is_for_one_instance(world: World) -> None:
    task = world.placed(lines=3000, instances=2)
    first, second = (each.id for each in world.instances(task))
    token = world.tokens.issue(InstanceId(first), world.clock.now())
    with pytest.raises(NotAllowed):
        world.runner.report(token, Report(CONTRACT_VERSION, second, "running"))


def test_many_instances_at_once_share_the_splits_without_overlap(world: World) -> None:
    task = world.placed(lines=4000, instances=4)
    names = [each.id for each in world.instances(task)]
    assert len(names) == 4

    def compute(instance: str) -> str:
        orders = world.report(instance, want=2)
        while orders.directive != "finish":
            commits = [world.made(lease) for lease in orders.leases]
            orders = world.report(instance, commits=commits, want=2)
        return orders.directive

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(compute, names)) == ["finish"] * 4
    world.step(world.reconcile)
    run = world.run(task)
    assert run.computed is not None
    for name in names:
        world.engine.end(name, 0)
    for _ in range(4):
        world.step(world.reconcile)
        world.step(world.publish)
    assert (world.row(task).status, world.row(task).inputs) == (TaskStatus.SUCCEED, 4000)


def test_tokens_are_good_for_their_time_and_renewed_in_it() -> None:
    tokens = Tokens(b"k" * 32, ttl_s=100.0)
    token = tokens.issue(INSTANCE, 1000.0)
    assert tokens.check(token, 1000.0) == (INSTANCE, False)
    assert tokens.check(token, 1024.0) == (INSTANCE, False)
    assert tokens.check(token, 1026.0) == (INSTANCE, True)
    with pytest.raises(NotAuthenticated, match="expired"):
        tokens.check(token, 1100.0)


@pytest.mark.parametrize(
    "forge",
    [
        lambda token: "",
        lambda token: "..",
        lambda token: token[:-1],
        lambda token: token + "x",
        lambda token: token.replace("a1", "a2", 1),
        lambda token: token.replace(".1100.", ".9100."),
        lambda token: token.replace(".1100.", ".x."),
        lambda token: Tokens(b"other", 100.0).issue(INSTANCE, 1000.0),
        lambda token: "\udcff" + token,
        lambda token: token * 100,
    ],
)
def test_forged_tokens_are_refused(forge: object) -> None:
    tokens = Tokens(b"k" * 32, ttl_s=100.0)
    with pytest.raises(NotAuthenticated):
        tokens.check(forge(tokens.issue(INSTANCE, 1000.0)), 1000.0)  # type: ignore[operator]


def test_the_key_is_made_once_and_nobody_elses_to_read(tmp_path: Path) -> None:
    key = secret_key(tmp_path)
    assert len(key) == 32
    assert secret_key(tmp_path) == key
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_is_renewed_in_the_orders(world: World) -> None:
    instance = only(world, world.placed())
    token = world.tokens.issue(InstanceId(instance), world.clock.now())
    report = Report(CONTRACT_VERSION, instance, "running")
    assert world.runner.report(token, report).token is None
    world.clock.time += 3599 * 0.5
    renewed = world.runner.report(token, report).token
    assert renewed is not None
    world.clock.time += 3599 * 0.75
    with pytest.raises(NotAuthenticated):
        world.runner.report(token, report)
    world.runner.report(renewed, report)


def test_what_an_instance_waits_for_is_shown_while_it_does(world: World) -> None:
    task = world.placed()
    instance = only(world, task)
    world.report(instance)
    for words, reason in [
        ("the part x cannot be written: the storage answers HTTP 503 (SlowDown)", Reason.PAUSED_STORAGE),
        ("a part could not be written: [Errno 28] No space left on device", Reason.PAUSED_DISK_FULL),
    ]:
        world.clock.time += 2
        world.report(instance, waiting=words)
        world.step(world.reconcile)
        for shown in (world.row(task), world.run(task), world.instances(task)[0]):
            assert (shown.reason, shown.detail) == (reason, words)
        assert world.run(task).status is TaskStatus.RUNNING
    world.report(instance)
    world.step(world.reconcile)
    for shown in (world.row(task), world.run(task), world.instances(task)[0]):
        assert (shown.reason, shown.detail) == (Reason.NONE, "")
    told = [event.message for event in world.events(task) if event.name == "run.reason"]
    beginnings = ["Object storage does not answer: the part x", "No space is left: a part", "It goes on."]
    assert all(message.startswith(begin) for message, begin in zip(told, beginnings, strict=True))


def test_work_that_comes_after_its_lease_ran_out_is_taken_until_another_has_it(world: World) -> None:
    """The machine slept, or the server's clock was set: nobody else computed it meanwhile."""
    task = world.placed()
    instance = only(world, task)
    (lease,) = world.report(instance, want=1).leases
    world.clock.time += 3600
    world.step(world.reconcile)
    orders = world.report(instance, commits=[world.made(lease)])
    assert orders.refused == []
    with world.store.read() as tx:
        assert SqlJournal(world.store, world.run(task).id).totals_in(tx).counts.ok == 3
