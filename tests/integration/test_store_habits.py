"""What runs find out about a model is kept by machine, and told to the next instance; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.loops_world import World, open_world
from tidemill.domain.ids import TaskId
from tidemill.loops.context import Job
from tidemill.loops.launching import manifest_of
from tidemill.ports.engine import Resources
from tidemill.store.habits import hints_for, keep_habit
from tidemill.store.tables import tasks
from tidemill_runtime.contract import Pins


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = open_world(database_url, tmp_path)
    yield made
    made.store.close()


def hints(world: World, task: TaskId) -> dict[str, Pins]:
    """Of the manifest of the task's next instance."""
    job = Job.load(world.context, world.run(task).id)
    assert job is not None
    return manifest_of(world.context, job, world.instances(task)[0].id, Resources(1000, 1 << 30)).hints


def test_what_an_instance_measured_is_told_to_the_next(world: World) -> None:
    task = world.placed()
    with world.store.write() as tx:
        tx.execute(tasks.update().values(model_digest="aa"))
    assert hints(world, task) == {}
    instance = world.instances(task)[0].id
    said: dict[str, Any] = {"machine": "2 cores", "keep": {"batch_size": 64}}
    world.report(instance, tuning=said)
    assert hints(world, task) == {"2 cores": Pins(batch_size=64)}
    world.report(instance, tuning={**said, "keep": {"processes": 1, "threads": 2}})
    world.report(instance, tuning={**said, "keep": "lies"})
    assert hints(world, task) == {"2 cores": Pins(64, 1, 2)}
    with world.store.write() as tx:
        tx.execute(tasks.update().values(model_digest="bb"))
    assert hints(world, task) == {}


def test_habits_are_of_an_account_and_a_model(world: World) -> None:
    owner = world.instances(world.placed())[0].owner
    with world.store.write() as tx:
        for number in range(40):
            keep_habit(tx, owner, "m", f"machine {number}", Pins(number + 1), now=float(number))
    with world.store.read() as tx:
        found = hints_for(tx, owner.account, "m")
        assert len(found) == 32
        assert found["machine 39"] == Pins(40)
        assert hints_for(tx, owner.account, "other") == {}
        assert hints_for(tx, "somebody", "m") == {}
