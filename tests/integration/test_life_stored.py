"""Every pair of states against the database: what the table allows is written with its event, else nothing is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.integration.store_world import add_instance, add_task, first_run, open_store, statuses, the_run
from tidemill.domain.errors import IllegalTransition
from tidemill.domain.ids import InstanceId, RunId
from tidemill.domain.life import (
    FINAL,
    INSTANCE_FINAL,
    INSTANCE_TRANSITIONS,
    TASK_TRANSITIONS,
    InstanceStatus,
    Reason,
    TaskStatus,
)
from tidemill.services.life import change_status
from tidemill.services.runs import locked_instance, locked_run
from tidemill.store.base import Store
from tidemill.store.events import list_events
from tidemill.store.runs import list_intervals
from tidemill.store.tables import instances, runs, tasks


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    made = open_store(database_url)
    yield made
    made.close()


def force(store: Store, status: TaskStatus) -> None:
    """Any status, without asking: where each pair begins."""
    with store.write() as tx:
        tx.execute(runs.update().values(status=status, ended=None))
        tx.execute(tasks.update().values(status=status))


def change(store: Store, run: RunId, status: TaskStatus) -> None:
    with store.write() as tx:
        change_status(tx, locked_run(tx, run), status, reason=Reason.CRASHED, detail="so it is", actor="ann", now=7.0)


def test_every_pair_of_a_run_and_its_task(store: Store) -> None:
    task = add_task(store)
    run = first_run(task)
    for old, new in itertools.product(TaskStatus, TaskStatus):
        force(store, old)
        with store.read() as tx:
            last = list_events(tx, task, newest_first=True, limit=1)[0].id
        if new not in TASK_TRANSITIONS[old]:
            with pytest.raises(IllegalTransition):
                change(store, run, new)
        else:
            change(store, run, new)
        with store.read() as tx:
            events = list_events(tx, task, after=last)
        if new in TASK_TRANSITIONS[old]:
            assert statuses(store, task) == (new, new)
            (event,) = events
            assert (event.subject, event.name, event.status, event.reason) == (run, "run.status", new, Reason.CRASHED)
            assert (event.actor, event.at) == ("ann", 7.0)
            assert "so it is" in event.message
            assert (the_run(store, run).ended is not None) is (new in FINAL)
        else:
            assert statuses(store, task) == (old, old)
            assert events == []


def test_every_pair_of_an_instance(store: Store) -> None:
    task = add_task(store)
    instance = InstanceId(add_instance(store, first_run(task)))
    for old, new in itertools.product(InstanceStatus, InstanceStatus):
        with store.write() as tx:
            tx.execute(instances.update().values(status=old, ended=None))
        allowed = new in INSTANCE_TRANSITIONS[old]
        if not allowed:
            with pytest.raises(IllegalTransition), store.write() as tx:
                change_status(tx, locked_instance(tx, instance), new, now=7.0)
        else:
            with store.write() as tx:
                change_status(tx, locked_instance(tx, instance), new, now=7.0)
        with store.read() as tx:
            row = locked_instance(tx, instance)
        assert row.status is (new if allowed else old)
        assert (row.ended is not None) is (allowed and new in INSTANCE_FINAL)


def test_running_intervals_begin_and_end_with_the_status(store: Store) -> None:
    run = first_run(add_task(store))
    instance = InstanceId(add_instance(store, run))
    for now, status in ((1.0, InstanceStatus.STARTING), (2.0, InstanceStatus.RUNNING), (5.0, InstanceStatus.FAILED)):
        with store.write() as tx:
            change_status(tx, locked_instance(tx, instance), status, now=now)
    second = InstanceId(add_instance(store, run, attempt=2))
    with store.write() as tx:
        change_status(tx, locked_instance(tx, second), InstanceStatus.RUNNING, now=6.0)
    with store.read() as tx:
        assert list_intervals(tx, run) == [(instance, 2.0, 5.0), (second, 6.0, None)]


def test_a_row_that_has_changed_meanwhile_is_not_changed(store: Store) -> None:
    run = first_run(add_task(store))
    with store.write() as tx:
        stale = locked_run(tx, run)
    change(store, run, TaskStatus.STARTING)
    with pytest.raises(IllegalTransition), store.write() as tx:
        change_status(tx, stale, TaskStatus.STOPPING, now=9.0)
    assert the_run(store, run).status is TaskStatus.STARTING


def test_the_task_follows_its_latest_run_alone(store: Store) -> None:
    task = add_task(store)
    with store.write() as tx:
        tx.execute(tasks.update().values(run=f"{task}-r2"))
    change(store, first_run(task), TaskStatus.STARTING)
    assert the_run(store, first_run(task)).status is TaskStatus.STARTING
    with store.read() as tx:
        assert tx.execute(tasks.select()).one().status == "INIT"
