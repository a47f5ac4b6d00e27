"""Tables of plans: splits, the parts that count, units, and what each instance has committed. Used by `journal`.

A plan is named by the run that made it; a resumed run goes on with it. Rows are removed when the staged parts are.
"""

from __future__ import annotations

import sqlalchemy as sa

from tidemill.domain.splits import SplitStatus
from tidemill.store.base import metadata, one_of, ownership, text

plans = sa.Table(
    "plans",
    metadata,
    sa.Column("id", text(), primary_key=True),
    sa.Column("task", text(), sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    *ownership(),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("ready", sa.Double),  # all splits are written
    sa.Column("plan", sa.JSON, nullable=False),  # `domain.plan.Plan`
    sa.Column("splits", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Index("ix_plans_task", "task"),
)


def _of_plan() -> sa.Column[str]:
    return sa.Column("plan", text(), sa.ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True)


OPEN, LEASED = (sa.text(f"splits.status = '{status}'") for status in (SplitStatus.OPEN, SplitStatus.LEASED))
"""Written out, not as parameters: only so does SQLite see that a partial index may be used."""
_OPEN, _LEASED = (sa.text(f"status = '{status}'") for status in (SplitStatus.OPEN, SplitStatus.LEASED))

splits = sa.Table(
    "splits",
    metadata,
    _of_plan(),
    sa.Column("no", sa.Integer, primary_key=True, autoincrement=False),
    *ownership(),
    sa.Column("unit", sa.Integer, nullable=False),
    sa.Column("first_object", sa.BigInteger, nullable=False),
    sa.Column("objects", sa.Integer, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("stop", sa.BigInteger, nullable=False),
    sa.Column("listing_start", sa.BigInteger, nullable=False),
    sa.Column("listing_stop", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("status", text(), nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("instance", text()),
    sa.Column("lease_until", sa.Double, nullable=False, server_default="0"),
    sa.Column("cursor_object", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cursor_offset", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("part", text()),  # the name that the present lease may write
    one_of("status", SplitStatus),
    sa.CheckConstraint("(status = 'leased') = (instance IS NOT NULL AND part IS NOT NULL)", name="lease"),
    sa.Index("ix_splits_unit", "plan", "unit", "no"),
    sa.Index("ix_splits_open", "plan", "no", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("ix_splits_leased", "plan", "instance", "no", sqlite_where=_LEASED, postgresql_where=_LEASED),
    sqlite_with_rowid=False,
)

parts = sa.Table(
    "parts",
    metadata,
    _of_plan(),
    sa.Column("split", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("begin_object", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("begin_offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", text(), nullable=False),
    *ownership(),
    sa.Column("end_object", sa.Integer, nullable=False),
    sa.Column("end_offset", sa.BigInteger, nullable=False),
    sa.Column("data_bytes", sa.BigInteger, nullable=False),
    sa.Column("errors_bytes", sa.BigInteger, nullable=False),
    sa.Column("index_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", text(), nullable=False),
    sa.Column("inputs", sa.BigInteger, nullable=False),
    sa.Column("ok", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("skipped", sa.BigInteger, nullable=False),
    sa.Column("run", text(), nullable=False),
    sa.Column("instance", text(), nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.CheckConstraint("inputs = ok + failed + skipped", name="account"),
    sa.UniqueConstraint("plan", "name"),
    sqlite_with_rowid=False,
)

_READY = sa.text("splits_left = 0 AND published IS NULL")

units = sa.Table(
    "units",
    metadata,
    _of_plan(),
    sa.Column("unit", sa.Integer, primary_key=True, autoincrement=False),
    *ownership(),
    sa.Column("splits_left", sa.Integer, nullable=False),
    sa.Column("published", sa.Double),
    sa.Column("results", sa.Integer),
    sa.Column("size", sa.BigInteger),
    sa.Column("inputs", sa.BigInteger),
    sa.Column("ok", sa.BigInteger),
    sa.Column("failed", sa.BigInteger),
    sa.Column("skipped", sa.BigInteger),
    sa.CheckConstraint("splits_left >= 0", name="left"),
    sa.Index("ix_units_ready", "plan", "unit", sqlite_where=_READY, postgresql_where=_READY),
    sqlite_with_rowid=False,
)

tallies = sa.Table(
    # What each instance has committed: its own row, so that instances do not queue for one.
    "tallies",
    metadata,
    _of_plan(),
    sa.Column("instance", text(), primary_key=True),
    *ownership(),
    sa.Column("inputs", sa.BigInteger, nullable=False),
    sa.Column("ok", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("skipped", sa.BigInteger, nullable=False),
    sa.Column("splits_done", sa.BigInteger, nullable=False),
    sa.Column("bytes_done", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
