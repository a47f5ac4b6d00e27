"""Requirements of models on a server: installed beside the loops by the real uv; instances of an engine in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.environments_world import OFFLINE, package, source, wheel
from tests.integration.loops_world import World, open_world
from tidemill.domain.ids import TaskId
from tidemill.domain.life import Reason, TaskStatus
from tidemill.services.task_views import phase_of, run_view
from tidemill.store.runs import set_run

T = TaskStatus


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = open_world(database_url, tmp_path)
    yield made
    made.context.builders.stop()
    made.store.close()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Requirements of the model, which are installed as soon as this file is there; `pid` beside it is who waits."""
    package(tmp_path, "--no-index\n./slow\n")
    gate = tmp_path / "gate"
    body = f"""
    open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid()))
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.01)"""
    source(tmp_path / "slow", body)
    return gate


def until(world: World, condition: Callable[[], object]) -> None:
    """Looks of the loops until it is so."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        for handler in (world.plan, world.place, world.reconcile):
            world.step(handler, errors=True)
        time.sleep(0.02)


def building(tmp_path: Path) -> bool:
    return (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text())


def gone(tmp_path: Path) -> bool:
    try:
        return Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def ended(world: World, task: TaskId) -> tuple[TaskStatus, Reason]:
    until(world, lambda: world.row(task).ended is not None)
    return world.row(task).status, world.row(task).reason


def test_it_is_starting_meanwhile_and_keeps_nobody_waiting(world: World, tmp_path: Path, gate: Path) -> None:
    first = world.task()
    until(world, lambda: building(tmp_path))
    run = world.run(first)
    assert (run.status, run.reason) == (T.STARTING, Reason.INSTALLING)
    assert run.detail in ("Resolving 1 requirement.", "Installing 1 package.")
    assert world.instances(first) == []
    assert phase_of(run, []) == "installing"
    second = world.task()
    plain = tmp_path / "plain"
    plain.mkdir()
    with world.store.write() as tx:
        set_run(tx, world.run(second).id, {"model_path": str(plain)})
    until(world, lambda: world.instances(second))
    assert world.instances(first) == []
    world.clock.time += 7
    gate.touch()
    until(world, lambda: world.instances(first))
    launch = world.engine.launches[-1]
    assert launch.venv is not None
    assert (launch.venv.folder / "bin/python").exists()
    assert launch.venv.lock.exists()
    assert world.engine.launches[0].venv is None
    run = world.run(first)
    assert run.reason is Reason.NONE
    assert run.requirements is not None
    assert run.requirements.packages == {"slowpkg": "1.0"}
    assert run.requirements.digest == launch.venv.lock.name
    view = run_view(run, world.clock.now() + 1)
    assert (view.seconds.environment, view.seconds.start) == (7, 1)
    told = [event.message for event in world.events(first) if event.name == "run.environment"]
    assert len(told) == 1 and "are installed: 1 package" in told[0]
    third = world.task()  # and the next has it at once
    until(world, lambda: world.instances(third))
    assert world.run(third).requirements is not None
    assert world.engine.launches[-1].venv == launch.venv


def test_what_is_there_already_is_said(world: World, tmp_path: Path) -> None:
    package(tmp_path, "msgspec\n")
    task = world.placed()
    assert world.engine.launches[0].venv is None
    (told,) = [event.message for event in world.events(task) if event.name == "run.environment"]
    assert told == "The server's own Python satisfies the model's requirements."
    noted = world.run(task).requirements
    assert noted is not None and noted.digest is None and list(noted.packages) == ["msgspec"]
    assert not (tmp_path / "environments").exists()


def test_without_requirements_nothing_is_said(world: World) -> None:
    task = world.placed()
    assert world.run(task).environment is None
    assert [event for event in world.events(task) if event.name == "run.environment"] == []


def test_a_failure_ends_the_run_in_the_resolvers_words_and_is_tried_again_by_the_next(
    world: World, tmp_path: Path
) -> None:
    package(tmp_path, f"{OFFLINE}first==2.0\n")
    wheel(tmp_path / "wheels", "first")
    task = world.task()
    assert ended(world, task) == (T.FAILED, Reason.ENVIRONMENT_FAILED)
    assert "there is no version of first==2.0" in world.row(task).detail
    assert world.engine.launches == []
    wheel(tmp_path / "wheels", "first", "2.0")
    world.resume(task)
    until(world, lambda: world.instances(task))
    assert world.engine.launches[0].venv is not None


def test_requirements_that_cannot_be_read_end_the_run(world: World, tmp_path: Path) -> None:
    package(tmp_path, "-r ../theirs.txt\n")
    task = world.task()
    status, _ = ended(world, task)
    assert status is T.FAILED
    assert "leads out of the package" in world.row(task).detail


@pytest.mark.parametrize("how", ["stop", "deadline"])
def test_ended_while_it_is_installed(world: World, tmp_path: Path, gate: Path, how: str) -> None:
    task = world.task(**({"deadline": 60} if how == "deadline" else {}))
    until(world, lambda: building(tmp_path))
    if how == "stop":
        world.stop(task)
    else:
        world.clock.time += 61
    expected = Reason.DEADLINE if how == "deadline" else Reason.STOPPED_BY_USER
    assert ended(world, task) == (T.STOPPED, expected)
    until(world, lambda: gone(tmp_path))  # nobody wants it any more
    assert world.engine.launches == []


def test_one_that_wants_the_same_is_not_disturbed(world: World, tmp_path: Path, gate: Path) -> None:
    first, second = world.task(), world.task()
    until(world, lambda: building(tmp_path) and world.run(second).reason is Reason.INSTALLING)
    world.stop(first)
    assert ended(world, first) == (T.STOPPED, Reason.STOPPED_BY_USER)
    pid = (tmp_path / "pid").read_text()
    gate.touch()
    until(world, lambda: world.instances(second))
    assert (tmp_path / "pid").read_text() == pid  # built once


def test_another_server_builds_it_anew(world: World, tmp_path: Path, gate: Path) -> None:
    task = world.task()
    until(world, lambda: building(tmp_path))
    world.context.builders.stop()
    assert gone(tmp_path)
    os.unlink(tmp_path / "pid")
    other = world.another("two")
    world.clock.time += 60  # the work leases of the first have passed
    gate.touch()
    until(other, lambda: other.instances(task))
    assert world.engine.launches[0].venv is not None
    other.context.builders.stop()


def test_it_waits_for_capacity_when_it_is_installed(world: World, tmp_path: Path, gate: Path) -> None:
    first = world.task(resources={"cpu": 4, "memory": "256Mi"})
    until(world, lambda: building(tmp_path))
    second = world.task(resources={"cpu": 4, "memory": "256Mi"})
    plain = tmp_path / "plain"
    plain.mkdir()
    with world.store.write() as tx:
        set_run(tx, world.run(second).id, {"model_path": str(plain)})
    until(world, lambda: world.instances(second))
    gate.touch()
    until(world, lambda: world.run(first).reason is Reason.WAITING_FOR_CAPACITY)
    assert world.run(first).status is T.STARTING
    world.stop(second)
    world.step(world.reconcile)
    (instance,) = world.instances(second)
    world.engine.end(instance.id, 5)
    until(world, lambda: world.instances(first))
    assert world.run(first).reason is Reason.NONE
