"""Table of what runs found out about running a model. Used by `store.habits`."""

from __future__ import annotations

import sqlalchemy as sa

from tidemill.store.base import metadata, ownership, text

habits = sa.Table(
    "habits",
    metadata,
    sa.Column("model", text(), nullable=False),  # what `domain.tuning.model_key` makes of digests
    sa.Column("machine", text(), nullable=False),  # as instances name theirs
    *ownership(),
    sa.Column("tuning", sa.JSON(none_as_null=True), nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    sa.PrimaryKeyConstraint("account", "model", "machine"),
)
