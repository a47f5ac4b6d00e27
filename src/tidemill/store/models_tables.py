"""Tables of the model repository; used by `services.models`.

A version's package never changes. Deleted numbers are not given again (`models.last_number`), so that `churn@2`
never means something else than it did.
"""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa

from tidemill.store.base import metadata, one_of, ownership, text


class VersionStatus(StrEnum):
    CREATING = "CREATING"  # its package is being checked
    READY = "READY"
    FAILED = "FAILED"


models = sa.Table(
    "models",
    metadata,
    sa.Column("id", text(), primary_key=True),
    *ownership(),
    sa.Column("name", text(), nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("labels", sa.JSON(none_as_null=True), nullable=False),
    sa.Column("last_number", sa.Integer, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    sa.UniqueConstraint("account", "region", "name"),
)

model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("id", text(), primary_key=True),
    *ownership(),
    sa.Column("model", text(), sa.ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("status", text(), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("labels", sa.JSON(none_as_null=True), nullable=False),
    sa.Column("package", text(), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("format", text(), nullable=True),
    sa.Column("entry", sa.Text, nullable=True),
    sa.Column("requirements", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("warnings", sa.JSON(none_as_null=True), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.UniqueConstraint("model", "number"),
    sa.CheckConstraint("number >= 1", name="number"),
    one_of("status", VersionStatus),
    sa.Index(None, "package"),
    sa.Index(
        "ix_model_versions_creating",
        "status",
        sqlite_where=sa.text("status = 'CREATING'"),
        postgresql_where=sa.text("status = 'CREATING'"),
    ),
)
