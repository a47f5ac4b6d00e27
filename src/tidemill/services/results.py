"""What a task has made: result objects, errors, the receipt; also while it runs. Called by the API.

Where the truth is: the marker `_SUCCESS`, once it is there; until then the notes of the units that are published,
and for errors also the committed parts of units that are not. What is not committed is never shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

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
NAMES_KEPT = 100_000
"""Names of results that are kept in memory."""
PREVIEW_BYTES_MAX = 1024 * 1024
PREVIEW_LINE_MAX = 10_000
T = TypeVar("T")


@dataclass(frozen=True)
class _Output:
    """Where a task's results are. done: its marker is there. result_type: `ResultFormat.type`."""

    task: TaskRow
    run: RunRow
    objects: Objects
    folder: Location
    done: bool

    @property
    def result_type(self) -> str:
        return str(self.run.checked["formats"]["result"]["type"]) if self.run.checked else "jsonl"


_COUNTED, _FINAL, _EXTRAS = -1, -2, -3


@dataclass(frozen=True)
class _Place:
    """Where a list goes on: behind this byte of what.

    source: the notes of a unit (its number), the object that is written at the end (_FINAL), what follows it (_EXTRAS:
    offset counts objects), or nowhere in particular (_COUNTED: by the number of items before).
    """

    source: int = _COUNTED
    offset: int = 0


@dataclass(frozen=True)
class _Begin:
    """Where a page begins: so many items behind a place. What is published moves when a task ends: then it is counted
    from the beginning, once.
    """

    place: _Place
    skip: int


class Results:
    def __init__(self, store: Store, regions: Regions) -> None:
        self._store = store
        self._regions = regions
        self._names: tuple[TaskId | None, frozenset[str]] = (None, frozenset())

    def list(self, actor: Actor, task: TaskId, limit: int, cursor: str | None) -> Page[ResultObjectView]:
        """Result objects in input order; the last page of a finished task has errors, receipt and marker too."""
        output = self._output(actor, task)
        items, following = _page(lambda place: self._objects_of(output, place), _begin(cursor, output), limit, cursor)
        return Page[ResultObjectView](items=items, next_cursor=following)

    def open(self, actor: Actor, task: TaskId, name: str) -> Opened:
        """One object of the output. Raises NotFound for what the task has not made (yet)."""
        output = self._output(actor, task)
        if name.startswith(layout.STAGING) or name not in (layout.ERRORS, layout.RECEIPT, layout.MARKER):
            if not self._has_made(output, name):
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
        output = self._output(actor, task)
        if name is None:
            results = (found for found, _ in self._objects_of(output, _Place()) if found.kind == "result")
            first = next((found for found in results if found.size_bytes), None)
            if first is None:
                raise NotFound("there are no results yet.", remedy="Wait for the first object to be done.")
            name = first.name
        opened = self.open(actor, task, name)
        if output.result_type == "parquet" and name not in (layout.ERRORS, layout.RECEIPT, layout.MARKER):
            from tidemill.publishing.rows import parquet_lines  # pyarrow: an extra, and slow to load

            rows, truncated = parquet_lines(output.objects, output.folder.child(name), lines)
            return PreviewView(name=name, lines=[row[:PREVIEW_LINE_MAX] for row in rows], truncated=truncated)
        head = b"".join(opened.read(0, min(opened.info.size, PREVIEW_BYTES_MAX)))
        whole = len(head) == opened.info.size
        if b"\0" in head:
            return PreviewView(name=name, lines=[f"({opened.info.size} bytes that are no text)"], truncated=False)
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

        def errors(place: _Place) -> Iterator[tuple[dict[str, Any], _Place]]:
            found = self._errors_of(output, place)
            return (each for each in found if not fingerprint or each[0].get("fingerprint") == fingerprint)

        items, following = _page(errors, _begin(cursor, output), limit, cursor)
        return Page[ErrorView](
            items=[_error_view(error) for error in items],
            next_cursor=following,
            total=None if fingerprint else output.task.failed,
        )

    def error_groups(self, actor: Actor, task: TaskId) -> Page[ErrorGroupView]:
        """Errors by cause, the most frequent first. total is null where there were too many to look at all."""
        output = self._output(actor, task)
        counts: dict[str, int] = {}
        examples: dict[str, dict[str, Any]] = {}
        seen = 0
        for error, _ in islice(self._errors_of(output, _Place()), GROUPED_MAX + 1):
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

    def _has_made(self, output: _Output, name: str) -> bool:
        """Whether it is a result. The names of the finished task that was asked about last are kept: who fetches all
        of its results asks for one after the other.
        """
        if not output.done:
            return any(found.name == name for found, _ in self._objects_of(output, _Place()))
        task, names = self._names
        if task != output.task.id:
            names = frozenset(islice((found.name for found, _ in self._objects_of(output, _Place())), NAMES_KEPT + 1))
            if len(names) > NAMES_KEPT:
                return any(found.name == name for found, _ in self._objects_of(output, _Place()))
            self._names = (output.task.id, names)
        return name in names

    def _objects_of(self, output: _Output, begin: _Place) -> Iterator[tuple[ResultObjectView, _Place]]:
        """Each with the place behind it."""
        if not output.done:
            for unit in self._published(output, begin):
                offset = begin.offset if unit.unit == begin.source else 0
                for line, end in _json_lines(output, layout.unit_manifest(output.task.id, unit.unit), offset):
                    yield _result_view(output.folder, line), _Place(unit.unit, end)
            return
        if begin.source != _EXTRAS:
            lines = _json_lines(output, layout.MARKER, begin.offset)
            if not begin.offset:
                next(lines, None)  # the header
            yield from ((_result_view(output.folder, line), _Place(_FINAL, end)) for line, end in lines)
        extras = ((layout.ERRORS, "errors"), (layout.RECEIPT, "receipt"), (layout.MARKER, "marker"))
        skip = begin.offset if begin.source == _EXTRAS else 0
        for number, (name, kind) in enumerate(extras[skip:], skip + 1):
            info = output.objects.head(output.folder.child(name))
            if info is not None:
                location = str(output.folder.child(name))
                values = {"name": name, "location": location, "kind": kind, "size_bytes": info.size}
                yield ResultObjectView.model_validate(values), _Place(_EXTRAS, number)

    def _errors_of(self, output: _Output, begin: _Place) -> Iterator[tuple[dict[str, Any], _Place]]:
        """Each with the place behind it."""
        if output.done:
            for error, end in _json_lines(output, layout.ERRORS, begin.offset):
                yield error, _Place(_FINAL, end)
            return
        if output.run.plan is None:
            return
        published = set()
        for unit in self._published(output, _Place()):
            published.add(unit.unit)
            if unit.counts.failed and unit.unit >= begin.source:
                offset = begin.offset if unit.unit == begin.source else 0
                for error, end in _json_lines(output, layout.unit_errors(output.task.id, unit.unit), offset):
                    yield error, _Place(unit.unit, end)
        staged = staged_errors(
            self._store,
            output.objects,
            output.folder,
            output.task.id,
            output.run.id,
            output.run.plan,
            without=published,
        )
        yield from ((error, _Place()) for error in staged)

    def _published(self, output: _Output, begin: _Place) -> Iterator[PublishedUnit]:
        units = SqlJournal(self._store, output.run.id).units_published() if output.run.plan else iter(())
        return (unit for unit in units if unit.unit >= begin.source)


