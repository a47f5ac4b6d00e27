"""What the JSON API answers, as pydantic models: built by `services`, sent by `api`, read back by `client` and `cli`.

Times are UTC, durations and sizes carry their unit in the name. Readers ignore keys that they do not know, so that
an older client gets along with a newer server.
"""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from tidemill.domain.life import FINAL, InstanceStatus, Reason, TaskStatus
from tidemill.wire.taskfile import TaskFile

T = TypeVar("T")


class View(BaseModel):
    """Base of all answers. In a notebook it shows itself as a table."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(_cell(value))}</td></tr>"
            for name, value in self.model_dump(mode="json").items()
            if value not in (None, "", [], {})
        )
        return f"<table><caption>{type(self).__name__.removesuffix('View')}</caption>{rows}</table>"


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_cell(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(inner) for inner in value)
    text = str(value)
    return text if len(text) <= 300 else text[:300] + " …"


def readable(text: str) -> str:
    """Text that can be sent: names of local files need not be Unicode, and what is none of it is shown as `?`."""
    return text.encode("utf-8", "replace").decode()


class Page(View, Generic[T]):
    """One page of a list. Pass `next_cursor` as `cursor` for the next one; null: this is the last."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None
    """How many there are in all, with the filters applied; null where nobody counted."""

    def _repr_html_(self) -> str:
        shown = [item.model_dump(mode="json") for item in self.items if isinstance(item, View)]
        names = [
            name for name in (shown[0] if shown else {}) if any(row[name] not in (None, "", [], {}) for row in shown)
        ]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(row[name]))}</td>" for name in names) + "</tr>" for row in shown
        )
        return f"<table><caption>{len(self.items)} of {self.total}</caption><tr>{head}</tr>{body}</table>"


class CountsView(View):
    """An account of records: inputs = ok + failed + skipped. Skipped are blank lines."""

    inputs: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0


class SecondsView(View):
    """Where the time of a run went. A phase that has begun and not ended counts up to now."""

    queue: float = 0.0
    """Planning, and waiting for capacity."""
    environment: float = 0.0
    """Installing the model's requirements."""
    start: float = 0.0
    """From then on until the first instance reported."""
    load: float = 0.0
    """Until the first model had loaded."""
    predict: float = 0.0
    """Until the last commit."""
    publish: float = 0.0
    """Until results, receipt and marker were in place."""
    total: float = 0.0


class EnvironmentView(View):
    """What became of the requirements of the run's model."""

    digest: str | None = None
    """The environment that was made of them, as `tidemill environment list` shows it; null: the server's own Python."""
    ready_at: datetime | None = None
    """When it was there; null while it is being installed."""
    packages: dict[str, str] = {}
    """Names and versions of what is installed in it; of the server's own Python, of what is required."""


class RunView(View):
    """One execution of a task. A resumed task has several; its status is that of the latest."""

    id: str
    number: int
    """Counts the task's runs from 1."""
    status: TaskStatus
    reason: Reason = Reason.NONE
    detail: str = ""
    """Evidence: what exactly happened."""
    explanation: str = ""
    """Reason, evidence and what to do, in words."""
    instances: int
    """How many instances the run has."""
    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    created_at: datetime
    started_at: datetime | None = None
    """When the first instance was placed."""
    running_at: datetime | None = None
    """When the first model had loaded."""
    ended_at: datetime | None = None
    environment: EnvironmentView | None = None
    """Null for a model without requirements."""
    seconds: SecondsView = SecondsView()


