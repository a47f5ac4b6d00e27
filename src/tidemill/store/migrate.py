"""Brings a database to this version's tables. Called by bootstrap before anything else uses the store.

Alembic is loaded only where there is something to migrate: most starts find the database as they left it, and a new one
is made from the tables as they are (a test holds both ways to the same schema).
"""

from __future__ import annotations

import sqlalchemy as sa

from tidemill.domain.errors import Conflict
from tidemill.store.base import Store
from tidemill.store.schema import metadata

HEAD = "0002"
"""The newest migration in `migrations/versions`."""
_LOCK = 7_400_000_001
"""PostgreSQL: whoever migrates holds this advisory lock; others wait and find it done."""


def migrate(store: Store) -> None:
    """Raises Conflict for a database that a newer version has migrated, StoreUnavailable where it does not answer."""
    with store.write() as tx:
        if not tx.sqlite:
            tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        found = _version(tx.connection)
        if found == HEAD:
            return
        if found is None and not sa.inspect(tx.connection).has_table("tasks"):
            metadata.create_all(tx.connection)
            tx.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            tx.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
            return
        from tidemill.store.migrations.upgrade import known, upgrade  # Alembic: 20 MB and 0.2 s

        if found is None:
            raise Conflict(
                "the database holds tables that are not Tidemill's.",
                field="store.url",
                remedy="Name a database of its own.",
            )
        if not known(found):
            raise Conflict(
                f"the database is of a newer version ({found}) than this server ({HEAD}).",
                field="store.url",
                remedy="Start the newer version of Tidemill, or restore a backup.",
            )
        upgrade(tx.connection)


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)
