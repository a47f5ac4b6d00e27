"""The schema: made from the tables or by migrations it is the same, and it holds the rules that it can hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tests.integration.store_world import OWNER, add_instance, add_task, first_run, open_store
from tidemill.domain.errors import Conflict
from tidemill.domain.life import InstanceStatus
from tidemill.store.base import Store
from tidemill.store.journal_tables import splits
from tidemill.store.migrate import HEAD, migrate
from tidemill.store.migrations.upgrade import head, upgrade
from tidemill.store.tables import claims, instances, runs, tasks


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    made = Store(database_url)
    yield made
    made.close()


def schema_of(store: Store) -> list[tuple[Any, ...]]:
    """Everything that the database knows of its tables."""
    if store.sqlite:
        queries = ["SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'"]
    else:
        queries = [
            """SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
               FROM information_schema.columns WHERE table_schema = 'public'""",
            "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
            """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
               WHERE connamespace = 'public'::regnamespace""",
        ]
    with store.read() as tx:
        rows = [row for query in queries for row in tx.execute(sa.text(query))]
    return sorted(tuple(_plain(str(value)) for value in row) for row in rows if "alembic" not in str(row[0]))


def _plain(definition: str) -> str:
    """Without line breaks, and a table's constraints sorted: in which order they are written says nothing."""
    body, closed, tail = " ".join(definition.split()).rpartition(")")
    first, *constraints = body.strip().split(", CONSTRAINT ")
    return ", CONSTRAINT ".join([first, *sorted(constraints)]) + closed + tail


def test_migrations_and_tables_make_the_same_schema(store: Store) -> None:
    with store.write() as tx:
        upgrade(tx.connection)
    migrated = schema_of(store)
    with store.write() as tx:
        if tx.sqlite:
            names = [row[0] for row in tx.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'"))]
            for name in (each for each in names if not each.startswith("sqlite_")):
                tx.execute(sa.text(f"DROP TABLE {name}"))
        else:
            tx.execute(sa.text("DROP SCHEMA public CASCADE"))
            tx.execute(sa.text("CREATE SCHEMA public"))
    migrate(store)
    assert schema_of(store) == migrated


def test_the_newest_migration_is_what_a_server_expects(store: Store) -> None:
    assert head() == HEAD
    for _ in range(2):  # the second finds nothing to do
        migrate(store)
    with store.read() as tx:
        assert tx.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == HEAD


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    migrate(store)
    with store.write() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match=r"newer version \(9999\)"):
        migrate(store)


def test_a_database_of_somebody_else_is_refused(store: Store) -> None:
    with store.write() as tx:
        tx.execute(sa.text("CREATE TABLE tasks (id INTEGER)"))
    with pytest.raises(Conflict, match="not Tidemill's"):
        migrate(store)


def test_a_new_database_is_made_without_alembic(tmp_path: Path) -> None:
    """Its import would be a third of a server's start, and most of its memory."""
    code = (
        "import sys; from tidemill.store.base import Store; from tidemill.store.migrate import migrate;"
        f"migrate(Store('sqlite:///{tmp_path}/store.db')); migrate(Store('sqlite:///{tmp_path}/store.db'));"
        "print([name for name in sys.modules if name.startswith(('alembic', 'mako'))])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.strip() == "[]"


def refused(store: Store, statement: sa.Executable, values: dict[str, Any] | None = None) -> None:
    with pytest.raises(IntegrityError), store.write() as tx:
        tx.execute(statement, values)


def test_statuses_are_the_domains(store: Store) -> None:
    migrate(store)
    task = add_task(store)
    add_instance(store, first_run(task))
    refused(store, tasks.update().values(status="RUNING"))
    refused(store, runs.update().values(status="ENDED"))
    refused(store, instances.update().values(status="SUCCEED"))


def test_a_task_has_one_unfinished_run(store: Store) -> None:
    migrate(store)
    task = add_task(store)
    second = {
        "id": f"{task}-r2",
        "task": task,
        "number": 2,
        **OWNER.values,
        "priority": 0,
        "instances": 1,
        "created": 1.0,
    }
    refused(store, runs.insert(), {**second, "status": "INIT"})
    with store.write() as tx:
        tx.execute(runs.insert(), {**second, "status": "FAILED"})


def test_a_place_has_one_living_instance(store: Store) -> None:
    migrate(store)
    run = first_run(add_task(store))
    first = add_instance(store, run)
    with pytest.raises(IntegrityError):
        add_instance(store, run, attempt=2)
    with store.write() as tx:
        tx.execute(instances.update().where(instances.c.id == first).values(status=InstanceStatus.LOST))
    add_instance(store, run, attempt=2)


def test_an_output_folder_has_one_owner(store: Store) -> None:
    migrate(store)
    task = add_task(store)
    again = {**OWNER.values, "uri": "local:data/out1/", "task": task, "run": first_run(task), "created": 1.0}
    refused(store, claims.insert(), again)
    with store.write() as tx:
        tx.execute(claims.update().values(released=2.0))
        tx.execute(claims.insert(), again)


def test_a_leased_split_names_who_has_it(store: Store) -> None:
    open_store(str(store.url.render_as_string(hide_password=False))).close()
    split = {"plan": "p", "no": 0, **OWNER.values, "unit": 0, "first_object": 0, "objects": 1, "start": 0, "stop": -1}
    split |= {"listing_start": 0, "listing_stop": 1, "bytes": 1}
    refused(store, splits.insert(), {**split, "status": "leased"})
    refused(store, splits.insert(), {**split, "status": "open", "instance": "i"})