class TaskSummary(View):
    """A task in a list."""

    id: str
    name: str
    region: str
    status: TaskStatus
    reason: Reason = Reason.NONE
    explanation: str = ""
    """The reason in words, with evidence and what to do."""
    warning: str | None = None
    """Set when something needs attention although the status is good: SUCCEED with failed records."""
    model: str | None = None
    """The model's version as it runs (`churn@2`), or the folder or image that was given."""
    output: str
    instances: int
    priority: int = 0
    counts: CountsView = CountsView()
    tags: dict[str, str] = {}
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def final(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.status in FINAL


class TaskView(TaskSummary):
    """All about one task."""

    description: str = ""
    spec: TaskFile
    """The task as it was asked for, in canonical form: it can be sent again."""
    run: RunView
    """The latest run."""
    runs: int = 1
    note: str = ""
    """What a person should know of how the input is shared, for example that it runs whole, and why."""
    model_kind: str | None = None
    """What is called: service, mlflow, onnx, sklearn, lightgbm, function, lines or http."""
    model_version: str | None = None
    """Id of the model version in the repository."""
    model_digest: str | None = None
    """Digest of the model's package."""
    code_digest: str | None = None
    """Digest of the code package."""
    seconds: SecondsView = SecondsView()
    tuning: dict[str, Any] = {}
    """What was chosen (mini-batch size, processes, threads), and why."""
    deadline_at: datetime | None = None
    created_by: str = ""


class ProgressView(View):
    """Where a task is now; each event of `watch` is one."""

    task: str
    run: str
    status: TaskStatus
    phase: Literal[
        "planning", "queued", "installing", "starting", "loading", "predicting", "publishing", "stopping", "finished"
    ]
    reason: Reason = Reason.NONE
    explanation: str = ""
    warning: str | None = None
    counts: CountsView = CountsView()
    """Of committed work."""
    pending: CountsView = CountsView()
    """Of work that is computed and not yet committed; an instance that dies loses it."""
    splits_total: int | None = None
    """Null until the task is planned."""
    splits_done: int = 0
    bytes_total: int | None = None
    bytes_done: int = 0
    """Bytes of the input that are committed."""
    records_per_s: float | None = None
    eta_s: float | None = None
    """Seconds until the last split is done at the present speed; null where nobody can tell."""
    instances: int
    instances_running: int = 0
    """Instances whose model has loaded."""
    seconds: SecondsView = SecondsView()

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def share(self) -> float:
        """Done, from 0 to 1, by bytes of the input (by splits where all objects are empty)."""
        if self.bytes_total:
            return min(1.0, self.bytes_done / self.bytes_total)
        return self.splits_done / self.splits_total if self.splits_total else 0.0


class InstanceView(View):
    """One process or container of a run."""

    id: str
    run: str
    index: int
    """Place in the run, from 0."""
    attempt: int
    """Counts replacements at this place, from 1."""
    status: InstanceStatus
    reason: Reason = Reason.NONE
    explanation: str = ""
    exit_code: int | None = None
    """Negative: ended by this signal."""
    memory_bytes: int = 0
    """Resident memory at the last report."""
    created_at: datetime
    running_at: datetime | None = None
    ended_at: datetime | None = None
    reported_at: datetime | None = None


class EventView(View):
    """Something that happened. Events are never changed or removed while their task exists."""

    id: int
    """Grows with time; events of a task after this one: `?after=id`."""
    at: datetime
    kind: Literal["task", "run", "instance"]
    subject: str
    """Id of the task, run or instance."""
    type: Literal["Normal", "Warning"]
    name: str
    """Stable name of what happened (`task.created`, `run.status` …)."""
    message: str
    status: str | None = None
    """The new status, where one changed."""
    reason: str = ""
    actor: str = ""
    """Who did it; empty: the server by itself."""


class LogView(View):
    """A piece of what an instance printed."""

    instance: str
    offset: int
    """Byte at which `text` begins."""
    next_offset: int
    """Where to go on."""
    text: str
    """Bytes that are not UTF-8 are shown as \ufffd."""
    ended: bool
    """The instance has ended and this is all."""


class HealthView(View):
    """Whether a server lives, or is ready for work."""

    status: Literal["ok", "unavailable"]
    problems: list[str] = []
    """What is missing, in words."""


class ResultObjectView(View):
    """One object of a task's output."""

    name: str
    """Path below the output folder."""
    location: str
    kind: Literal["result", "errors", "receipt", "marker"]
    size_bytes: int
    sha256: str | None = None
    counts: CountsView | None = None


class PreviewView(View):
    """The first lines of a result object."""

    name: str
    lines: list[str]
    truncated: bool
    """Whether more follows."""


class ErrorView(View):
    """A record that failed."""

    object: str
    """Name of the input object."""
    line: int | None = None
    """Line of the input object, from 1 (formats of lines)."""
    row: int | None = None
    """Row of the input object, from 1 (Parquet, CSV)."""
    fault: str
    """Class of the fault: `model_error`, `decode_error`, `timeout`, `crash` …"""
    type: str
    """Class of the exception."""
    message: str
    traceback: str = ""
    attempts: int = 1
    input: str | None = None
    """The record itself, capped."""
    input_truncated: bool = False
    input_base64: bool = False
    """The record is not UTF-8 and is given in base64."""
    fingerprint: str = ""
    """Equal for errors of one cause."""


class ErrorGroupView(View):
    """Failed records of one cause."""

    fingerprint: str
    fault: str
    type: str
    message: str
    count: int
    example: ErrorView


class DeletedView(View):
    """What a deletion removed."""

    id: str
    removed: list[str]
    """In words, one thing each."""
    kept: list[str] = []
    """What was left, and why."""


class ReceiptView(View):
    """The account of a task, as it lies in the output folder. Keys beyond these are handed through."""

    model_config = ConfigDict(extra="allow", frozen=True)

    version: int
    task: str
    run: str
    name: str
    counts: CountsView


class ServerView(View):
    """What this server is and has."""

    version: str
    region: str
    regions: list[str]
    engine: str
    capacity_millicores: int
    capacity_memory_bytes: int
    buckets: dict[str, list[str]]
    """Names of the buckets of each region."""
    receipt_key: str
    """The public key (Ed25519, base64) that this server signs receipts by."""
