"""A store with tasks and runs in it, without the services that check them: what tests of store and loops begin with."""

from __future__ import annotations

from typing import Any

from tidemill.domain.ids import AccountId, RegionName, RunId, TaskId, instance_id, run_id
from tidemill.domain.life import InstanceStatus, TaskStatus
from tidemill.services.runs import NewRun, create_task
from tidemill.store.base import Store
from tidemill.store.migrate import migrate
from tidemill.store.records import Owner, RunRow, TaskRow
from tidemill.store.runs import get_run, insert_instances
from tidemill.store.tasks import get_task

OWNER = Owner(AccountId("acme"), RegionName("local"), "ann")


def open_store(url: str) -> Store:
    store = Store(url)
    migrate(store)
    return store


def add_task(store: Store, number: int = 1, *, now: float = 1000.0, **values: Any) -> TaskId:
    """A task with its first run, INIT. values: columns of the task, and fields of `NewRun`."""
    task = TaskId(f"batch-{number:016d}")
    run = {"instances": 1, "priority": 0, "deadline": None, "checked": {}, "claim": f"local:data/out{number}/"}
    run |= {key: values.pop(key) for key in list(values) if key in run}
    columns = {"name": f"task{number}", "spec": {}, "tags": {}, "output": f"cos://data/out{number}/", **values}
    with store.write() as tx:
        create_task(tx, OWNER, task, columns, NewRun(**run), now)
    return task


def add_instance(store: Store, run: RunId, index: int = 0, attempt: int = 1, **values: Any) -> str:
    made = instance_id(run, index, attempt)
    row = {
        "id": made,
        "run": run,
        "task": run.rpartition("-")[0],
        "index": index,
        "attempt": attempt,
        **OWNER.values,
        "status": InstanceStatus.PENDING,
        "millicores": 1000,
        "memory_limit_bytes": 1 << 28,
        "created": 1000.0,
        **values,
    }
    with store.write() as tx:
        insert_instances(tx, [row])
    return made


def first_run(task: TaskId) -> RunId:
    return run_id(task, 1)


def the_run(store: Store, run: RunId) -> RunRow:
    with store.read() as tx:
        found = get_run(tx, run)
    assert found is not None
    return found


def the_task(store: Store, task: TaskId) -> TaskRow:
    with store.read() as tx:
        found = get_task(tx, task)
    assert found is not None
    return found


def statuses(store: Store, task: TaskId) -> tuple[TaskStatus, TaskStatus]:
    """Of the task, and of its latest run."""
    row = the_task(store, task)
    return row.status, the_run(store, row.run).status
