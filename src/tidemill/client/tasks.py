"""`client.tasks`: create, find, follow, stop, resume, delete; results, errors, receipt, logs, events."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tidemill.client.connection import LONG_ANSWER_S, Connection, segment
from tidemill.client.downloads import download
from tidemill.client.packages import OnUpload, PackagesClient
from tidemill.client.paging import every
from tidemill.client.watching import watch
from tidemill.domain.errors import NotFound
from tidemill.domain.life import TaskStatus
from tidemill.domain.references import PACKAGE_PREFIX, is_folder
from tidemill.wire.taskfile import TaskFile, dump_task
from tidemill.wire.taskyaml import read_task
from tidemill.wire.views import (
    DeletedView,
    ErrorGroupView,
    ErrorView,
    EventView,
    InstanceView,
    LogView,
    Page,
    PreviewView,
    ProgressView,
    ReceiptView,
    ResultObjectView,
    RunView,
    TaskSummary,
    TaskView,
)

_FOLLOW_EVERY_S = 0.5


class TasksClient:
    def __init__(self, connection: Connection, packages: PackagesClient) -> None:
        self._connection = connection
        self._packages = packages

    def create(
        self,
        task: TaskFile | Mapping[str, Any] | str | os.PathLike[str],
        *,
        idempotency_key: str | None = None,
        progress: OnUpload | None = None,
    ) -> TaskView:
        """Creates a task: from a TaskFile, from a dict of its keys, or from the path of a task file.

        A local `model` or `code` folder is uploaded first (only what the server lacks), and replaced by its package.
        idempotency_key: the same key and the same task give the same task, however often; one is made if none is
        given, so that a lost answer does no harm. Raises Refused of all kinds, naming field, value and remedy.
        """
        wanted = read_task(task)
        body = dump_task(wanted)
        for key in ("model", "code"):
            named = body.get(key)
            if named is not None and is_folder(named):
                folder = Path(named).expanduser()
                body[key] = PACKAGE_PREFIX + self._packages.upload_folder(folder, progress=progress, field=key).digest
        key = idempotency_key or secrets.token_hex(16)
        try:
            return self._connection.post("/api/v1/tasks", TaskView, body, idempotency_key=key, answer_s=LONG_ANSWER_S)
        except NotFound as error:
            # A bare name is one of the repository here, but a folder for `tidemill run`.
            named = body.get("model")
            if error.field != "model" or named is None or not Path(named).is_dir():
                raise
            raise NotFound(
                error.message, field="model", remedy=f"For the folder of that name, write ./{named}."
            ) from error

    def list(
        self,
        *,
        name: str | None = None,
        name_contains: str | None = None,
        status: Sequence[TaskStatus | str] = (),
        model: str | None = None,
        region: str | None = None,
        tag: Sequence[str] = (),
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        order_by: Literal["created", "updated"] = "created",
        order: Literal["asc", "desc"] = "desc",
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page[TaskSummary]:
        """One page of tasks that match all filters, newest first. tag: `key:value` or `key`."""
        params = {
            "name": name,
            "name_contains": name_contains,
            "status": [str(each) for each in status],
            "model": model,
            "region": region,
            "tag": list(tag),
            "created_after": created_after.isoformat() if created_after else None,
            "created_before": created_before.isoformat() if created_before else None,
            "order_by": order_by,
            "order": order,
            "limit": limit,
            "cursor": cursor,
        }
        return self._connection.get("/api/v1/tasks", Page[TaskSummary], params)

    def all(self, **filters: Any) -> Iterator[TaskSummary]:
        """Every task that `list` would give with these filters, from page to page."""
        return every(lambda cursor: self.list(**{"limit": 1000, **filters, "cursor": cursor}))

    def get(self, task: str) -> TaskView:
        """All about one task. Raises NotFound."""
        return self._connection.get(_path(task), TaskView)

    def stop(self, task: str) -> TaskView:
        """Stops a task, keeping what is committed. Stopping one that is stopping or stopped already is no error."""
        return self._connection.post(_path(task, "stop"), TaskView, {}, again=True)

    def resume(self, task: str, changes: Mapping[str, Any] | None = None) -> TaskView:
        """Starts a new run that computes what is missing. changes: instances, resources, tolerance."""
        return self._connection.post(_path(task, "resume"), TaskView, dict(changes or {}))

    def delete(self, task: str) -> DeletedView:
        """Removes a task that has ended. Its results stay. Raises Conflict for one that has not."""
        return self._connection.delete(_path(task), DeletedView)

    def progress(self, task: str) -> ProgressView:
        """Where the task is now."""
        return self._connection.get(_path(task, "progress"), ProgressView)

    def watch(self, task: str, *, timeout_s: float | None = None) -> Iterator[ProgressView]:
        """Its progress, whenever it changes, until the task has ended; goes on through restarts of the server.

        timeout_s: stops telling after so long, without an error.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        return watch(self._connection, _path(task, "watch"), until=until)

    def runs(self, task: str) -> Iterator[RunView]:
        """Newest first."""
        return iter(self._connection.get(_path(task, "runs"), Page[RunView]).items)

    def instances(self, task: str, *, run: str | None = None) -> Iterator[InstanceView]:
        """Also those that have ended; of one run, or of all."""
        return self._every(task, "instances", Page[InstanceView], {"run": run})

    def events(self, task: str, *, after: int = 0) -> Iterator[EventView]:
        """What happened, oldest first. after: only events with a greater id."""
        path = _path(task, "events")
        return every(
            lambda cursor: self._connection.get(
                path, Page[EventView], {"after": int(cursor) if cursor else after, "limit": 1000}
            )
        )

    def logs(
        self, task: str, *, instance: str | None = None, offset: int = 0, follow: bool = False
    ) -> Iterator[LogView]:
        """What an instance (the newest, if none is named) printed, in pieces; with `follow` until it has ended."""
        while True:
            piece = self._connection.get(_path(task, "logs"), LogView, {"instance": instance, "offset": offset})
            instance = piece.instance
            if piece.text:
                yield piece
            more = piece.next_offset > offset
            offset = piece.next_offset
            if piece.ended or not (more or follow):
                return
            if not more:
                time.sleep(_FOLLOW_EVERY_S)

    def results(self, task: str) -> Iterator[ResultObjectView]:
        """The objects in the output folder so far, in input order."""
        return self._every(task, "results", Page[ResultObjectView])

    def preview(self, task: str, name: str | None = None, *, lines: int = 10) -> PreviewView:
        """The first lines of a result object; of the first one, if none is named."""
        return self._connection.get(_path(task, "results", "preview"), PreviewView, {"name": name, "lines": lines})

    def download(self, task: str, name: str, target: str | os.PathLike[str]) -> Path:
        """One result object into a local file, replacing it; nobody sees half of it."""
        return download(self._connection, _path(task, "results", "content"), {"name": name}, Path(target))

    def errors(self, task: str, *, fingerprint: str | None = None, limit: int | None = None) -> Iterator[ErrorView]:
        """The records that failed, in input order; at most `limit` of them."""
        found = self._every(task, "errors", Page[ErrorView], {"fingerprint": fingerprint}, limit or 1000)
        return found if limit is None else islice(found, limit)

    def error_groups(self, task: str) -> Sequence[ErrorGroupView]:
        """The records that failed, by cause, the most frequent first."""
        return self._connection.get(_path(task, "errors", "groups"), Page[ErrorGroupView]).items

    def receipt(self, task: str) -> ReceiptView:
        """The account of a finished task. Raises Conflict for one that has none."""
        return self._connection.get(_path(task, "receipt"), ReceiptView)

    def _every(
        self, task: str, what: str, page: Any, params: Mapping[str, Any] | None = None, limit: int = 1000
    ) -> Iterator[Any]:
        path = _path(task, what)
        asked = {**(params or {}), "limit": min(limit, 1000)}
        return every(lambda cursor: self._connection.get(path, page, {**asked, "cursor": cursor}))


def _path(task: str, *below: str) -> str:
    return "/".join(("/api/v1/tasks", segment(task), *below))
