"""Rows as services and loops see them: frozen, with the domain's types. Column names are field names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import sqlalchemy as sa

from tidemill.domain.ids import AccountId, InstanceId, RegionName, RunId, TaskId
from tidemill.domain.life import InstanceStatus, Reason, TaskStatus
from tidemill_runtime.contract import Counts


@dataclass(frozen=True)
class Owner:
    """Whose a row is, where, and who asked for it. actor: id of a credential; empty: the server by itself."""

    account: AccountId
    region: RegionName
    actor: str = ""

    @property
    def values(self) -> dict[str, str]:
        return {"account": self.account, "region": self.region, "actor": self.actor}

    def by(self, actor: str) -> Owner:
        return Owner(self.account, self.region, actor)


class _Owned:
    account: AccountId
    region: RegionName

    @property
    def owner(self) -> Owner:
        """The same account and region; the server by itself."""
        return Owner(self.account, self.region)


@dataclass(frozen=True, kw_only=True)
class TaskRow(_Owned):
    id: TaskId
    account: AccountId
    region: RegionName
    actor: str
    name: str
    description: str
    spec: dict[str, Any]
    tags: dict[str, str]
    output: str
    model: str | None
    model_version: str | None
    model_digest: str | None
    code_digest: str | None
    instances: int
    priority: int
    status: TaskStatus
    reason: Reason
    detail: str
    run: RunId
    runs: int
    inputs: int
    ok: int
    failed: int
    skipped: int
    created: float
    updated: float
    started: float | None
    ended: float | None
    deadline: float | None
    idempotency_key: str | None
    idempotency_digest: str | None

    @property
    def counts(self) -> Counts:
        return Counts(self.inputs, self.ok, self.failed, self.skipped)


@dataclass(frozen=True, kw_only=True)
class RunEnvironment:
    """What became of the requirements of a run's model. asked, ready: moments; None: it is being installed.

    digest: of the environment, None where the engine's own Python satisfies them. packages: names and versions.
    """

    asked: float
    ready: float | None = None
    digest: str | None = None
    packages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunRow(_Owned):
    id: RunId
    task: TaskId
    number: int
    account: AccountId
    region: RegionName
    actor: str
    status: TaskStatus
    reason: Reason
    detail: str
    priority: int
    spec: dict[str, Any] | None
    checked: dict[str, Any] | None
    model_path: str | None
    code_path: str | None
    environment: dict[str, Any] | None
    instances: int
    millicores: int | None
    memory_bytes: int | None
    plan: str | None
    deadline: float | None
    stop_requested: float | None
    stop_actor: str | None
    stop_reason: Reason | None
    stop_detail: str | None
    created: float
    planned: float | None
    placed: float | None
    first_report: float | None
    running: float | None
    computed: float | None
    released: float | None
    published: float | None
    ended: float | None
    sweep_at: float | None
    inputs: int
    ok: int
    failed: int
    skipped: int
    splits: int | None
    splits_done: int
    bytes: int | None
    bytes_done: int

    @property
    def counts(self) -> Counts:
        return Counts(self.inputs, self.ok, self.failed, self.skipped)

    @property
    def requirements(self) -> RunEnvironment | None:
        """What became of those of its model; None where there are none, or nobody has looked yet."""
        return None if self.environment is None else RunEnvironment(**self.environment)


@dataclass(frozen=True, kw_only=True)
class InstanceRow(_Owned):
    id: InstanceId
    run: RunId
    task: TaskId
    index: int
    attempt: int
    account: AccountId
    region: RegionName
    actor: str
    status: InstanceStatus
    reason: Reason
    detail: str
    millicores: int
    memory_limit_bytes: int
    exit_code: int | None
    created: float
    launched: float | None
    first_report: float | None
    running: float | None
    ended: float | None
    forgotten: float | None
    reported: float | None
    state: str
    memory_bytes: int
    pending_inputs: int
    pending_ok: int
    pending_failed: int
    pending_skipped: int
    seconds: dict[str, float] | None
    tuning: dict[str, Any] | None
    fault: dict[str, str] | None

    @property
    def pending(self) -> Counts:
        return Counts(self.pending_inputs, self.pending_ok, self.pending_failed, self.pending_skipped)


@dataclass(frozen=True, kw_only=True)
class EventRow:
    id: int
    task: TaskId
    account: AccountId
    region: RegionName
    actor: str
    at: float
    kind: str
    subject: str
    type: str
    name: str
    message: str
    status: str | None
    reason: str


_ENUMS: dict[type, dict[str, Callable[[Any], Any]]] = {
    TaskRow: {"status": TaskStatus, "reason": Reason},
    RunRow: {"status": TaskStatus, "reason": Reason, "stop_reason": lambda value: Reason(value) if value else None},
    InstanceRow: {"status": InstanceStatus, "reason": Reason},
    EventRow: {},
}
T = TypeVar("T", TaskRow, RunRow, InstanceRow, EventRow)


def columns(cls: type[T], table: sa.Table) -> list[sa.Column[Any]]:
    """The columns of a record, to select."""
    return [table.c[field.name] for field in fields(cls)]


def record(cls: type[T], row: sa.Row[Any]) -> T:
    """The record of a row of `columns`."""
    values = dict(row._mapping)  # noqa: SLF001 - public in SQLAlchemy, and only spelled as if it were not
    for name, convert in _ENUMS[cls].items():
        values[name] = convert(values[name])
    return cls(**values)
