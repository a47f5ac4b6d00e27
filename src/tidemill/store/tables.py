"""Tables of tasks, runs, instances and what happened to them. `journal_tables` has what a plan is made of.

Times are seconds since the epoch. What the database can hold of the rules, it holds: statuses by CHECK, one unfinished
run of a task, one living instance at a place, one owner of an output folder by partial unique indexes.
"""

from __future__ import annotations

import sqlalchemy as sa

from tidemill.domain.life import FINAL, INSTANCE_FINAL, InstanceStatus, TaskStatus
from tidemill.store.base import metadata, one_of, ownership, text

_J = sa.JSON(none_as_null=True)


def _none_of(column: str, values: frozenset[TaskStatus] | frozenset[InstanceStatus]) -> sa.TextClause:
    return sa.text(f"{column} NOT IN ({', '.join(sorted(repr(str(value)) for value in values))})")


UNFINISHED = _none_of("status", FINAL)
"""The condition of the partial indexes over runs; a query has to say the same to use them."""
ALIVE = _none_of("status", INSTANCE_FINAL)


tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", text(), primary_key=True),
    *ownership(),
    sa.Column("name", text(), nullable=False),
    sa.Column("description", text(), nullable=False, server_default=""),
    sa.Column("spec", _J, nullable=False),  # the task file as it was asked for
    sa.Column("tags", _J, nullable=False),
    sa.Column("output", text(), nullable=False),
    sa.Column("model", text()),  # as it is shown: churn@2, or what was given
    sa.Column("model_version", text()),
    sa.Column("model_digest", text()),
    sa.Column("code_digest", text()),
    sa.Column("instances", sa.Integer, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    # Of the latest run; written by `services.runs.change_status` and `finish` alone.
    sa.Column("status", text(), nullable=False),
    sa.Column("reason", text(), nullable=False, server_default=""),
    sa.Column("detail", text(), nullable=False, server_default=""),
    sa.Column("run", text(), nullable=False),
    sa.Column("runs", sa.Integer, nullable=False, server_default="1"),
    sa.Column("inputs", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("ok", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("skipped", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    sa.Column("started", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("deadline", sa.Double),
    sa.Column("idempotency_key", text()),
    sa.Column("idempotency_digest", text()),  # of the request, to tell a repetition from another request
    one_of("status", TaskStatus),
    sa.Index("ix_tasks_created", "account", "region", "created", "id"),
    sa.Index("ix_tasks_status", "account", "region", "status", "created", "id"),
    sa.Index("ix_tasks_name", "account", "region", "name", "id"),
    sa.Index("ix_tasks_model", "account", "region", "model", "created", "id"),
    sa.Index("ix_tasks_updated", "account", "region", "updated", "id"),
    sa.Index(
        "uq_tasks_idempotency",
        "account",
        "region",
        "idempotency_key",
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    ),
)

task_tags = sa.Table(
    "task_tags",
    metadata,
    sa.Column("task", text(), sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", text(), primary_key=True),
    sa.Column("value", text(), nullable=False),
    *ownership(),
    sa.Column("created", sa.Double, nullable=False),  # the task's, so that the index gives them in its order
    sa.Index("ix_task_tags_key", "account", "region", "key", "value", "created", "task"),
)

task_counts = sa.Table(
    # How many tasks there are, so that nobody counts a million rows to show a page. tag_key "" counts all of them.
    "task_counts",
    metadata,
    sa.Column("account", text(), primary_key=True),
    sa.Column("region", text(), primary_key=True),
    sa.Column("tag_key", text(), primary_key=True),
    sa.Column("tag_value", text(), primary_key=True),
    sa.Column("status", text(), primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
    one_of("status", TaskStatus),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", text(), primary_key=True),
    sa.Column("task", text(), sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    *ownership(),
    sa.Column("status", text(), nullable=False),
    sa.Column("reason", text(), nullable=False, server_default=""),
    sa.Column("detail", text(), nullable=False, server_default=""),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("spec", _J),  # the task file as this run takes it, where a resumption changed something; else the task's
    # What was found out when it was checked: where things are and how they are read. See `store.records.Checked`.
    sa.Column("checked", _J),
    sa.Column("model_path", text()),
    sa.Column("code_path", text()),
    sa.Column("environment", _J),  # what its model's requirements came to: see `store.records.RunEnvironment`
    sa.Column("instances", sa.Integer, nullable=False),
    sa.Column("millicores", sa.Integer),  # of each instance; set when it is placed
    sa.Column("memory_bytes", sa.BigInteger),
    sa.Column("plan", text()),  # id of the run that planned; its own, or of a run before it
    sa.Column("deadline", sa.Double),
    sa.Column("stop_requested", sa.Double),
    sa.Column("stop_actor", text()),
    sa.Column("stop_reason", text()),  # a `Reason`: why it is to end before its time
    sa.Column("stop_detail", text()),
    # Phases. A moment that has not come is null.
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("planned", sa.Double),
    sa.Column("placed", sa.Double),
    sa.Column("first_report", sa.Double),
    sa.Column("running", sa.Double),
    sa.Column("computed", sa.Double),  # the last split was committed
    sa.Column("released", sa.Double),  # the last instance was gone
    sa.Column("published", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("sweep_at", sa.Double),  # when staging is removed; null before the end, and when it is done
    # The account at the end (while it runs: `tallies`).
    sa.Column("inputs", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("ok", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("skipped", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("splits", sa.BigInteger),
    sa.Column("splits_done", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("bytes_done", sa.BigInteger, nullable=False, server_default="0"),
    sa.UniqueConstraint("task", "number"),
    one_of("status", TaskStatus),
    sa.Index("uq_runs_unfinished", "task", unique=True, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED),
    sa.Index(
        "ix_runs_queue", "region", "priority", "created", "id", sqlite_where=UNFINISHED, postgresql_where=UNFINISHED
    ),
    sa.Index(
        "ix_runs_sweep",
        "sweep_at",
        sqlite_where=sa.text("sweep_at IS NOT NULL"),
        postgresql_where=sa.text("sweep_at IS NOT NULL"),
    ),
)

instances = sa.Table(
    "instances",
    metadata,
    sa.Column("id", text(), primary_key=True),
    sa.Column("run", text(), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("task", text(), nullable=False),
    sa.Column("index", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    *ownership(),
    sa.Column("status", text(), nullable=False),
    sa.Column("reason", text(), nullable=False, server_default=""),
    sa.Column("detail", text(), nullable=False, server_default=""),
    sa.Column("millicores", sa.Integer, nullable=False),
    sa.Column("memory_limit_bytes", sa.BigInteger, nullable=False),
    sa.Column("exit_code", sa.Integer),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("launched", sa.Double),
    sa.Column("first_report", sa.Double),
    sa.Column("running", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("forgotten", sa.Double),  # the engine has removed what it kept of it
    # As of its last report.
    sa.Column("reported", sa.Double),
    sa.Column("state", text(), nullable=False, server_default=""),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pending_inputs", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pending_ok", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pending_failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pending_skipped", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("seconds", _J),
    sa.Column("tuning", _J),
    sa.Column("fault", _J),
    sa.UniqueConstraint("run", "index", "attempt"),
    one_of("status", InstanceStatus),
    sa.Index("uq_instances_alive", "run", "index", unique=True, sqlite_where=ALIVE, postgresql_where=ALIVE),
    sa.Index(
        "ix_instances_kept",
        "run",
        sqlite_where=sa.text("forgotten IS NULL"),
        postgresql_where=sa.text("forgotten IS NULL"),
    ),
)

intervals = sa.Table(
    # When an instance was running (a model loaded): written when it begins and when it ends. What is billed, later.
    "intervals",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("instance", text(), sa.ForeignKey("instances.id", ondelete="CASCADE"), nullable=False),
    sa.Column("run", text(), nullable=False),
    *ownership(),
    sa.Column("begun", sa.Double, nullable=False),
    sa.Column("ended", sa.Double),
    sa.Index("ix_intervals_run", "run"),
    sa.Index(
        "uq_intervals_open",
        "instance",
        unique=True,
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    ),
)

events = sa.Table(
    # Append-only. ids grow with time for each task: whoever writes one has locked the task's run.
    "events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("task", text(), sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    *ownership(),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("kind", text(), nullable=False),
    sa.Column("subject", text(), nullable=False),
    sa.Column("type", text(), nullable=False),
    sa.Column("name", text(), nullable=False),
    sa.Column("message", text(), nullable=False),
    sa.Column("status", text()),
    sa.Column("reason", text(), nullable=False, server_default=""),
    one_of("kind", ("task", "run", "instance")),
    one_of("type", ("Normal", "Warning")),
    sa.Index("ix_events_task", "task", "id"),
    sqlite_autoincrement=True,  # an id is never used again
)

claims = sa.Table(
    # Which run owns which output folder, from its creation to its end. uri: normalised, ends in "/".
    "claims",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *ownership(),
    sa.Column("uri", text(), nullable=False),
    sa.Column("task", text(), nullable=False),
    sa.Column("run", text(), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("released", sa.Double),
    sa.Index("ix_claims_run", "run"),
    sa.Index(
        "uq_claims_active",
        "uri",
        unique=True,
        sqlite_where=sa.text("released IS NULL"),
        postgresql_where=sa.text("released IS NULL"),
    ),
)

work = sa.Table(
    # Who works for a loop on a run (or, to place, on an engine), and until when. A row is there while somebody does.
    "work",
    metadata,
    sa.Column("subject", text(), primary_key=True),
    sa.Column("loop", text(), primary_key=True),
    *ownership(),
    sa.Column("token", text(), nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)
