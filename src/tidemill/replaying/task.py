"""A finished task, read back from its output folder: what it ran and how, which objects it read. Used by `replay`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.location import Location, parse_location
from tidemill.domain.splits import ListedObject
from tidemill.objects.listing import read_listing
from tidemill.ports.objects import Objects
from tidemill.wire.taskfile import TaskFile, parse_task
from tidemill_runtime.contract import InputFormat, ResultFormat

_RECEIPT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class FinishedTask:
    """folder: of its output. input: the folder that the names of its objects lie below. spec: as it was asked for, with
    variables that have no values. model_sha256, code_sha256: digests of the folders that it ran; None where there was
    none. objects_read: how many objects it read.
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


def read_finished(objects: Objects, folder: Location) -> FinishedTask:
    """The task whose results are in this folder. Raises NotFound or InvalidValue, with what can be done instead."""
    place = folder.child(layout.RECEIPT)
    try:
        receipt = json.loads(objects.read(place, 0, _RECEIPT_BYTES_MAX))
    except NotFound:
        raise NotFound(
            f"there is no {layout.RECEIPT} in {folder}.",
            field="TASK",
            remedy="Give the output folder of a task that has succeeded: what is unfinished has no account yet.",
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
        return FinishedTask(
            objects=objects,
            folder=folder,
            id=receipt["task"],
            input=_folder_of(source),
            objects_read=receipt["input"]["objects"],
            spec=parse_task(receipt["spec"]),
            input_format=InputFormat(**receipt["made_with"]["input"]),
            result_format=ResultFormat(**receipt["made_with"]["result"]),
            model_sha256=receipt.get("model_sha256"),
            code_sha256=receipt.get("code_sha256"),
        )
    except (KeyError, TypeError) as error:
        raise InvalidValue(
            f"{place} says what this release does not know: {error}.",
            field="TASK",
            remedy="Use the release that wrote it, or a newer one.",
        ) from error


def _folder_of(place: Location) -> Location:
    return place if place.is_folder else Location(place.scheme, place.bucket, place.key[: place.key.rfind("/") + 1])
