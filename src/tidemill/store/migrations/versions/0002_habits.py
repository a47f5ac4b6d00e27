"""What runs found out about their models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """The table `habits`."""
    op.create_table(
        "habits",
        sa.Column("model", _text(), nullable=False),
        sa.Column("machine", _text(), nullable=False),
        sa.Column("account", _text(), nullable=False),
        sa.Column("region", _text(), nullable=False),
        sa.Column("actor", _text(), server_default="", nullable=False),
        sa.Column("tuning", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("account", "model", "machine", name=op.f("pk_habits")),
    )