def _json_lines(output: _Output, name: str, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines of an object from a byte on, each with the byte behind it; nothing if it is gone (staging is removed
    after a time).
    """
    rest = b""
    try:
        for chunk in output.objects.stream(output.folder.child(name), start):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                start += len(line) + 1
                if line:
                    yield _json(line), start
    except NotFound:
        return
    if rest:
        yield _json(rest), start + len(rest)


def _json(line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError as error:  # no line begins at the byte that the cursor says
        raise _bad_cursor() from error
    return found


def _begin(cursor: str | None, output: _Output) -> _Begin:
    """Where a page begins."""
    if not cursor:
        return _Begin(_Place(), 0)
    seen, source, offset = (int(value) for value in decode_cursor(cursor, [int, int, int]))
    if not (0 <= seen < 2**53 and _EXTRAS <= source < 2**53 and 0 <= offset < 2**53):
        raise _bad_cursor()
    known = source in (_FINAL, _EXTRAS) if output.done else source >= 0
    return _Begin(_Place(source, offset), 0) if known else _Begin(_Place(), seen)


def _page(
    read: Callable[[_Place], Iterator[tuple[T, _Place]]], begin: _Begin, limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """So many items, and the cursor of what follows, if anything does."""
    before = int(decode_cursor(cursor, [int, int, int])[0]) if cursor else 0
    found = list(islice(read(begin.place), begin.skip, begin.skip + limit + 1))
    items = [item for item, _ in found[:limit]]
    if len(found) <= limit:
        return items, None
    last = found[limit - 1][1]
    return items, encode_cursor(before + limit, last.source, last.offset)


def _bad_cursor() -> InvalidValue:
    return InvalidValue("is not a cursor of this list.", field="cursor", remedy="Use `next_cursor` of a page.")


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
