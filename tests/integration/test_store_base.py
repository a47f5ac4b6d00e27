"""Transactions: what is committed stays, what fails leaves nothing, writers queue, readers do not wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.integration.store_world import add_task, open_store, the_task
from tidemill.domain.errors import InvalidValue, StoreUnavailable
from tidemill.domain.ids import TaskId
from tidemill.store.base import Store
from tidemill.store.tables import tasks


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    made = open_store(database_url)
    yield made
    made.close()


def fail(_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("durable", [True, False])
def test_a_transaction_is_all_or_nothing(store: Store, durable: bool) -> None:
    task = add_task(store)
    with store.write(durable=durable) as tx:
        tx.execute(tasks.update().values(description="kept"))
    with pytest.raises(ZeroDivisionError), store.write(durable=durable) as tx:
        fail(tx.execute(tasks.update().values(description="lost")))
    assert the_task(store, task).description == "kept"


def test_loops_are_woken_by_what_is_committed_alone(store: Store) -> None:
    woken: list[set[str]] = []
    store.on_wake = woken.append
    with store.write() as tx:
        tx.wake("plan")
        tx.wake("place")
        assert woken == []
    assert woken == [{"plan", "place"}]
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        fail(tx.wake("plan"))
    assert len(woken) == 1


def test_many_writers_lose_nothing(store: Store) -> None:
    """Each reads what it then writes, which is where databases lose updates."""
    task = add_task(store, priority=0)

    def add(_: int) -> None:
        with store.write(durable=False) as tx:
            row = tx.execute(sa.select(tasks.c.priority).where(tasks.c.id == task).with_for_update()).one()
            tx.execute(tasks.update().values(priority=row.priority + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(100)))
    assert the_task(store, task).priority == 100


def test_a_reader_sees_one_state_and_waits_for_nobody(store: Store) -> None:
    task = add_task(store)
    written = threading.Event()
    finish = threading.Event()

    def write() -> None:
        with store.write() as tx:
            tx.execute(tasks.update().values(description="new"))
            written.set()
            assert finish.wait(30)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert written.wait(30)
        assert the_task(store, task).description == ""
        finish.set()
        writing.result(30)
    assert the_task(store, task).description == "new"


def test_a_database_that_does_not_answer_is_temporary(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        Store("postgresql+psycopg://nobody@127.0.0.1:9/nothing").check()
    with pytest.raises(StoreUnavailable):
        Store(f"sqlite:///{tmp_path}/no/such/folder/store.db").check()


@pytest.mark.parametrize("url", ["mysql://somewhere/db", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InvalidValue, match=r"store\.url"):
        Store(url)


def test_what_was_committed_survives_the_death_of_the_process(tmp_path: Path) -> None:
    """Without a close, as after SIGKILL: another connection finds it in the write-ahead log."""
    url = f"sqlite:///{tmp_path}/store.db"
    first = open_store(url)
    task = add_task(first)
    with first.write(durable=False) as tx:
        tx.execute(tasks.update().values(description="kept"))
    copy = tmp_path / "after"
    copy.mkdir()
    for name in ("store.db", "store.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    second = Store(f"sqlite:///{copy}/store.db")
    assert the_task(second, TaskId(task)).description == "kept"
    first.close()
    second.close()
