"""Table of packages: which account may use which. Their files are blobs (`store.blobs`); used by
`services.packages`.
"""

from __future__ import annotations

import sqlalchemy as sa

from tidemill.store.base import metadata, ownership, text

packages = sa.Table(
    "packages",
    metadata,
    sa.Column("digest", text(), nullable=False),
    *ownership(),  # region: empty, a package may be used in any
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("used", sa.Double, nullable=False),  # made or asked for: a sweep spares what is young
    sa.PrimaryKeyConstraint("account", "digest"),
)
