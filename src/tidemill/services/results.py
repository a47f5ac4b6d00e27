"""What a task has made: result objects, errors, the receipt; also while it runs. Called by the API.

Where the truth is: the marker `_SUCCESS`, once it is there; until then the notes of the units that are published,
and for errors also the committed parts of units that are not. What is not committed is never shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tidemill.domain import layout
from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.domain.ids import TaskId
from tidemill.domain.life import TaskStatus
from tidemill.domain.location import Location, parse_location
from tidemill.ports.journal import PublishedUnit
from tidemill.ports.objects import Objects
from tidemill.publishing.publisher import read_marker
from tidemill.services.access import Actor
from tidemill.services.lookup import latest_run, own_task
from tidemill.services.objects import Opened, open_object
from tidemill.services.queries import decode_cursor, encode_cursor
from tidemill.services.regions import Regions, find_region
from tidemill.services.staged_errors import staged_errors
from tidemill.store.base import Store
from tidemill.store.journal import SqlJournal
from tidemill.store.records import RunRow, TaskRow
from tidemill.wire.views import (
    CountsView,
    ErrorGroupView,
    ErrorView,
    Page,
    PreviewView,
    ReceiptView,
    ResultObjectView,
    readable,
)

GROUPED_MAX = 200_000
"""Errors that are looked at for groups: more take long, and change no picture."""
PREVIEW_BYTES_MAX = 1024 * 1024
PREVIEW_LINE_MAX = 10_000
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class _Output:
    """Where a task's results are. done: its marker is there."""

    task: TaskRow
    run: RunRow
    objects: Objects
    folder: Location
    done: bool


