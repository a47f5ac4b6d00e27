"""What Alembic runs: migrations over the connection that `upgrade` hands over, or over `-x url=…` to draft one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from tidemill.store.schema import metadata


def _run(connection: sa.Connection) -> None:
    # SQLite cannot alter much: batches make a new table and move the rows.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with sa.create_engine(context.get_x_argument(as_dictionary=True)["url"]).connect() as made:
        _run(made)
