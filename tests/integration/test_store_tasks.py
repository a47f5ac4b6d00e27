"""Lists of tasks: order, pages, filters, and totals that never have to be counted; claims of output folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.store_world import OWNER, add_task, first_run, open_store, the_run, the_task
from tidemill.domain.errors import OutputTaken
from tidemill.domain.ids import TaskId
from tidemill.domain.life import TASK_TRANSITIONS, Reason, TaskStatus
from tidemill.domain.location import parse_location
from tidemill.services.life import change_status
from tidemill.services.runs import NewRun, locked_run, output_uri, resume_task
from tidemill.store.base import Store
from tidemill.store.runs import release_claim
from tidemill.store.tasks import TaskFilter, count_tasks, counts_by_status, delete_task, list_tasks

ACCOUNT, REGION = OWNER.account, OWNER.region
T = TaskStatus
ALL = TaskFilter()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    made = open_store(database_url)
    yield made
    made.close()


def names(store: Store, wanted: TaskFilter = ALL, **keys: Any) -> list[str]:
    with store.read() as tx:
        return [row.name for row in list_tasks(tx, ACCOUNT, REGION, wanted, **keys)]


def count(store: Store, wanted: TaskFilter = ALL) -> int:
    with store.read() as tx:
        return count_tasks(tx, ACCOUNT, REGION, wanted)


def move(store: Store, task: TaskId, *path: TaskStatus) -> None:
    for status in path:
        with store.write() as tx:
            run = locked_run(tx, the_task(store, task).run)
            change_status(tx, run, status, now=2000.0)


def test_newest_first_page_by_page(store: Store) -> None:
    for number in range(1, 8):
        add_task(store, number, now=1000.0 + number // 2)  # some at the same moment
    seen: list[str] = []
    after = None
    while True:
        with store.read() as tx:
            page = list_tasks(tx, ACCOUNT, REGION, after=after, limit=2)
        seen += [row.name for row in page]
        if len(page) < 2:
            break
        after = (page[-1].created, page[-1].id)
    assert seen == [f"task{number}" for number in range(7, 0, -1)]
    assert names(store, descending=False, limit=3) == ["task1", "task2", "task3"]


def test_filters_and_their_totals(store: Store) -> None:
    for number in range(1, 7):
        tags = {"team": "red" if number % 2 else "blue", "n": str(number)}
        add_task(store, number, now=1000.0 + number, name=f"t{number % 3}", tags=tags)
    move(store, TaskId(f"batch-{3:016d}"), T.STARTING, T.RUNNING)
    for wanted, expected in [
        (TaskFilter(statuses=[T.RUNNING]), ["t0"]),
        (TaskFilter(statuses=[T.INIT, T.RUNNING]), ["t0", "t2", "t1", "t0", "t2", "t1"]),
        (TaskFilter(name="t1"), ["t1", "t1"]),
        (TaskFilter(tags={"team": "red"}), ["t2", "t0", "t1"]),
        (TaskFilter(tags={"team": "red"}, statuses=[T.INIT]), ["t2", "t1"]),
        (TaskFilter(tags={"team": "red", "n": "5"}), ["t2"]),
        (TaskFilter(tags={"team": "green"}), []),
        (TaskFilter(created_from=1003.0, created_until=1005.0), ["t1", "t0"]),
    ]:
        assert names(store, wanted) == expected, wanted
        assert count(store, wanted) == len(expected), wanted


def test_totals_follow_every_change(store: Store) -> None:
    task = add_task(store, 1, tags={"a": "b"})
    move(store, task, T.STARTING, T.RUNNING, T.FAILED)
    with store.write() as tx:
        new = NewRun(instances=1, priority=0, deadline=None, checked={}, claim="local:data/other/")
        release_claim(tx, first_run(task), 1.0)
        resume_task(tx, OWNER, the_task(store, task), new, 3000.0)
    assert (count(store), count(store, TaskFilter(statuses=[T.INIT], tags={"a": "b"}))) == (1, 1)
    with store.write() as tx:
        delete_task(tx, the_task(store, task))
    assert (count(store), count(store, TaskFilter(tags={"a": "b"}))) == (0, 0)
    with store.read() as tx:
        assert not any(counts_by_status(tx).values())


@given(moves=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(list(T))), max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_are_what_counting_gives(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, TaskStatus]]
) -> None:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('s')}/store.db")
    for number in (1, 2, 3):
        add_task(store, number, tags={"n": str(number % 2)})
    for number, status in moves:
        task = TaskId(f"batch-{number:016d}")
        if status in TASK_TRANSITIONS[the_task(store, task).status]:
            move(store, task, status)
    for status in T:
        for tags in ({}, {"n": "0"}, {"n": "1"}):
            wanted = TaskFilter(statuses=[status], tags=tags)
            assert count(store, wanted) == len(names(store, wanted))
    store.close()


@pytest.mark.parametrize(
    ("held", "wanted", "free"),
    [
        ("/a/out/", "/a/out/", False),
        ("/a/out/", "/a/out", False),
        ("/a/out/", "/a/out/deeper/", False),
        ("/a/out/", "/a/", False),
        ("/a/out/", "/a/output/", True),
        ("/a/out/", "/a/ou/", True),
        ("cos://data/out/", "s3://data/out/", False),
        ("cos://data/out/", "cos://data/", False),
        ("cos://data/out/", "cos://data/out2/", True),
        ("cos://data/out/", "cos://other/out/", True),
        ("cos://data/中文/", "cos://data/中文/x/", False),
    ],
)
def test_nested_output_folders_are_one_claim(store: Store, held: str, wanted: str, free: bool) -> None:
    def uri(text: str) -> str:
        return output_uri(REGION, parse_location(text, field="output"))

    first = add_task(store, 1, claim=uri(held))
    if free:
        add_task(store, 2, claim=uri(wanted))
        return
    with pytest.raises(OutputTaken, match=first):
        add_task(store, 2, claim=uri(wanted))
    with store.write() as tx:
        release_claim(tx, first_run(first), 1.0)
    add_task(store, 2, claim=uri(wanted))
    assert the_run(store, first_run(first)).reason is Reason.NONE