class Results:
    def __init__(self, store: Store, regions: Regions) -> None:
        self._store = store
        self._regions = regions

    def list(self, actor: Actor, task: TaskId, limit: int, cursor: str | None) -> Page[ResultObjectView]:
        """Result objects in input order; the last page of a finished task has errors, receipt and marker too."""
        output = self._output(actor, task)
        skip = _skipped(cursor)
        found = list(islice(self._objects_of(output), skip, skip + limit + 1))
        return Page[ResultObjectView](
            items=found[:limit], next_cursor=encode_cursor(skip + limit) if len(found) > limit else None
        )

    def open(self, actor: Actor, task: TaskId, name: str) -> Opened:
        """One object of the output. Raises NotFound for what the task has not made (yet)."""
        output = self._output(actor, task)
        if name.startswith(layout.STAGING) or name not in (layout.ERRORS, layout.RECEIPT, layout.MARKER):
            if not any(found.name == name for found in self._objects_of(output)):
                raise NotFound(
                    f"{name[:200]!r} is no result of this task.",
                    field="name",
                    remedy="The list of results shows those there are.",
                )
        elif not output.done:
            raise NotFound(f"{name} is not written yet.", field="name", remedy="Wait for the end of the task.")
        return open_object(output.objects, output.folder.child(name))

    def preview(self, actor: Actor, task: TaskId, name: str | None, lines: int) -> PreviewView:
        """The first lines of a result object; of the first one that has any, if none is named."""
        if name is None:
            output = self._output(actor, task)
            results = (found for found in self._objects_of(output) if found.kind == "result")
            first = next((found for found in results if found.size_bytes), None)
            if first is None:
                raise NotFound("there are no results yet.", remedy="Wait for the first object to be done.")
            name = first.name
        opened = self.open(actor, task, name)
        head = b"".join(opened.read(0, min(opened.info.size, PREVIEW_BYTES_MAX)))
        whole = len(head) == opened.info.size
        found = head.decode("utf-8", "replace").split("\n")
        if whole and found[-1] == "":
            found.pop()
        elif not whole and len(found) > 1:
            found.pop()  # cut off in its middle
        return PreviewView(
            name=name,
            lines=[line[:PREVIEW_LINE_MAX] for line in found[:lines]],
            truncated=not whole or len(found) > lines,
        )

    def errors(
        self, actor: Actor, task: TaskId, fingerprint: str | None, limit: int, cursor: str | None
    ) -> Page[ErrorView]:
        """The records that failed and are committed, in input order."""
        output = self._output(actor, task)
        skip = _skipped(cursor)
        wanted = (
            error for error in self._errors_of(output) if not fingerprint or error.get("fingerprint") == fingerprint
        )
        found = list(islice(wanted, skip, skip + limit + 1))
        return Page[ErrorView](
            items=[_error_view(error) for error in found[:limit]],
            next_cursor=encode_cursor(skip + limit) if len(found) > limit else None,
            total=None if fingerprint else output.task.failed,
        )

    def error_groups(self, actor: Actor, task: TaskId) -> Page[ErrorGroupView]:
        """Errors by cause, the most frequent first. total is null where there were too many to look at all."""
        output = self._output(actor, task)
        counts: dict[str, int] = {}
        examples: dict[str, dict[str, Any]] = {}
        seen = 0
        for error in islice(self._errors_of(output), GROUPED_MAX + 1):
            seen += 1
            fingerprint = str(error.get("fingerprint", ""))
            counts[fingerprint] = counts.get(fingerprint, 0) + 1
            examples.setdefault(fingerprint, error)
        groups = sorted(counts, key=lambda each: (-counts[each], each))
        return Page[ErrorGroupView](
            items=[_group(each, counts[each], _error_view(examples[each])) for each in groups],
            total=len(groups) if seen <= GROUPED_MAX else None,
        )

    def receipt(self, actor: Actor, task: TaskId) -> ReceiptView:
        """Raises Conflict before the task has succeeded."""
        output = self._output(actor, task)
        if not output.done:
            raise Conflict(
                f"the task is {output.task.status} and has no receipt.", remedy="A task has one once it is SUCCEED."
            )
        return ReceiptView.model_validate_json(output.objects.read(output.folder.child(layout.RECEIPT)))

    # where things are

    def _output(self, actor: Actor, task: TaskId) -> _Output:
        with self._store.read() as tx:
            row = own_task(tx, actor, task)
            run = latest_run(tx, row)
        objects = find_region(self._regions, row.region).objects
        folder = parse_location(row.output, field="output").as_folder()
        done = False
        if row.status is TaskStatus.SUCCEED:
            header = read_marker(objects, folder)
            if header is None or header.get("task") != task:
                raise NotFound(
                    f"the results of this task are no longer in {folder}.",
                    remedy="They were removed or replaced after it had ended.",
                )
            done = True
        return _Output(row, run, objects, folder, done)

    def _objects_of(self, output: _Output) -> Iterator[ResultObjectView]:
        if not output.done:
            for unit in self._published(output):
                name = layout.unit_manifest(output.task.id, unit.unit)
                yield from (_result_view(output.folder, line) for line in _json_lines(output, name))
            return
        lines = _json_lines(output, layout.MARKER)
        next(lines, None)  # the header
        yield from (_result_view(output.folder, line) for line in lines)
        for name, kind in ((layout.ERRORS, "errors"), (layout.RECEIPT, "receipt"), (layout.MARKER, "marker")):
            info = output.objects.head(output.folder.child(name))
            if info is not None:
                yield ResultObjectView.model_validate(
                    {"name": name, "location": str(output.folder.child(name)), "kind": kind, "size_bytes": info.size}
                )

    def _errors_of(self, output: _Output) -> Iterator[dict[str, Any]]:
        if output.done:
            yield from _json_lines(output, layout.ERRORS)
            return
        if output.run.plan is None:
            return
        published = set()
        for unit in self._published(output):
            published.add(unit.unit)
            if unit.counts.failed:
                yield from _json_lines(output, layout.unit_errors(output.task.id, unit.unit))
        yield from staged_errors(
            self._store,
            output.objects,
            output.folder,
            output.task.id,
            output.run.id,
            output.run.plan,
            without=published,
        )

    def _published(self, output: _Output) -> Iterator[PublishedUnit]:
        return SqlJournal(self._store, output.run.id).units_published() if output.run.plan else iter(())


def _json_lines(output: _Output, name: str) -> Iterator[dict[str, Any]]:
    """The lines of an object; nothing if it is gone (staging is removed after a time)."""
    rest = b""
    try:
        for chunk in output.objects.stream(output.folder.child(name)):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line)
    except NotFound:
        return
    if rest:
        yield json.loads(rest)


def _result_view(folder: Location, line: Mapping[str, Any]) -> ResultObjectView:
    return ResultObjectView(
        name=readable(line["name"]),
        location=readable(str(folder.child(line["name"]))),
        kind="result",
        size_bytes=line["size"],
        sha256=line["sha256"],
        counts=CountsView(**line["counts"]),
    )


def _error_view(error: Mapping[str, Any]) -> ErrorView:
    told = {key: readable(value) if isinstance(value, str) else value for key, value in error.items()}
    return ErrorView.model_validate({key: value for key, value in told.items() if value is not None})


def _group(fingerprint: str, count: int, example: ErrorView) -> ErrorGroupView:
    return ErrorGroupView(
        fingerprint=fingerprint,
        fault=example.fault,
        type=example.type,
        message=example.message,
        count=count,
        example=example,
    )


def _skipped(cursor: str | None) -> int:
    skip = int(decode_cursor(cursor, [int])[0]) if cursor else 0
    if not 0 <= skip < 2**53:
        raise InvalidValue("is not a cursor of this list.", field="cursor", remedy="Use `next_cursor` of a page.")
    return skip
