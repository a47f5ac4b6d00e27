"""The task that a record is of: what it ran and how, which objects it read. Used by `replay`.

One that has succeeded is read back from its output folder; of another the user or a server says what was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.location import Location, parse_location
from tidemill.domain.splits import ListedObject
from tidemill.objects.listing import read_listing
from tidemill.planning.check import first_inputs, folder_of, samples_of
from tidemill.planning.formats import resolve
from tidemill.planning.patterns import selector
from tidemill.ports.objects import ObjectInfo, Objects
from tidemill.wire.taskfile import TaskFile, parse_task
from tidemill_runtime.contract import InputFormat, ResultFormat

_RECEIPT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Task:
    """One that has succeeded. folder: of its output. input: the folder that the names of its objects lie below.
    objects_read: how many. spec: as it was asked for, with variables that have no values. model_sha256, code_sha256:
    digests of the folders that it ran; None where there was none, or nobody knows. environment: as in the receipt.
    """

    objects: Objects
    folder: Location
    id: str
    input: Location
    objects_read: int
    spec: TaskFile
    input_format: InputFormat
    result_format: ResultFormat
    model_sha256: str | None
    code_sha256: str | None
    environment: dict[str, str]

    @property
    def finished(self) -> bool:
        """Whether there are results to be compared with."""
        return True

    def listing(self) -> Iterator[ListedObject]:
        """The objects that it read, as they were then. Raises PartDamaged."""
        return read_listing(self.objects, self.folder.child(layout.INPUTS))

    def errors(self) -> Iterator[dict[str, Any]]:
        """The records that failed, in order of the input."""
        for line in self.lines(layout.ERRORS):
            yield json.loads(line)

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of an object of the folder."""
        rest = b""
        for chunk in self.objects.stream(self.folder.child(name)):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest


@dataclass(frozen=True)
class AskedFor:
    """A task as it was asked for, where no receipt says it. errors: its failed records so far, like lines of
    errors.jsonl.
    """

    id: str
    spec: TaskFile
    model_sha256: str | None = None
    code_sha256: str | None = None
    errors: Callable[[], Iterable[dict[str, Any]]] = tuple


@dataclass(frozen=True)
class UnfinishedTask(Task):
    """One that has no results: it failed, was stopped, or is at work. Its input is what is there now."""

    source: Location
    known: Callable[[], Iterable[dict[str, Any]]]

    @property
    def finished(self) -> bool:
        return False

    def listing(self) -> Iterator[ListedObject]:
        if self.source.is_folder:
            takes = selector(self.spec.input.include, self.spec.input.exclude)
            found: Iterable[ObjectInfo] = (each for each in self.objects.list(self.source) if takes(each.name))
        else:
            info = self.objects.head(self.source)
            found = [] if info is None else [info]
        for ordinal, each in enumerate(found):
            yield ListedObject(ordinal, each.name, each.size, each.etag, 0, 0)

    def errors(self) -> Iterator[dict[str, Any]]:
        yield from self.known()


def has_receipt(objects: Objects, folder: Location) -> bool:
    """Whether a task has succeeded in this folder."""
    return objects.head(folder.child(layout.RECEIPT)) is not None


def read_unfinished(objects: Objects, folder: Location, asked: AskedFor) -> UnfinishedTask:
    """A task that has no receipt, by what was asked for. Formats are found as they were then: by the first inputs.

    Raises InvalidValue or NotFound where the input is not what it was.
    """
    spec = asked.spec
    source = parse_location(spec.input.path, field="input.path")
    if objects.is_folder(source):
        source = source.as_folder()
    first = first_inputs(objects, source, spec.input.include, spec.input.exclude)
    formats = resolve(spec.format, samples_of(objects, source, first))
    return UnfinishedTask(
        objects=objects,
        folder=folder,
        id=asked.id,
        input=folder_of(source),
        objects_read=len(first),
        spec=spec,
        input_format=formats.input,
        result_format=formats.result,
        model_sha256=asked.model_sha256,
        code_sha256=asked.code_sha256,
        environment={},
        source=source,
        known=asked.errors,
    )


def read_finished(objects: Objects, folder: Location) -> Task:
    """The task whose results are in this folder. Raises NotFound or InvalidValue, with what can be done instead."""
    place = folder.child(layout.RECEIPT)
    try:
        receipt = json.loads(objects.read(place, 0, _RECEIPT_BYTES_MAX))
    except NotFound:
        raise NotFound(
            f"there is no {layout.RECEIPT} in {folder}.",
            field="TASK",
            remedy="Give a folder of a task that has succeeded; otherwise its task file, or its id on a server.",
        ) from None
    except ValueError as error:
        raise InvalidValue(f"{place} is no receipt: {error}.", field="TASK") from error
    if not receipt.get("spec") or not receipt.get("made_with"):
        raise InvalidValue(
            f"{place} does not say what the task was: an older release wrote it.",
            field="TASK",
            remedy="Run the task again with this release.",
        )
    try:
        source = parse_location(receipt["input"]["path"], field="TASK")
        return Task(
            objects=objects,
            folder=folder,
            id=receipt["task"],
            input=folder_of(source),
            objects_read=receipt["input"]["objects"],
            spec=parse_task(receipt["spec"]),
            input_format=InputFormat(**receipt["made_with"]["input"]),
            result_format=ResultFormat(**receipt["made_with"]["result"]),
            model_sha256=receipt.get("model_sha256"),
            code_sha256=receipt.get("code_sha256"),
            environment=dict(receipt.get("environment") or {}),
        )
    except (KeyError, TypeError) as error:
        raise InvalidValue(
            f"{place} says what this release does not know: {error}.",
            field="TASK",
            remedy="Use the release that wrote it, or a newer one.",
        ) from error
