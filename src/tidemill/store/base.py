"""The database: connections, transactions, and what SQLite and PostgreSQL need done differently. Opened by bootstrap.

    with store.write() as tx:           one short transaction; commits at the end, rolls back on an exception
        tx.execute(...)
        tx.wake("plan")                 loops that are woken once it is committed
    with store.read() as tx: ...        a snapshot; never waits for a writer

SQLite has one writer at a time, whoever it is: writers queue for the one connection that may write and begin with
BEGIN IMMEDIATE, so that nothing ever fails for having read first. WAL lets readers go on meanwhile. Why writes are
synced as they are is in docs/adr/0002-store.md. On PostgreSQL writers lock the rows they decide by (`SELECT … FOR
UPDATE`, which SQLite ignores and does not need).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, CursorResult, Engine
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql import Executable

from tidemill.domain.errors import InvalidValue, StorageFull, StoreUnavailable

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of the server. `schema` imports all modules that add to it."""

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for the others. A transaction takes milliseconds; what waits longer has found a fault."""
READERS = 16
"""Connections that read at the same time; more wait."""


def text() -> sa.types.TypeEngine[str]:
    """Text that compares and sorts by bytes on both databases."""
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def ownership() -> list[sa.Column[Any]]:
    """The columns that every row has: whose it is, where, and who made it (empty: the server by itself)."""
    return [
        sa.Column("account", text(), nullable=False),
        sa.Column("region", text(), nullable=False),
        sa.Column("actor", text(), nullable=False, server_default=""),
    ]


def one_of(column: str, values: Any) -> sa.CheckConstraint:
    """CHECK that a status is one of an enumeration's."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


class Tx:
    """One transaction. Services and repositories take it; nobody keeps it."""

    def __init__(self, connection: Connection, *, sqlite: bool) -> None:
        self.connection = connection
        self.sqlite = sqlite
        self.woken: set[str] = set()

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        return self.connection.execute(statement, parameters)

    def insert(self, table: sa.Table) -> Any:
        """See `insert_into`."""
        return insert_into(table, sqlite=self.sqlite)

    def wake(self, *loops: str) -> None:
        """Wakes these loops once the transaction is committed."""
        self.woken.update(loops)

    def serialise(self, name: str) -> None:
        """From here to the end, no other transaction that names this is under way (SQLite: none at all is)."""
        if not self.sqlite:
            self.connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(name))))


def insert_into(table: sa.Table, *, sqlite: bool) -> Any:
    """An INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing`, the same on both databases."""
    if sqlite:
        from sqlalchemy.dialects.sqlite import insert  # each loads its dialect: only the one in use

        return insert(table)
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    return postgresql_insert(table)


class Store:
    """url: SQLAlchemy URL. on_wake: told the loops that a committed transaction wakes."""

    def __init__(self, url: str, on_wake: Callable[[set[str]], None] = lambda _: None) -> None:
        try:
            self.url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise InvalidValue(
                f"{url.partition('://')[0]!r}… is no database.",
                field="store.url",
                remedy="Write postgresql+psycopg://user:password@host/database, or leave it out for SQLite.",
            ) from None
        backend = self.url.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise InvalidValue(
                f"{backend!r} is not supported.", field="store.url", remedy="Use postgresql+psycopg or sqlite."
            )
        self.sqlite = backend == "sqlite"
        self.on_wake = on_wake
        if self.sqlite:
            self._readers = _sqlite_engine(self.url, READERS)
            self._writers = _sqlite_engine(self.url, 1)
        else:
            if self.url.drivername == "postgresql":
                self.url = self.url.set(drivername="postgresql+psycopg")
            self._readers = self._writers = _postgresql_engine(self.url)

    @contextlib.contextmanager
    def read(self) -> Iterator[Tx]:
        """A snapshot of the database. Raises StoreUnavailable."""
        with _translated(), self._readers.connect() as connection:
            yield Tx(connection, sqlite=self.sqlite)

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Tx]:
        """A transaction. Raises StoreUnavailable or StorageFull; then nothing of it was done, as far as is known.

        durable False: survives the death of any process, but a loss of power may take the last of these. For what is
        computed again then (reports of instances).
        """
        with _translated():
            with self._writers.connect() as connection:
                tx = Tx(connection, sqlite=self.sqlite)
                if self.sqlite:
                    connection.connection.driver_connection.execute(  # type: ignore[union-attr]
                        f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}"
                    )
                with connection.begin():
                    if not self.sqlite and not durable:
                        connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
                    yield tx
        if tx.woken:
            self.on_wake(tx.woken)

    def check(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
        with self.read() as tx:
            tx.execute(sa.select(1))

    def close(self) -> None:
        self._readers.dispose()
        self._writers.dispose()

    @property
    def engine(self) -> Engine:
        """For migrations: may write, no transaction of ours around it."""
        return self._writers


def sqlite_url(file: Path) -> str:
    """The URL of a database in a file."""
    return sa.URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def _sqlite_engine(url: sa.URL, connections: int) -> Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
        json_serializer=_json,
    )
    begin = "BEGIN IMMEDIATE" if connections == 1 else "BEGIN"

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where sqlite3 guesses
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "cache_size=-2048", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def started(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql_engine(url: sa.URL) -> Engine:
    return sa.create_engine(
        url,
        pool_size=READERS,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_pre_ping=True,  # a database that was restarted must not cost a request for each connection
        connect_args={"connect_timeout": 10},
        json_serializer=_json,
    )


def storable(text: str) -> str:
    """The text without what a database refuses: NUL bytes, halves of characters. For words that others have chosen."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The database's own errors as ours. Broken constraints stay what they are: whoever provokes them knows them."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("the database is busy.", remedy="Try again.") from error
    except (OperationalError, InterfaceError) as error:
        said = str(error.orig)
        if "full" in said or "No space" in said:
            raise StorageFull(f"the database cannot grow: {said}.", remedy="Make room on its disk.") from error
        raise StoreUnavailable(f"the database does not answer: {said.strip()}.", remedy="Try again.") from error
    except DataError as error:
        raise InvalidValue(
            "a value is none that the database can hold.",
            remedy="Texts hold no NUL, and numbers 64 bits.",
        ) from error
    except UnicodeEncodeError as error:
        raise InvalidValue("a text has halves of characters.", remedy="Send Unicode.") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailable("the connection to the database was lost.", remedy="Try again.") from error
        raise
